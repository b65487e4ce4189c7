"""Regime tags against trailing quantiles by numpy and pandas, and an efficiency ratio by numpy.

Hidden states and alarms against the kernels, which have tests of their own.
"""

from itertools import pairwise
from typing import Any

import arch.data.sp500
import numpy as np
import pandas as pd
import pytest

from pipeline.models.hmm import run_filter
from pipeline.stages.base import Block, State
from pipeline.stages.regimes import Regimes, RegimesSettings
from schemas.arrivals import Arrivals
from schemas.blocks import Array, Rows, empty
from schemas.models import HmmModel, HmmParameters
from tests.fixtures.regimes import FOLLOWED, SPX, THREE
from tests.fixtures.ticks import SECOND, START, arrivals_of, bits, frame, run, settings_of, walk

NOTHING = Arrivals(0, {}, [])


def block_of(close: Array, vol: Array, ret: Array, symbol: Array | int = 0) -> Block:
    """Bars with these closes, volatilities and returns."""
    n = len(close)
    bars, features = empty("bars", n, ["A", "B"]), empty("features", n, ["A", "B"])
    bars.columns["life"][:] = 0
    bars.columns["stale"][:] = 0
    bars.columns["scale"][:] = 1.0
    for rows in (bars, features):
        rows.columns["symbol"][:] = symbol
    bars.columns["close"][:] = close
    features.columns["bar_ewma_vol"][:] = vol
    features.columns["bar_ret_1"][:] = ret
    return Block(NOTHING, {"bars": bars, "features": features})


def tags(close: Array, vol: Array, symbol: Array | int = 0, **options: Any) -> pd.DataFrame:
    """The stage over bars of these closes and volatilities."""
    stage = Regimes(RegimesSettings.model_validate(options))
    block = block_of(close, vol, np.diff(np.log(close), prepend=np.nan), symbol)
    return frame(stage.step(block).rows["regimes"])


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


def test_the_sp500() -> None:
    """Shares of the tags by the whole chain, joint counts on log closes: QUANT.md 2.3."""
    table = arch.data.sp500.load()
    prices = pd.DataFrame({"ts": pd.DatetimeIndex(table.index).as_unit("ns").asi8})
    for name, column in {"price": "Close", "open": "Open", "high": "High", "low": "Low"}.items():
        prices[name] = table[column].to_numpy()
    settings = settings_of(bars={"clock": "row"}, guard={"mode": "plain"})
    rows = pd.concat([frame(block["regimes"]) for block in run(settings, arrivals_of(prices))])
    told = rows.loc[rows["vol"] >= 0, "vol"]
    shares = [round(float((told == code).mean()), 4) for code in range(3)]
    assert shares == [0.4249, 0.2547, 0.3204]

    logs = np.log(prices["price"].to_numpy())
    returns = pd.Series(logs).diff()
    vol = (returns**2).ewm(alpha=0.06, adjust=False).mean().pow(0.5).to_numpy()
    found = frame(
        Regimes(RegimesSettings()).step(block_of(logs, vol, returns.to_numpy())).rows["regimes"]
    )
    counts = found[found["vol"] >= 0].groupby(["vol", "trend"]).size()
    assert counts.tolist() == [1342, 688, 877, 340, 1197, 334]


def test_levels_of_volatility() -> None:
    """By numpy's quantiles of the 252 values before: low, normal, high, extreme."""
    close, vol = prices(900, 7)
    found = tags(close, vol)["vol_regime"]
    for i in range(900):
        prior = vol[1:i][-252:]
        expected = -1
        if len(prior) == 252:
            expected = int(np.searchsorted(np.quantile(prior, [0.25, 0.75, 0.95]), vol[i]))
        assert found[i] == expected
    assert set(found) == {-1, 0, 1, 2, 3}


def sticky(x: Array, bounds: Array, margin: float) -> list[int]:
    """A tag stays until its bound is passed by a part of it, as one would write it by hand."""
    told: list[int] = []
    for value, row in zip(x, bounds, strict=True):
        if np.isnan(row).any() or np.isnan(value):
            told.append(-1)
            continue
        now = next((tag for tag in reversed(told) if tag >= 0), None)
        if now is None:
            now = int((value > row).sum())
        while now < len(row) and value > row[now] * (1 + margin):
            now += 1
        while now > 0 and value <= row[now - 1] * (1 - margin):
            now -= 1
        told.append(now)
    return told


