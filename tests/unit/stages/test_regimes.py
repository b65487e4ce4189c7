"""Regime tags against trailing quantiles by numpy and pandas, and an efficiency ratio by numpy."""

import numpy as np
import pandas as pd
import pytest

from pipeline.stages.base import Block
from pipeline.stages.regimes import Regimes, RegimesSettings
from schemas.arrivals import Arrivals
from schemas.blocks import Array, empty
from tests.fixtures.ticks import SECOND, START, arrivals_of, frame, run, settings_of, walk

NOTHING = Arrivals(0, {}, [])


def tags(close: Array, vol: Array, symbol: Array | None = None, **options: float) -> pd.DataFrame:
    """The stage over bars of these closes and volatilities."""
    n = len(close)
    bars, features = empty("bars", n, ["A", "B"]), empty("features", n, ["A", "B"])
    bars.columns["life"][:] = 0
    bars.columns["stale"][:] = 0
    bars.columns["scale"][:] = 1.0
    for rows in (bars, features):
        rows.columns["symbol"][:] = 0 if symbol is None else symbol
    bars.columns["close"][:] = close
    features.columns["bar_ewma_vol"][:] = vol
    stage = Regimes(RegimesSettings.model_validate(options))
    block = stage.step(Block(NOTHING, {"bars": bars, "features": features}))
    return frame(block.rows["regimes"])


def prices(n: int, seed: int) -> tuple[Array, Array]:
    """A walk and its EWMA volatility by pandas, null at its first bar."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 1e-3, n)))
    returns = pd.Series(np.diff(np.log(close), prepend=np.nan))
    vol = (returns**2).ewm(alpha=0.06, adjust=False).mean().pow(0.5)
    return np.round(close, 2), vol.to_numpy()


@pytest.mark.parametrize("seed", [1, 2])
def test_volatility_terciles_look_at_the_prior_252_values(seed: int) -> None:
    """The bounds are numpy's linear quantiles of the 252 values before this one, bit for bit."""
    close, vol = prices(900, seed)
    found = tags(close, vol)
    for i in range(900):
        prior = vol[1:i][-252:]
        if len(prior) < 252:
            assert found.loc[i, ["vol_low", "vol_high"]].isna().all()
            assert found["vol"][i] == -1
            continue
        low, high = np.quantile(prior, [1 / 3, 2 / 3])
        assert (found["vol_low"][i], found["vol_high"][i]) == (low, high)
        assert found["vol"][i] == (0 if vol[i] <= low else 1 if vol[i] <= high else 2)
    by_pandas = pd.Series(vol).shift(1).rolling(252).quantile(1 / 3)
    np.testing.assert_allclose(found["vol_low"], by_pandas, rtol=1e-12)
    assert set(found["vol"]) == {-1, 0, 1, 2}


def test_this_bar_is_not_among_the_values_that_judge_it() -> None:
    """A spike is high against the past, and moves the bounds from the next bar on only."""
    vol = np.full(12, 1.0)
    vol[8] = 9.0
    found = tags(np.full(12, 5.0), vol, vol_window=3)
    assert found["vol_high"].tolist()[8:11] == [
        1.0,
        pytest.approx(1 + 8 / 3),
        pytest.approx(1 + 8 / 3),
    ]
    assert found["vol"].tolist()[3:] == [0, 0, 0, 0, 0, 2, 0, 0, 0]


def test_a_missing_volatility_has_no_tag_and_no_place_in_the_window() -> None:
    """Null volatility: bounds stay those of the last 3 values that exist, the tag is null."""
    vol = np.array([1.0, 2.0, 3.0, np.nan, 2.5, np.nan, 9.0])
    found = tags(np.full(7, 5.0), vol, vol_window=3)
    known = [np.quantile(v, 1 / 3) for v in ([1, 2, 3], [1, 2, 3], [2, 3, 2.5], [2, 3, 2.5])]
    np.testing.assert_array_equal(found["vol_low"], [np.nan] * 3 + known)
    assert found["vol"].tolist() == [-1, -1, -1, -1, 2, -1, 2]


@pytest.mark.parametrize("seed", [3, 4])
def test_trend_is_the_efficiency_ratio_over_20_bars(seed: int) -> None:
    """|c_t - c_t-20| / sum |dc| by numpy; trend above .3."""
    close, vol = prices(500, seed)
    found = tags(close, vol)
    steps = np.abs(np.diff(close))
    truth = np.full(500, np.nan)
    for i in range(20, 500):
        truth[i] = abs(close[i] - close[i - 20]) / steps[i - 20 : i].sum()
    np.testing.assert_allclose(found["efficiency_ratio"], truth, rtol=1e-12)
    expected = np.where(np.isnan(truth), -1, truth > 0.3)
    assert found["trend"].tolist() == expected.tolist()
    assert set(found["trend"]) == {-1, 0, 1}


def test_a_still_market_ranges() -> None:
    """No change at all: ratio 0, range; the ratio of 1, 2, 3, 2, 4 over 4 bars is .6."""
    assert tags(np.full(5, 7.0), np.ones(5), trend_window=4)["efficiency_ratio"].iloc[-1] == 0.0
    assert tags(np.full(5, 7.0), np.ones(5), trend_window=4)["trend"].iloc[-1] == 0
    toy = tags(np.array([1.0, 2, 3, 2, 4]), np.ones(5), trend_window=4, trend_above=0.6)
    assert toy["efficiency_ratio"].iloc[-1] == pytest.approx(0.6, rel=1e-15)
    assert toy["trend"].iloc[-1] == 0  # above, not at
    toy = tags(np.array([1.0, 2, 3, 2, 4]), np.ones(5), trend_window=4, trend_above=0.59)
    assert toy["trend"].iloc[-1] == 1


def test_symbols_have_windows_of_their_own() -> None:
    """Two interleaved symbols are tagged as each would be alone."""
    a, b = prices(400, 5), prices(400, 6)
    which = np.tile([0, 1], 400)
    close, vol = np.empty(800), np.empty(800)
    for code, (c, v) in enumerate((a, b)):
        close[which == code], vol[which == code] = c, v
    both = tags(close, vol, which).drop(columns="symbol")
    for code, (c, v) in enumerate((a, b)):
        mine = both[which == code].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, tags(c, v).drop(columns="symbol"))


def test_rows_stand_where_their_bars_stand() -> None:
    """In the chain every bar has one row of regimes with its identity and times."""
    blocks = run(settings_of(bars={"clock": "time:10s"}), arrivals_of(walk(1500)))
    for block in blocks:
        bars, regimes = frame(block["bars"]), frame(block["regimes"])
        head = ["partition", "offset", "index", "symbol", "ts", "known_at"]
        pd.testing.assert_frame_equal(bars[head], regimes[head])
    assert START % (10 * SECOND) == 0
