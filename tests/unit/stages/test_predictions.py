"""Predictions against brute force: labels that exist only h bars later, engines, weights."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from river import linear_model, optim, preprocessing

from pipeline.errors import MisuseError
from pipeline.kernels.trees import predict as boosted
from pipeline.stages.predictions import LogitSettings, Predictions, PredictionsSettings
from schemas.blocks import ENGINES, Array
from tests.fixtures.boosted import speaking
from tests.fixtures.predicting import INPUTS, bars_of, predict

SAID = tuple(f"p_{name}" for name in ENGINES)
WEIGHTS = tuple(f"w_{name}" for name in ENGINES)


class Reference:
    """One instrument in plain Python: river's scaler and FTRL, matrices, logarithms of weights."""

    def __init__(self, horizon: int, fallback: int, eta: float, share: float) -> None:
        self.horizon, self.fallback, self.eta, self.share = horizon, fallback, eta, share
        self.rows: list[dict[str, Any]] = []
        self.outcomes: list[bool] = []
        self.scaler: Any = preprocessing.StandardScaler()
        self.logit: Any = linear_model.LogisticRegression(optimizer=optim.FTRLProximal())
        self.layers = {name: (np.zeros(2), np.eye(2)) for name in ENGINES}
        self.logs: dict[Any, Array] = {}
        self.counts: dict[Any, int] = {}
        self.sign = 0.0
        self.trees = math.nan  # what gbdt says of the next bar

    def _learn(self, row: dict[str, Any], rose: bool) -> None:
        losses = {
            name: -math.log(p if rose else 1 - p) for name, p in row["p"].items() if p is not None
        }
        for regime in (None, row["regime"]):
            if regime is None or min(regime) >= 0:
                self._weigh(regime, losses)
                self.counts[regime] = self.counts.get(regime, 0) + 1
        for name, score in row["scores"].items():
            if score is not None:
                theta, precision = self.layers[name]
                x = np.array([score, 1.0])
                p = 1 / (1 + math.exp(-theta @ x))
                precision = precision + p * (1 - p) * np.outer(x, x)
                theta = theta + np.linalg.solve(precision, x) * (rose - p)
                self.layers[name] = theta, precision
        if row["z"] is not None:
            self.logit.learn_one(row["z"], rose)
        self.outcomes.append(rose)

    def _weigh(self, regime: Any, losses: Mapping[str, float]) -> None:
        """A sleeper is charged with the loss of the mixture of those who were awake."""
        logs = self.weights(regime)
        awake = [e for e, name in enumerate(ENGINES) if name in losses]
        if awake:
            loss = np.array([losses.get(name, 0.0) for name in ENGINES])
            shared = np.log(np.exp(logs[awake] - self.eta * loss[awake]).sum())
            shared -= np.log(np.exp(logs[awake]).sum())
            gone = np.full(len(ENGINES), shared)
            gone[awake] = -self.eta * loss[awake]
            logs = logs + gone
        w = np.exp(logs - logs.max())
        w /= w.sum()
        self.logs[regime] = np.log((1 - self.share) * w + self.share / len(w))

    def weights(self, regime: Any) -> Array:
        """Logarithms of the weights in a regime."""
        return self.logs.get(regime, np.full(len(ENGINES), -math.log(len(ENGINES))))

    def scores(self, bar: Mapping[str, float]) -> dict[str, float | None]:
        """What the rules say, by the words of their definitions."""
        r20, place, vol = bar["bar_ret_20"], bar["donchian_pos_20"], bar["bar_ewma_vol"]
        found: dict[str, float | None] = dict.fromkeys(
            ("momentum", "mean_reversion", "breakout", "last_sign")
        )
        if not math.isnan(r20 + place):
            found["momentum"] = (np.sign(r20) + (2 * place - 1)) / 2
        if not math.isnan(bar["boll_z_20"]):
            back = [-bar["boll_z_20"]]
            if vol > 0 and not math.isnan(bar["vwap_dev_20"]):
                back.append(-bar["vwap_dev_20"] / (vol * math.sqrt(20)))
            found["mean_reversion"] = float(np.clip(np.mean(back), -8, 8))
        if place in {0.0, 1.0} and bar["realized_vol_20"] > 0 and vol > 0:
            wide = vol / (bar["realized_vol_20"] / math.sqrt(20))
            found["breakout"] = min(wide, 3.0) * (1 if place == 1 else -1)
        if math.isnan(bar["bar_ret_1"]):
            self.sign = 0.0
        else:
            self.sign = np.sign(bar["bar_ret_1"]) or self.sign
            found["last_sign"] = self.sign
        return found

    def step(self, bar: Mapping[str, float]) -> dict[str, float]:
        """What is said of a bar, after what it teaches."""
        level = bar["close"] / bar["scale"]
        if len(self.rows) >= self.horizon:
            row = self.rows[-self.horizon]
            if level != row["level"]:
                self._learn(row, level > row["level"])
        fresh = bar["stale"] == 0
        scores = self.scores(bar) if fresh else (self.scores(bar) and {})
        z = None
        x = {name: bar[name] for name in INPUTS if not math.isnan(bar[name])}
        if fresh and x:
            told = self.scaler.transform_one(x)
            z = {name: float(np.clip(told.get(name, 0.0), -10, 10)) for name in INPUTS}
            self.scaler.learn_one(x)
        p: dict[str, float | None] = dict.fromkeys(ENGINES)
        if fresh and self.outcomes:
            p["base_rate"] = (sum(self.outcomes) + 1) / (len(self.outcomes) + 2)
            if z is not None:
                p["online_logit"] = self.logit.predict_proba_one(z)[True]
            for name, score in scores.items():
                if score is not None:
                    p[name] = 1 / (1 + math.exp(-self.layers[name][0] @ [score, 1.0]))
        if fresh and not math.isnan(self.trees):
            p["gbdt"] = self.trees
        p = {name: None if v is None else min(max(v, 1e-6), 1 - 1e-6) for name, v in p.items()}
        regime = (int(bar["vol"]), int(bar["trend"]))
        self.rows.append({"level": level, "p": p, "scores": scores, "z": z, "regime": regime})
        enough = min(regime) >= 0 and self.counts.get(regime, 0) >= self.fallback
        w = np.exp(self.weights(regime if enough else None))
        w = np.array([0.0 if p[n] is None else one for n, one in zip(ENGINES, w, strict=True)])
        w = w / w.sum() if w.sum() > 0 else w
        both = zip(p.values(), w, strict=True)
        return {
            "p_up": sum(v * one for v, one in both if v is not None) if w.any() else math.nan,
            **{f"p_{n}": math.nan if v is None else v for n, v in p.items()},
            **{f"w_{n}": one for n, one in zip(ENGINES, w, strict=True)},
        }