@pytest.mark.parametrize("margin", [0.0, 0.05, 0.5])
def test_hysteresis(margin: float) -> None:
    """Every tag is left only beyond its bound by the margin; with none it is the plain tag."""
    close, vol = (values.copy() for values in prices(1500, 8))
    vol[[400, 401, 777]] = np.nan
    found = tags(close, vol, hysteresis=margin, vol_window=100)
    bounds = found[["vol_low", "vol_high"]].to_numpy()
    assert found["vol"].tolist() == sticky(vol, bounds, margin)
    prior = pd.Series(vol).dropna().shift(1).rolling(100)
    levels = pd.concat([prior.quantile(q) for q in (0.25, 0.75, 0.95)], axis=1).reindex(range(1500))
    assert found["vol_regime"].tolist() == sticky(vol, levels.ffill().to_numpy(), margin)
    ratio = found["efficiency_ratio"].to_numpy()
    assert found["trend"].tolist() == sticky(ratio, np.full((1500, 1), 0.3), margin)
    plain = tags(close, vol, vol_window=100)
    flips = [int((np.diff(one["vol"]) != 0).sum()) for one in (found, plain)]
    assert flips[0] == flips[1] if margin == 0 else flips[0] < flips[1]


def spx_block() -> Block:
    """The S&P 500 as bars of A."""
    close = arch.data.sp500.load()["Close"].to_numpy()
    returns = pd.Series(np.log(close)).diff()
    vol = (returns**2).ewm(alpha=0.06, adjust=False).mean().pow(0.5)
    return block_of(close, vol.to_numpy(), returns.to_numpy())


def test_nothing_is_followed_unless_it_is_set() -> None:
    """Without settings all that is optional is null."""
    rows = Regimes(RegimesSettings()).step(spx_block()).rows["regimes"]
    assert np.isnan([rows[n] for n in ("hmm_p_low", "hmm_p_high", "hmm_entropy", "cusum")]).all()
    assert np.isnan([rows[n] for n in ("bocpd_p_recent", "bocpd_run")]).all()
    assert {-1} == {*rows["hmm"], *rows["cusum_alarm"], *rows["bocpd_alarm"]}


def test_hidden_states_of_two_symbols() -> None:
    """What the filter says of each series; the tag is the most probable state, the entropy its."""
    rng = np.random.default_rng(4)
    symbol = rng.integers(0, 2, 3000)
    ret = rng.standard_t(3, 3000) * 0.01
    ret[rng.random(3000) < 0.1] = np.nan
    settings = RegimesSettings.model_validate(FOLLOWED)
    rows = Regimes(settings).step(block_of(np.ones(3000), np.ones(3000), ret, symbol))
    found = frame(rows.rows["regimes"])
    for code, told in enumerate((SPX, THREE)):
        parameters = HmmParameters.model_validate(told)
        mine = (symbol == code) & ~np.isnan(ret)
        y = (ret[mine] - parameters.location) / parameters.scale
        p = run_filter(parameters, y).filtered
        one = found[mine]
        assert one["hmm_p_low"].to_numpy().tobytes() == p[:, 0].tobytes()
        assert one["hmm_p_high"].to_numpy().tobytes() == p[:, -1].tobytes()
        state = np.where(p.argmax(axis=1) == p.shape[1] - 1, 2, p.argmax(axis=1))
        np.testing.assert_array_equal(one["hmm"], state)
        np.testing.assert_allclose(one["hmm_entropy"], -(p * np.log(p)).sum(axis=1), rtol=1e-12)
    silent = found[np.isnan(ret)]
    assert silent["hmm_p_high"].isna().all()
    assert set(silent["hmm"]) == {-1}


def test_the_alarms_of_the_sp500() -> None:
    """Both alarms ring now and then, where their sums and probabilities pass their levels."""
    settings = RegimesSettings.model_validate(FOLLOWED)
    found = frame(Regimes(settings).step(spx_block()).rows["regimes"])
    up, down = (found["cusum_alarm"] == code for code in (0, 1))
    assert (found.loc[up, "cusum"] > 5).all()
    assert (found.loc[down, "cusum"] < -5).all()
    assert (found.loc[~(up | down), "cusum"].abs().dropna() <= 5).all()
    assert up.any()
    assert down.sum() > 3
    recent = found["bocpd_p_recent"]
    risen = (recent >= 0.5) & (recent.shift(1, fill_value=1.0) < 0.5)
    fallen = found["bocpd_run"].diff() < 0
    expected = np.select([risen & fallen, risen, fallen], [2, 0, 1], -1)
    np.testing.assert_array_equal(found["bocpd_alarm"], expected)
    assert set(expected) >= {-1, 0, 1}


@pytest.mark.parametrize("size", [1, 7, 997])
def test_blocks_and_restarts_change_no_bit(size: int) -> None:
    """Everything that can be followed, in blocks of any size and restarted between them."""
    came = arrivals_of(walk(2500))
    settings = settings_of(bars={"clock": "ticks:2"}, regimes={**FOLLOWED, "vol_window": 30})
    whole = bits(run(settings, came))
    cuts = range(size, len(came), size)
    assert bits(run(settings, came, cuts)) == whole
    assert bits(run(settings, came, range(400, len(came), 400), restart=True)) == whole
    assert np.isfinite(np.frombuffer(whole["regimes"]["hmm_p_high"])).any()
    assert np.isfinite(np.frombuffer(whole["regimes"]["bocpd_run"])).any()


