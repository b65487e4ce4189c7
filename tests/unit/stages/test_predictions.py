"""Predictions against brute force: labels that exist only h bars later, the momentum formula."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.stages.base import Block
from pipeline.stages.predictions import Predictions, PredictionsSettings
from schemas.arrivals import Arrivals
from schemas.blocks import Array, empty

NOTHING = Arrivals(0, {}, [])
PROBABILITIES = ("p_up", "p_momentum", "p_base_rate")


def predict(
    close: Array, ret_20: Array, vol: Array, symbol: Array | None = None, **options: float
) -> pd.DataFrame:
    """The stage over bars with these closes and features."""
    n = len(close)
    bars, features = empty("bars", n, ["A", "B"]), empty("features", n, ["A", "B"])
    bars.columns["life"][:] = 0
    bars.columns["stale"][:] = 0
    bars.columns["scale"][:] = 1.0
    for rows in (bars, features):
        rows.columns["symbol"][:] = 0 if symbol is None else symbol
    bars.columns["close"][:] = close
    features.columns["bar_ret_20"][:] = ret_20
    features.columns["bar_ewma_vol"][:] = vol
    stage = Predictions(PredictionsSettings.model_validate(options))
    rows = stage.step(Block(NOTHING, {"bars": bars, "features": features})).rows["predictions"]
    return pd.DataFrame(dict(rows.columns))


def walk(n: int, seed: int) -> tuple[Array, Array, Array]:
    """Closes that often repeat, with a 20-bar return and a volatility; the first ones are null."""
    rng = np.random.default_rng(seed)
    close = 100 + np.cumsum(rng.integers(-1, 2, n)) * 0.25
    ret = pd.Series(np.log(close)).diff(20).to_numpy()
    return close, ret, rng.uniform(1e-4, 1e-2, n)


@pytest.mark.parametrize("horizon", [1, 5, 13])
def test_base_rate_knows_only_labels_that_have_matured(horizon: int) -> None:
    """At bar t the labels up to bar t - h are known: (rises + 1) / (labels + 2) by brute force."""
    close, ret, vol = walk(300, horizon)
    found = predict(close, ret, vol, horizon=horizon)["p_base_rate"]
    for t in range(300):
        known = [close[s + horizon] - close[s] for s in range(t - horizon + 1)]
        moved = [change for change in known if change != 0]
        rises = sum(change > 0 for change in moved)
        expected = (rises + 1) / (len(moved) + 2) if moved else math.nan
        np.testing.assert_equal(found[t], expected)


def test_no_label_is_early() -> None:
    """Another price at bar 60 changes no prediction before it, and changes the one at it."""
    close, ret, vol = walk(100, 9)
    other = close.copy()
    other[60] = close[55] - 50 if close[60] > close[55] else close[55] + 50
    one = predict(close, ret, vol)["p_base_rate"].to_numpy()
    two = predict(other, ret, vol)["p_base_rate"].to_numpy()
    assert one[:60].tobytes() == two[:60].tobytes()
    assert one[60] != two[60]


@pytest.mark.parametrize("scale", [0.5, -1.25])
def test_momentum_is_a_logistic_of_the_scaled_return(scale: float) -> None:
    """1 / (1 + exp(-k r20 / (sigma sqrt 20))); null until the 20-bar return exists."""
    close, ret, vol = walk(200, 2)
    found = predict(close, ret, vol, momentum_scale=scale)["p_momentum"]
    assert found[:20].isna().all()
    with np.errstate(invalid="ignore"):
        truth = 1 / (1 + np.exp(-scale * ret / (vol * math.sqrt(20))))
    np.testing.assert_allclose(found, truth, rtol=1e-14)
    assert found[20:].notna().all()


@pytest.mark.parametrize("vol", [0.0, math.nan])
def test_without_volatility_momentum_is_silent(vol: float) -> None:
    """No volatility, no scale: the engine is not ready instead of certain."""
    close, ret, _ = walk(60, 3)
    found = predict(close, ret, np.full(60, vol))
    assert found["p_momentum"].isna().all()
    assert (found["w_momentum"] == 0).all()
    ready = found["p_base_rate"].notna()
    assert found["p_up"][ready].tolist() == found["p_base_rate"][ready].tolist()
    assert (found["w_base_rate"] == ready.astype(float)).all()


def test_ready_engines_share_the_weight() -> None:
    """Weights are even among the engines that are ready, and p_up is their mixture."""
    close, ret, vol = walk(150, 4)
    found = predict(close, ret, vol)
    ready = found[["p_momentum", "p_base_rate"]].notna().to_numpy()
    assert {tuple(row) for row in ready.tolist()} >= {(False, False), (False, True), (True, True)}
    weights = found[["w_momentum", "w_base_rate"]].to_numpy()
    np.testing.assert_array_equal(weights, ready / np.maximum(ready.sum(axis=1), 1)[:, None])
    mixture = found[["p_momentum", "p_base_rate"]].mean(axis=1)  # pandas leaves nulls out
    np.testing.assert_allclose(found["p_up"], mixture, rtol=1e-15)
    inside = found["p_up"].dropna()
    assert ((inside > 0) & (inside < 1)).all()


def test_volatility_grows_with_the_root_of_the_horizon() -> None:
    """The column sigma is the bar volatility times sqrt(h); horizon and close stand in the row."""
    close, ret, vol = walk(30, 5)
    found = predict(close, ret, vol, horizon=9)
    np.testing.assert_allclose(found["sigma"], vol * 3, rtol=1e-15)
    assert (found["horizon"] == 9).all()
    assert found["close"].tolist() == close.tolist()


def test_symbols_learn_apart() -> None:
    """Two interleaved symbols are predicted as each would be alone."""
    one, two = walk(120, 6), walk(120, 7)
    which = np.tile([0, 1], 120)
    mixed = [np.empty(240) for _ in range(3)]
    for code, parts in enumerate((one, two)):
        for into, part in zip(mixed, parts, strict=True):
            into[which == code] = part
    both = predict(mixed[0], mixed[1], mixed[2], which)
    for code, parts in enumerate((one, two)):
        alone = predict(*parts)
        for name in PROBABILITIES:
            assert (
                both[name][which == code].to_numpy().tobytes() == alone[name].to_numpy().tobytes()
            )