@pytest.mark.parametrize(
    ("horizon", "options"),
    [
        (1, {"fallback": 30}),
        (5, {"fallback": 60, "eta": 0.5, "share": 0.05}),
        (13, {"fallback": 0, "share": 0.0}),
    ],
)
def test_against_the_reference(horizon: int, options: dict[str, Any]) -> None:
    """Every probability and weight of three symbols, 3,000 bars, by a program of another kind.

    Versions of gbdt come, go and replace each other meanwhile.
    """
    columns = bars_of(3000, horizon, symbols=3)
    versions = {700: speaking(1), 1500: speaking(2), 2000: None, 2400: speaking(1)}
    found = predict(columns, horizon=horizon, versions=versions, **options)
    trees = np.full(3000, math.nan)
    for start, stop in pairwise([*versions, 3000]):
        version = versions[start]
        if version is not None:
            x = [columns.get(name, np.full(3000, math.nan)) for name in version.trees.features]
            trees[start:stop] = boosted(version.trees, np.stack(x, 1)[start:stop])[1]
    told = {"fallback": 200, "eta": 1.0, "share": 0.01, **options}
    instruments: dict[tuple[int, int], Reference] = {}
    expected = []
    for i in range(3000):
        bar = {name: values[i] for name, values in columns.items()}
        key = (int(bar["symbol"]), int(bar["life"]))
        one = instruments.setdefault(key, Reference(horizon, **told))
        one.trees = float(trees[i])
        expected.append(one.step(bar))
    assert len(instruments) > 4
    for name in (*SAID, *WEIGHTS, "p_up"):
        # Some 1,000 updates, each within a few units of the last place, many of them differences.
        truth = np.array([row[name] for row in expected])
        np.testing.assert_allclose(found[name], truth, rtol=1e-8, atol=1e-12, err_msg=name)
        assert 0.2 < np.isnan(truth).mean() < 0.9 if name == "p_breakout" else True
    assert found["p_up"].notna().mean() > 0.9


