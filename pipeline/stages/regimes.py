"""Regimes: volatility, trend, hidden state and alarms of each bar, from what was known by then."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.kernels import bocpd, cusum, hmm
from pipeline.kernels import regimes as kernels
from pipeline.stages.base import Block, PerSymbol, State, beside, grow, head, room
from schemas.blocks import Array, Rows, empty
from schemas.models import STATES_MOST, HmmModel, HmmParameters

# Columns that are null unless what they tell of is followed.
_LABELS: Final = ("hmm", "cusum_alarm", "bocpd_alarm")
_HMM: Final = ("hmm_p_low", "hmm_p_high", "hmm_entropy")
_BOCPD: Final = ("bocpd_p_recent", "bocpd_run")
_VERSION: Final = "hmm_version"  # of the model that is active, in a snapshot
_SHORTEST: Final = 1024  # nulls


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CusumSettings(_Group):
    """Page's sums, in standard deviations: what is let pass a bar, and where the alarm is."""

    slack: float = Field(0.5, ge=0, le=100)
    threshold: float = Field(5.0, gt=0, le=1e6)


class BocpdSettings(_Group):
    """Change points: how often, what is known of a new run, and when a run is recent."""

    every: float = Field(250.0, gt=1, le=1e9, description="bars between changes, on average")
    mu: float = Field(0.0, ge=-100, le=100)
    kappa: float = Field(1.0, ge=1e-6, le=1e6)
    alpha: float = Field(1.0, ge=1e-3, le=1e6)
    beta: float = Field(1.0, ge=1e-6, le=1e6)
    recent: int = Field(10, ge=1, le=10_000, description="bars of a run that is recent")
    level: float = Field(0.5, gt=0, lt=1, description="of P(recent) from which it is an alarm")
    prune: float = Field(1e-8, ge=0, le=1e-3, description="runs less probable are forgotten")
    room: int = Field(256, ge=16, le=10_000, description="runs of a symbol at most")


class RegimesSettings(_Group):
    """Windows in bars, the levels of the tags, and what else is followed when it is set."""

    vol_window: int = Field(252, ge=3, le=10_000)
    vol_quantiles: tuple[float, float, float] = Field(
        (0.25, 0.75, 0.95),
        description="of the volatilities in the window: above them it is normal, high, extreme",
    )
    trend_window: int = Field(20, ge=2, le=10_000)
    trend_above: float = Field(0.3, ge=0, le=1)
    hysteresis: float = Field(
        0.0, ge=0, lt=1, description="part of a bound by which it must be passed to leave a tag"
    )
    hmm: HmmModel | None = None
    cusum: CusumSettings | None = None
    bocpd: BocpdSettings | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        low, middle, high = self.vol_quantiles
        if not 0 < low < middle < high < 1:
            raise ValueError("vol_quantiles are three numbers between 0 and 1, ascending")
        return self


