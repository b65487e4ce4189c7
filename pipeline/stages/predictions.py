"""Predictions: what each engine gives for a rise over the horizon, and their combination."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.kernels import engines as rules
from pipeline.kernels import learners, selection
from pipeline.kernels import predictions as kernels
from pipeline.stages.base import (
    HEAD,
    Block,
    PerSymbol,
    State,
    beside,
    grow,
    head,
    numbers_named,
    room,
)
from pipeline.stages.boosted import Activated, Speaker, packed, unpacked
from pipeline.stages.engines import Engine as OwnEngine
from pipeline.stages.engines import Own
from pipeline.stages.selection import HELD, Selector
from schemas.blocks import ENGINES, Array, Rows, empty, names_of
from schemas.gbdt import GBDT
from schemas.models import Activation

Engine = Literal[
    "momentum", "mean_reversion", "breakout", "last_sign", "online_logit", "gbdt", "base_rate"
]
_KINDS: Final = {
    **dict.fromkeys(rules.RULES, kernels.SCORE),
    "online_logit": kernels.LOGIT,
    GBDT: kernels.PROBABILITY,
    "base_rate": kernels.BASE,
}
_OWN: Final = {"score": kernels.SCORE, "probability": kernels.PROBABILITY}
_MOST_INPUTS: Final = 64
_PLACE: Final = tuple(ENGINES).index(GBDT)
_SHADOW_P: Final = "shadow_p"
_REGIME: Final = "gbdt_regime"
_NULL: Final = np.int32(-1)  # of a label
_SHORTEST: Final = 1024  # nulls


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LogitSettings(_Group):
    """The engine online_logit: a logistic model of features, learnt outcome by outcome."""

    inputs: tuple[str, ...] = Field(
        (
            "bar_ret_1", "bar_ret_20", "boll_z_20", "volume_z_20", "vwap_dev_20",
            "trade_imbalance_50", "queue_imbalance", "ofi_50",
        ),
        max_length=_MOST_INPUTS,
        description="columns of bars or features, a user's own too",
    )  # fmt: skip
    optimizer: Literal["ftrl", "sgd"] = "ftrl"
    rate: float = Field(0.05, gt=0, le=10, description="alpha of FTRL, the step of SGD")
    intercept_rate: float = Field(0.01, ge=0, le=10)
    beta: float = Field(1.0, ge=0, le=1e6, description="FTRL: how gently steps begin")
    l1: float = Field(0.0, ge=0, le=1e6, description="FTRL: weights below it are zero")
    l2: float = Field(1.0, ge=0, le=1e6, description="FTRL: shrinks weights")
    most: float = Field(10.0, gt=0, le=1e6, description="deviations from the mean at most")

    @field_validator("inputs")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a column is named twice")
        return value


class PredictionsSettings(_Group):
    """The horizon in bars, who speaks, how they learn and how they are combined."""

    horizon: int = Field(5, ge=1, le=10_000)
    engines: tuple[Engine, ...] = Field(get_args(Engine), description="the others say nothing")
    logit: LogitSettings = LogitSettings()
    prior: float = Field(
        1.0, gt=0, le=1e6, description="variance of slope and shift of a rule before any outcome"
    )
    eta: float = Field(1.0, ge=0, le=2, description="how fast weights follow the log loss")
    share: float = Field(0.01, ge=0, le=1, description="of all weights that goes evenly to all")
    fallback: int = Field(
        200, ge=0, le=1_000_000, description="outcomes in a regime until it has weights of its own"
    )
    selection_hold: int = Field(
        5,
        ge=1,
        le=10_000,
        description="bars in a row that a volatility regime takes to change the version of gbdt",
    )


class Predictions(PerSymbol):
    """Rules, a linear model and two null engines, each taught by matured labels, and their mean.

    The mean is by exponential weights with a fixed share, one vector for each regime. Boosted trees
    speak with them while a version is active: it learns nothing here, but its weight does, and goes
    on when another version takes its place. A second version, the shadow, speaks beside all that.
    Others may be selected to speak instead of the active one in volatility regimes.
    """

    name: ClassVar[str] = "predictions"

    def __init__(self, settings: PredictionsSettings, own: Sequence[OwnEngine] = ()) -> None:
        """Args: the settings, and the user's engines, which always speak."""
        logit = settings.logit
        numbers_named(logit.inputs, "predictions.logit.inputs: ")
        self._settings = settings
        self._own = Own(own, settings.horizon)
        names = (*ENGINES, *(one.name for one in own))
        kinds = [_KINDS[name] if name in settings.engines else kernels.OFF for name in ENGINES]
        self._kinds = np.array([*kinds, *(_OWN[one.says] for one in own)], np.int64)
        self._optimizer = learners.FTRL if logit.optimizer == "ftrl" else learners.SGD
        self._rates = np.array([logit.rate, logit.intercept_rate, logit.beta, logit.l1, logit.l2])
        self._blend = np.array([settings.eta, settings.share, settings.prior, logit.most])
        self._names = logit.inputs if "online_logit" in settings.engines else ()
        e, d = len(names), len(self._names)
        self._given, self._inputs = np.empty((e, 0)), np.empty((d, 0))
        self._kept = np.empty(e)
        self._columns = (
            "p_up", "sigma", *(f"p_{name}" for name in names), *(f"w_{name}" for name in names)
        )  # fmt: skip
        self._arrays: dict[str, Array] = {
            "ints": np.empty((0, kernels.INT_STATE), np.int64),
            "scales": np.empty(0),
            "scalers": np.empty((0, learners.SCALER, d)),
            "models": np.empty((0, learners.LINEAR, d + 1)),
            "platts": np.empty((0, e, learners.PLATT)),
            "weights": np.empty((0, 1 + kernels.REGIMES, e)),
            "queue": np.empty((0, settings.horizon, kernels.waiting(e, d))),
            "signs": np.empty(0),
            **self._own.arrays(),
        }
        self._activated: Activated | None = None
        self._active: Speaker | None = None
        self._shadow: Speaker | None = None
        self._selector: Selector | None = None
        self._nulls = np.empty(0, np.int32)
        known = {*HEAD, "horizon", *self._columns, "close", _SHADOW_P, _REGIME}
        # Of engines that another chain of the process has.
        self._others = tuple(name for name in names_of(self.name) if name not in known)

    @property
    def own(self) -> tuple[OwnEngine, ...]:
        """The user's engines, in the order of their columns."""
        return self._own.engines

    @property
    def activation(self) -> Activation | None:
        """By what the versions of gbdt that speak were activated; None before the first."""
        return None if self._activated is None else self._activated.activation

    def activate(self, activated: Activated) -> None:
        """Speak by these versions of gbdt from the next block on.

        What was said stands, and teaches as what it was. A snapshot carries them. In which regime a
        symbol is held to be is known while any version is selected, and begins anew after that.

        Raises:
            MisuseError: one of them looks at what is no column here; nothing has changed.
        """
        active, shadow = (
            None if one is None else Speaker(one) for one in (activated.active, activated.shadow)
        )
        selected = activated.selected
        self._selector = Selector(selected, active) if selected else None
        self._active, self._shadow = active, shadow
        self._remember(held=bool(selected))
        self._activated = activated
        self._given[_PLACE] = np.nan

    def _remember(self, *, held: bool) -> None:
        """Have the state of the selection, as many rows of it as of the others, or not."""
        if not held:
            self._arrays.pop(HELD, None)
        elif HELD not in self._arrays:
            n = len(self._arrays["ints"])
            self._arrays[HELD] = np.zeros((n, selection.INT_STATE), np.int64)

    def step(self, block: Block) -> Block:
        """Add one row of probabilities per bar."""
        bars, arrays = block.rows["bars"], self._arrays
        grow(arrays, len(bars.symbols))
        n = len(bars)
        out = room(kernels.outputs(len(self._kinds)), n)
        columns = bars.columns
        features, regimes = block.rows["features"].columns, block.rows["regimes"].columns
        vol, trend = beside(regimes["vol"], n), beside(regimes["trend"], n)
        spoke = self._look(columns, features, regimes, n)
        self._own.say(arrays, block.rows, self._given[len(ENGINES) :])
        kernels.predictions(
            self._settings.horizon, self._settings.fallback, self._kinds, self._optimizer,
            self._rates, self._blend, columns["symbol"], columns["life"], columns["scale"],
            columns["stale"], columns["close"], beside(features["bar_ewma_vol"], n), vol, trend,
            self._given, self._inputs, arrays["ints"], arrays["scales"],
            arrays["scalers"], arrays["models"], arrays["platts"], arrays["weights"],
            arrays["queue"], self._kept, out,
        )  # fmt: skip
        if not n:
            return block.plus(empty(self.name, 0, bars.symbols))
        rows = head(bars)
        rows["horizon"] = np.empty(n, np.int32)
        rows["horizon"].fill(self._settings.horizon)
        rows.update(zip(self._columns, out[:, :n], strict=True))
        rows["close"] = columns["close"]
        rows[_SHADOW_P] = self._beside(columns, features, n)
        if spoke is None:
            rows[_REGIME] = self._nobody(n)
        else:
            rows[_REGIME] = np.where(np.isnan(rows[f"p_{GBDT}"]), _NULL, spoke)
        rows.update({name: np.full(n, np.nan) for name in self._others})
        return block.plus(Rows(self.name, rows, bars.symbols))

    def _look(
        self,
        bars: Mapping[str, Array],
        features: Mapping[str, Array],
        regimes: Mapping[str, Array],
        n: int,
    ) -> Array | None:
        """Fill the scores of the rules, and the inputs of the linear model; room is kept.

        Returns:
            By the version of which regime gbdt speaks, (n,), if versions are selected.
        """
        spoke = None
        if self._given.shape[1] < n:
            self._given = room(len(self._kinds), n)
            self._given[_PLACE] = np.nan
            self._inputs = room(len(self._names), n)
        if self._selector is not None:
            spoke = self._selector.say(
                bars, features, beside(regimes["vol_regime"], n), self._settings.selection_hold,
                self._arrays[HELD], self._given[_PLACE],
            )  # fmt: skip
        elif self._active is not None:
            self._active.say(bars, features, n, self._given[_PLACE])
        rules.scores(
            bars["symbol"],
            self._arrays["signs"],
            self._given,
            *(beside(features[name], n) for name in rules.INPUTS),
        )
        for row, name in zip(self._inputs, self._names, strict=True):
            row[:n] = beside(features[name] if name in features else bars[name], n)
        return spoke

    def _nobody(self, n: int) -> Array:
        """Nulls of a label, (n,), made once."""
        if len(self._nulls) < n:
            self._nulls = np.full(max(n, _SHORTEST), _NULL)
        return self._nulls[:n]

    def _beside(self, bars: Mapping[str, Array], features: Mapping[str, Array], n: int) -> Array:
        """What the shadow says, (n,): as an engine, nothing of a stale bar."""
        p = np.full(n, np.nan)
        if self._shadow is not None:
            self._shadow.say(bars, features, n, p)
            p.clip(learners.CLIP, 1.0 - learners.CLIP, out=p)
            p[bars["stale"] != 0] = np.nan
        return p

    def snapshot(self) -> State:
        """The arrays, copied, and the versions that speak."""
        state = super().snapshot()
        return state if self._activated is None else {**state, **packed(self._activated)}

    def restore(self, state: State) -> None:
        """Continue from a snapshot, with the versions that spoke then."""
        self._remember(held=HELD in state)
        super().restore(state)
        self._activated = self._active = self._shadow = self._selector = None
        self._given[_PLACE] = np.nan
        found = unpacked(state)
        if found is not None:
            self.activate(found)