@pytest.mark.parametrize("block", [1, 7, 500])
def test_blocks_leave_no_trace(block: int) -> None:
    """Whatever the size of a block, the same bits."""
    columns = bars_of(1200, 4, symbols=3)
    whole, parts = (predict(columns, size, fallback=20) for size in (None, block))
    for name in whole.columns:
        assert whole[name].to_numpy().tobytes() == parts[name].to_numpy().tobytes(), name


@pytest.mark.parametrize("horizon", [1, 5, 13])
def test_base_rate_knows_only_labels_that_have_matured(horizon: int) -> None:
    """At bar t the labels up to bar t - h are known: (rises + 1) / (labels + 2) by brute force."""
    close = 100 + np.cumsum(np.random.default_rng(horizon).integers(-1, 2, 300)) * 0.25
    found = predict({"close": close}, horizon=horizon)["p_base_rate"]
    for t in range(300):
        known = [close[s + horizon] - close[s] for s in range(t - horizon + 1)]
        moved = [change for change in known if change != 0]
        rises = sum(change > 0 for change in moved)
        expected = (rises + 1) / (len(moved) + 2) if moved else math.nan
        np.testing.assert_equal(found[t], expected)


def test_no_label_is_early() -> None:
    """Another price at bar 60 changes no probability and no weight before it, and those at it."""
    columns = bars_of(100, 9)
    columns["stale"][:] = columns["life"][:] = 0
    columns["bar_ret_20"][:] = 1.0
    columns["scale"][:] = 1.0
    columns["close"] = 100 + np.cumsum(np.where(np.arange(100) % 3, 1.0, -1.0))
    other = columns["close"].copy()
    other[60] += -50 if other[60] > other[55] else 50
    one, two = (predict({**columns, "close": close}) for close in (columns["close"], other))
    for name in ("p_up", *SAID, *WEIGHTS):
        assert one[name][:60].to_numpy().tobytes() == two[name][:60].to_numpy().tobytes()
    for name in ("p_up", "p_momentum", "p_base_rate", "p_online_logit", "w_base_rate"):
        assert one[name][60] != two[name][60]


def test_an_input_is_told_before_it_is_learnt() -> None:
    """The scaler of a row knows the rows before it: a wild one stands out by what came before."""
    rng = np.random.default_rng(3)
    n = 400
    x = rng.normal(0, 1, n)
    rise = np.where(rng.random(n) < 1 / (1 + np.exp(-2 * x)), 1.0, -1.0)
    close = 1000 + np.concatenate([[0.0], np.cumsum(rise)[:-1]])  # x of a bar tells the next move
    x[-1] = 4.0
    options: dict[str, Any] = {"horizon": 1, "logit": {"inputs": ["bar_ret_1"], "most": 1e6}}
    columns = {"close": close, "bar_ret_1": x}
    tall = predict(columns, **options)["p_online_logit"].iloc[-1]
    x[-1] = 8.0
    taller = predict(columns, **options)["p_online_logit"].iloc[-1]
    odds = [math.log(p / (1 - p)) for p in (tall, taller)]
    mean, sd = x[:-1].mean(), x[:-1].std()
    model = [(odds[1] - odds[0]) / (4.0 / sd), odds[0]]  # slope in deviations of the rows before
    shift = model[1] - model[0] * (4.0 - mean) / sd
    x[-1] = 0.5
    plain = predict(columns, **options)["p_online_logit"].iloc[-1]
    expected = model[0] * (0.5 - mean) / sd + shift
    # A scaler that had learnt the row would bend the line: sd would depend on the row itself.
    assert math.log(plain / (1 - plain)) == pytest.approx(expected, rel=1e-9)
    assert model[0] > 0.5