class Regimes(PerSymbol):
    """Tags of volatility and trend, null until the windows are full; the rest when it is set.

    A hidden Markov model says what its filter knows; CUSUM and BOCPD follow the returns in units of
    the volatility of the bar before.
    """

    name: ClassVar[str] = "regimes"

    def __init__(self, settings: RegimesSettings) -> None:
        self._settings = settings
        self._arrays: dict[str, Array] = {
            "vol_sorted": np.empty((0, settings.vol_window)),
            "vol_ring": np.empty((0, settings.vol_window)),
            "floats": np.empty((0, kernels.floats_needed(settings.trend_window))),
            "ints": np.empty((0, kernels.INT_STATE), np.int64),
        }
        self._model: tuple[HmmModel, hmm.Tables] | None = None
        self._rows_of: Array = np.empty(0, np.int64)
        self._nulls = np.empty(0), np.empty(0, np.int32)
        if settings.cusum is not None or settings.bocpd is not None:
            self._add(z_lives=((), np.int64), z_vols=((), np.float64))
        if settings.cusum is not None:
            self._add(cusum_lives=((), np.int64), cusum_sums=((cusum.SUMS,), np.float64))
        if settings.bocpd is not None:
            known = settings.bocpd
            self._prior = np.array([known.mu, known.kappa, known.alpha, known.beta])
            place = known.room
            self._add(
                bocpd_ints=((bocpd.INT_STATE,), np.int64),
                bocpd_runs=((place,), np.int64),
                bocpd_floats=((bocpd.RUN_FLOATS, place), np.float64),
            )
        if settings.hmm is not None:
            self._take(settings.hmm)

    @property
    def version(self) -> str | None:
        """The version of the hidden Markov model that is active."""
        return self._model[0].version if self._model is not None else None

    def activate(self, version: str, parameters: Mapping[str, HmmParameters]) -> None:
        """Filter with these parameters by symbol (`*`: any other) from the next block on.

        What was known goes on across the swap: the filtered probabilities of a symbol are the prior
        of its next bar. With another number of states it begins at the stationary distribution, as
        a symbol does that had no parameters. A snapshot remembers the version.
        """
        self._take(HmmModel(version=version, symbols=parameters))

    def step(self, block: Block) -> Block:
        """Add one row of tags per bar."""
        bars, features = block.rows["bars"], block.rows["features"]
        arrays, settings = self._arrays, self._settings
        grow(arrays, len(bars.symbols))
        n = len(bars)
        labels = room(kernels.LABELS, n, np.int32)
        floats = room(kernels.FLOATS, n)
        floats.fill(np.nan)
        columns = bars.columns
        ret, vol = (beside(features[name], n) for name in ("bar_ret_1", "bar_ewma_vol"))
        kernels.regimes(
            settings.trend_window,
            settings.trend_above,
            settings.hysteresis,
            settings.vol_quantiles,
            columns["symbol"],
            columns["life"],
            columns["scale"],
            columns["close"],
            vol,
            arrays["vol_sorted"],
            arrays["vol_ring"],
            arrays["floats"],
            arrays["ints"],
            labels,
            floats,
        )
        if not n:
            return block.plus(empty(self.name, 0, bars.symbols))
        rows = head(bars)
        rows["vol"], rows["trend"], rows["vol_regime"] = labels[:, :n]
        rows["efficiency_ratio"], rows["vol_low"], rows["vol_high"] = floats[:, :n]
        rows.update(self._unset(n))
        if self._model is not None:
            self._filter(*self._model, bars, ret, rows)
        if settings.cusum is not None or settings.bocpd is not None:
            self._alarm(bars, ret, vol, rows)
        return block.plus(Rows(self.name, rows, bars.symbols))

    def _unset(self, n: int) -> dict[str, Array]:
        """Nulls for all that may not be set: every column the same ones, made once."""
        if len(self._nulls[0]) < n:
            size = max(n, _SHORTEST)
            self._nulls = np.full(size, np.nan), np.full(size, -1, np.int32)
        nothing, none = (nulls[:n] for nulls in self._nulls)
        return {
            **dict.fromkeys((*_HMM, "cusum", *_BOCPD), nothing),
            **dict.fromkeys(_LABELS, none),
        }

    def _filter(
        self, model: HmmModel, tables: hmm.Tables, bars: Rows, ret: Array, rows: dict[str, Array]
    ) -> None:
        symbols, n = bars.symbols, len(bars)
        new = symbols[len(self._rows_of) :]  # symbols are only ever added
        if new:
            names = [model.name_of(symbol) for symbol in new]
            places = {name: row for row, name in enumerate(model.symbols)}
            more = [places[name] if name is not None else -1 for name in names]
            self._rows_of = np.append(self._rows_of, np.array(more, np.int64))
        tags, floats = np.empty(n, np.int32), room(hmm.FLOATS, n)
        hmm.hmm(
            self._rows_of, *tables, bars["symbol"], bars["life"], ret, self._arrays["hmm_ints"],
            self._arrays["hmm_p"], np.empty(STATES_MOST), tags, floats,
        )  # fmt: skip
        rows["hmm"] = tags
        rows.update(zip(_HMM, floats[:, :n], strict=True))

    def _alarm(self, bars: Rows, ret: Array, vol: Array, rows: dict[str, Array]) -> None:
        arrays, n = self._arrays, len(bars)
        symbol, life, z = bars["symbol"], bars["life"], np.empty(n)
        cusum.standardised(symbol, life, ret, vol, arrays["z_lives"], arrays["z_vols"], z)
        sums, runs = self._settings.cusum, self._settings.bocpd
        if sums is not None:
            rows["cusum_alarm"], rows["cusum"] = np.empty(n, np.int32), np.empty(n)
            cusum.cusum(
                sums.slack, sums.threshold, symbol, life, z, arrays["cusum_lives"],
                arrays["cusum_sums"], rows["cusum_alarm"], rows["cusum"],
            )  # fmt: skip
        if runs is not None:
            tags, floats = np.empty(n, np.int32), room(bocpd.FLOATS, n)
            bocpd.bocpd(
                1.0 / runs.every, self._prior, runs.prune, runs.recent, runs.level, symbol, life, z,
                arrays["bocpd_ints"], arrays["bocpd_runs"], arrays["bocpd_floats"], tags, floats,
            )  # fmt: skip
            rows["bocpd_alarm"] = tags
            rows.update(zip(_BOCPD, floats[:, :n], strict=True))

    def _add(self, **kinds: tuple[tuple[int, ...], Any]) -> None:
        """State by the shape of a symbol's row and the dtype, as many rows as there are."""
        n = len(self._arrays["ints"])
        for name, (shape, dtype) in kinds.items():
            self._arrays[name] = np.zeros((n, *shape), dtype)

    def _take(self, model: HmmModel) -> None:
        self._model = model, hmm.tables(list(model.symbols.values()), STATES_MOST)
        self._rows_of = np.empty(0, np.int64)
        if "hmm_p" not in self._arrays:
            self._add(hmm_ints=((hmm.INT_STATE,), np.int64), hmm_p=((STATES_MOST,), np.float64))

    def snapshot(self) -> State:
        """The arrays, copied, and the version of the model."""
        if self._model is None:
            return super().snapshot()
        text = self._model[0].model_dump_json().encode()
        return {**super().snapshot(), _VERSION: np.frombuffer(text, np.uint8)}

    def restore(self, state: State) -> None:
        """Continue from a snapshot, with the model that was active then."""
        self._arrays = {name: state[name].copy() for name in state if name != _VERSION}
        self._model = None
        if _VERSION in state:
            self._take(HmmModel.model_validate_json(state[_VERSION].tobytes()))