def pieces(block: Block, cuts: list[int]) -> list[Block]:
    """The bars of a block in several."""
    edges = [0, *cuts, len(block.rows["bars"])]
    return [
        Block(NOTHING, {name: rows.take(slice(*edge)) for name, rows in block.rows.items()})
        for edge in pairwise(edges)
    ]


def told(stage: Regimes, block: Block) -> Rows:
    """The rows of the stage."""
    return stage.step(block).rows["regimes"]


def test_a_version_takes_over_between_two_blocks() -> None:
    """What is known of the state goes on: the new parameters filter from the old probabilities."""
    first, second = (
        HmmParameters.model_validate(SPX),
        HmmParameters.model_validate(
            {**SPX, "transition": [[0.9, 0.1], [0.3, 0.7]], "variance": [0.4, 5.0]}
        ),
    )
    stage = Regimes(RegimesSettings(hmm=HmmModel(version="one", symbols={"*": first})))
    before, after = pieces(spx_block(), [3000])
    known = told(stage, before)
    assert stage.version == "one"
    stage.activate("two", {"A": second})
    assert stage.version == "two"
    y = after.rows["features"]["bar_ret_1"] / second.scale
    prior = np.array([known["hmm_p_low"][-1], known["hmm_p_high"][-1]])
    prior = prior @ np.array(second.transition)
    expected = run_filter(second, y, prior).filtered
    found = told(stage, after)
    # The product above is summed by BLAS, the filter's own by hand.
    np.testing.assert_allclose(found["hmm_p_high"], expected[:, 1], rtol=1e-12)


def test_a_snapshot_knows_the_active_version() -> None:
    """Restored into a stage of the first settings, the swapped version goes on bit for bit."""
    stage = Regimes(RegimesSettings())
    blocks = pieces(spx_block(), [1000, 2000, 3000])
    told(stage, blocks[0])
    stage.activate("two", {"*": HmmParameters.model_validate(SPX)})
    told(stage, blocks[1])
    state: State = stage.snapshot()
    other = Regimes(RegimesSettings())
    told(other, blocks[3])
    other.restore(state)
    assert other.version == "two"
    ours, theirs = told(stage, blocks[2]), told(other, blocks[2])
    for name, values in ours.columns.items():
        assert values.tobytes() == theirs[name].tobytes(), name
    assert np.isfinite(ours["hmm_p_high"]).all()
    fresh = Regimes(RegimesSettings())
    other.restore(fresh.snapshot())
    assert other.version is None
    assert np.isnan(told(other, blocks[0])["hmm_p_high"]).all()


def test_another_number_of_states_begins_anew() -> None:
    """Two states cannot be the prior of three: the stationary distribution is; nor can no model."""
    stage = Regimes(RegimesSettings.model_validate({"hmm": SPX}))
    blocks = pieces(spx_block(), [1000, 2000, 3000])
    three = HmmParameters.model_validate(THREE)
    for version, symbols, part in (
        ("three", {"*": three}, 1),
        ("of another", {"B": three}, 2),
        ("back", {"*": three}, 3),
    ):
        told(stage, blocks[0])
        stage.activate(version, symbols)
        found = told(stage, blocks[part])
        if version == "of another":
            assert np.isnan(found["hmm_p_low"]).all()
            continue
        y = (blocks[part].rows["features"]["bar_ret_1"] - three.location) / three.scale
        expected = run_filter(three, y).filtered
        assert found["hmm_p_low"].tobytes() == np.ascontiguousarray(expected[:, 0]).tobytes()
        stage = Regimes(RegimesSettings.model_validate({"hmm": SPX}))


def test_a_renamed_symbol_keeps_its_state() -> None:
    """The state moves to the new name and goes on there, under that name's parameters."""
    settings = RegimesSettings.model_validate({**FOLLOWED, "hmm": SPX})
    one, other = Regimes(settings), Regimes(settings)
    blocks = pieces(spx_block(), [2000])
    told(one, blocks[0]), told(other, blocks[0])
    other.rename(0, 1)
    ours = told(one, blocks[1])
    for rows in blocks[1].rows.values():
        rows.columns["symbol"][:] = 1
    theirs = told(other, blocks[1])
    for name in ("hmm_p_high", "cusum", "bocpd_p_recent", "vol_low"):
        assert ours[name].tobytes() == theirs[name].tobytes()


@pytest.mark.parametrize("quantiles", [(0.5, 0.2, 0.9), (0.0, 0.5, 0.9), (0.2, 0.5, 1.0)])
def test_levels_ascend(quantiles: tuple[float, float, float]) -> None:
    """Levels in another order are refused."""
    with pytest.raises(ValueError, match="ascending"):
        RegimesSettings(vol_quantiles=quantiles)