def test_weights_are_judged_by_what_was_said() -> None:
    """Between a saying and its outcome the layer learns; the loss is that of what was said.

    A rule is right for ever, so its layer grows surer: the weights by its stored probabilities are
    not those by its present ones.
    """
    n, horizon = 60, 10
    close = 100.0 + np.arange(n)
    columns = {"close": close, "bar_ret_1": np.ones(n)}
    found = predict(
        columns, horizon=horizon, engines=["last_sign", "base_rate"], share=0.0, fallback=10_000
    )
    rule, base = (found[f"p_{name}"].to_numpy() for name in ("last_sign", "base_rate"))
    spoken = ~np.isnan(rule)
    for t in range(n):
        matured = [s for s in range(t - horizon + 1) if spoken[s]]
        ratio = np.prod(rule[matured] / base[matured])
        if spoken[t]:
            assert found["w_last_sign"][t] == pytest.approx(ratio / (1 + ratio), rel=1e-9)
    assert found["w_last_sign"].iloc[-1] != 0.5


def test_engines_that_are_left_out_say_nothing() -> None:
    """Null and weight 0; one engine alone has all the weight."""
    columns = bars_of(600, 5)
    found = predict(columns, engines=["base_rate"])
    for name in ENGINES:
        if name != "base_rate":
            assert found[f"p_{name}"].isna().all()
            assert (found[f"w_{name}"] == 0).all()
    ready = found["p_base_rate"].notna()
    assert (found["w_base_rate"] == ready.astype(float)).all()
    np.testing.assert_allclose(found["p_up"], found["p_base_rate"], rtol=1e-15)
    assert predict(columns, engines=[])["p_up"].isna().all()


def test_weights_sum_to_one_over_those_who_speak() -> None:
    """p_up lies between the least and the greatest of them."""
    found = predict(bars_of(900, 6))
    spoken = found[list(SAID)].notna().to_numpy()
    weights = found[list(WEIGHTS)].to_numpy()
    assert ((weights > 0) == spoken).all()
    assert len({tuple(row) for row in spoken.tolist()}) > 3
    some = np.flatnonzero(spoken.any(axis=1))
    np.testing.assert_allclose(weights[some].sum(axis=1), 1.0, rtol=1e-12)
    said, together = found[list(SAID)].iloc[some], found["p_up"].iloc[some]
    slack = 1e-12  # rounding of a mean
    assert (together >= said.min(axis=1) - slack).all()
    assert (together <= said.max(axis=1) + slack).all()


@pytest.mark.parametrize("bad", [1e300, -1e300, 1e151])
def test_an_input_that_overflows_poisons_nothing(bad: float) -> None:
    """It counts as null, and what follows is as if it had been."""
    columns = bars_of(300, 7)
    wild, null = columns["bar_ret_20"].copy(), columns["bar_ret_20"].copy()
    wild[100], null[100] = bad, np.nan
    one, two = (
        predict({**columns, "bar_ret_20": values})["p_online_logit"].to_numpy()
        for values in (wild, null)
    )
    assert one.tobytes() == two.tobytes()
    assert np.isfinite(one[120:]).any()


def test_volatility_grows_with_the_root_of_the_horizon() -> None:
    """The column sigma is the bar volatility times sqrt(h); horizon and close stand in the row."""
    columns = bars_of(30, 5)
    found = predict(columns, horizon=9)
    np.testing.assert_allclose(found["sigma"], columns["bar_ewma_vol"] * 3, rtol=1e-15)
    assert (found["horizon"] == 9).all()
    assert found["close"].tolist() == columns["close"].tolist()


def test_symbols_learn_apart() -> None:
    """Interleaved symbols are predicted as each would be alone."""
    columns = bars_of(900, 8, symbols=3)
    both = predict(columns)
    for code in range(3):
        mine = columns["symbol"] == code
        alone = predict({name: values[mine] for name, values in columns.items()})
        for name in ("p_up", *SAID, *WEIGHTS):
            assert both[name][mine].to_numpy().tobytes() == alone[name].to_numpy().tobytes()


def test_inputs_that_are_no_numbers_are_refused() -> None:
    """A slip is one line that names it."""
    for name in ("nonsense", "symbol"):
        settings = PredictionsSettings.model_validate({"logit": {"inputs": [name]}})
        with pytest.raises(MisuseError, match=f"predictions.logit.inputs: .* {name}"):
            Predictions(settings)
    with pytest.raises(ValueError, match="named twice"):
        LogitSettings(inputs=("bar_ret_1", "bar_ret_1"))
