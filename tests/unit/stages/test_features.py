"""The stage features against values that others computed: pandas, TA-Lib, toys worked by hand."""

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pipeline.stages.base import Block
from pipeline.stages.features import FEATURES, Features, FeaturesSettings
from schemas.arrivals import Arrivals
from schemas.blocks import Array, Rows, empty

REPO = Path(__file__).resolve().parents[3]
SAMPLES = Path(os.environ.get("TICKSTREAM_SAMPLES", REPO / "../shared/data"))  # noqa: TID251 -- tests may be told where the samples are
GOLDENS = REPO / "../shared/oracles/expected"
GOLDEN_NAMES = {
    "log_ret_1": "bar_ret_1",
    "log_ret_20": "bar_ret_20",
    "ewma_vol_0.94": "bar_ewma_vol",
    "vol_z_20 (prior 20, ddof=1)": "volume_z_20",
}
FLOATS = ("price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low")
SECOND = 1_000_000_000


def arrivals(n: int) -> Arrivals:
    """Arrivals that this stage never looks at."""
    return Arrivals(0, {"ts": np.zeros(n, np.int64)}, [])


def make_ticks(table: pd.DataFrame) -> Rows:
    """Rows of ticks from a table with ts (ns), symbol, price and what else there is."""
    codes, symbols = pd.factorize(table["symbol"])
    rows = empty("ticks", len(table), list(symbols))
    rows["symbol"][:] = codes
    rows["ts"][:] = table["ts"]
    rows["offset"][:] = np.arange(len(table))
    rows["flag"][:] = table.get("flag", 0)
    for name in FLOATS:
        if name in table:
            rows[name][:] = table[name]
    if "side" in table:
        rows["side"][:] = table["side"].map({"buy": 0, "sell": 1}).fillna(-1)
    return rows


def make_bars(ticks: Rows, clock: int) -> tuple[Rows, Array, bool]:
    """Bars as the stage before would make them: clock in ns, 0 rows are bars, -1 ticks:1."""
    table = pd.DataFrame({k: ticks[k] for k in ("symbol", "ts", *FLOATS)})
    table["at"] = np.arange(len(table))
    table = table[ticks["flag"] == 0]
    table["notional"] = table["price"] * table["size"]
    if clock <= 0:
        bars = table.rename(columns={"price": "close", "size": "volume"})
        for name in ("open", "high", "low"):
            bars[name] = bars[name].fillna(bars["close"])
        bars["n"] = 1
        bars["end"] = bars["ts"]
        bars["trigger"] = bars["at"]
    else:
        table["k"] = table["ts"] // clock
        groups = table.groupby(["symbol", "k"])
        bars = groups.agg(
            open=("price", "first"),
            high=("price", "max"),
            low=("price", "min"),
            close=("price", "last"),
            n=("price", "size"),
            first=("at", "first"),
        )
        bars["volume"] = groups["size"].sum(min_count=1)
        bars["notional"] = groups["notional"].sum(min_count=1)
        bars = bars.reset_index()
        bars["end"] = (bars["k"] + 1) * clock
        # The trigger of a bar is the first tick of the next one.
        trigger = bars.groupby("symbol")["first"].shift(-1)
        bars["trigger"] = trigger.fillna(len(ticks)).astype(np.int64)
        bars = bars.sort_values(["trigger", "symbol"], kind="stable")
    rows = empty("bars", len(bars), ticks.symbols)
    for name in ("symbol", "open", "high", "low", "close", "volume", "notional", "n"):
        rows[name][:] = bars[name]
    rows["ts"][:] = bars["end"]
    rows["offset"][:] = bars["trigger"]
    return rows, bars["trigger"].to_numpy(np.int64, copy=True), clock <= 0


def make_block(table: pd.DataFrame, clock: int) -> Block:
    """One block with the ticks of a table and their bars."""
    ticks = make_ticks(table)
    bars, at, after = make_bars(ticks, clock)
    return Block(arrivals(len(ticks)), {"ticks": ticks, "bars": bars}, (), at, after)


def cut(block: Block, start: int, stop: int, *, last: bool) -> Block:
    """The part of a block from tick start to tick stop, with the bars those ticks close."""
    mine = (block.at >= start) & ((block.at < stop) | last)
    ticks = block.rows["ticks"].take(np.arange(start, stop))
    rows = {"ticks": ticks, "bars": block.rows["bars"].take(mine)}
    at = np.asarray(block.at)[mine] - start
    return Block(arrivals(stop - start), rows, (), at, block.after)


def run(table: pd.DataFrame, clock: int, **options: Any) -> pd.DataFrame:
    """All features of a table, one row per bar."""
    width = max(clock, 0)
    stage = Features(FeaturesSettings(bar_ns=width, **options))
    rows = stage.step(make_block(table, clock)).rows["features"]
    frame = pd.DataFrame({name: rows[name] for name in ("ts", *FEATURES)})
    frame.insert(0, "symbol", [rows.symbols[code] for code in rows["symbol"]])
    return frame


def load(name: str) -> pd.DataFrame:
    """A sample as a table, or a skipped test."""
    path = SAMPLES / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"SAMPLE MISSING: {path} (set TICKSTREAM_SAMPLES)")
    table = pd.read_csv(path, low_memory=False)
    if not pd.api.types.is_numeric_dtype(table["ts"]):
        times = pd.to_datetime(table["ts"], utc=True, format="ISO8601")
        table["ts"] = times.dt.as_unit("ns").astype("int64")
    return table


def golden(name: str) -> dict[str, Any]:
    """What pandas and TA-Lib say about a sample, or a skipped test."""
    path = GOLDENS / f"golden_{name}.json"
    if not path.exists():
        pytest.skip(f"GOLDEN MISSING: {path}")
    found: dict[str, Any] = json.loads(path.read_text())["symbols"]
    return found


def differences(frame: pd.DataFrame, want: dict[str, Any]) -> list[str]:
    """What of QUANT 7.1 does not hold for one symbol: n, first, last, sum of each feature."""
    wrong = []
    for golden_name, expected in want["features"].items():
        name = GOLDEN_NAMES.get(golden_name, golden_name.split(" to ")[0])
        values = frame[name].to_numpy()
        ready = np.flatnonzero(np.isfinite(values))
        got = {
            "n": len(ready),
            "first": int(ready[0]) if len(ready) else None,
            "last": float(values[ready[-1]]) if len(ready) else None,
            "sum": float(np.sum(values[ready])),
        }
        if (got["n"], got["first"]) != (expected["n"], expected["first"]):
            wrong.append(f"{name}: {got} is not {expected}")
            continue
        if not got["n"]:
            continue
        close = math.isclose(got["last"] or 0, expected["last"], rel_tol=1e-8, abs_tol=1e-12)
        near = math.isclose(
            got["sum"] or 0, expected["sum"], rel_tol=1e-8, abs_tol=1e-12 * expected["n"]
        )
        if not (close and near):
            wrong.append(f"{name}: {got} is not {expected}")
    return wrong


SAMPLE_CLOCKS = [
    ("crypto_trades_20240808", 10, "BTCUSDT"),
    ("crypto_quotes_20240808", 10, "BTCUSDT"),
    ("es_trades_20130901", 10, ""),
    ("fx_quotes_eurusd_201405", 60, ""),
    ("us_equity_daily_1998_2021", 0, "SPY"),
]


@pytest.mark.parametrize(("name", "seconds", "market"), SAMPLE_CLOCKS)
def test_bar_features_equal_the_golden_files(name: str, seconds: int, market: str) -> None:
    """Every bar feature of every sample has the n, first, last and sum of pandas and TA-Lib.

    The golden betas join bars of equal ends whichever came first in the file. Rows that are bars
    carry their close only when they arrive, so the reference's rows go first among those of one
    time here; see test_beta_knows_only_what_has_arrived for the order of the file.
    """
    table = load(name)
    if seconds == 0:
        table["later"] = table["symbol"] != market
        table = table.sort_values(["ts", "later"], kind="stable")
    frame = run(table, seconds * SECOND, reference_symbol=market)
    for symbol, want in golden(name).items():
        assert differences(frame[frame["symbol"] == symbol], want) == [], symbol


def test_beta_knows_only_what_has_arrived() -> None:
    """In the order of the file, symbols before SPY lag one pair behind, those after it do not."""
    table = load("us_equity_daily_1998_2021")
    frame = run(table, 0, reference_symbol="SPY")
    wants = golden("us_equity_daily_1998_2021")
    for symbol in ("USO", "WM"):
        assert differences(frame[frame["symbol"] == symbol], wants[symbol]) == []
    for symbol in ("AIG", "EEM", "GOOG", "GOOGL", "IBM", "IWM"):
        want = wants[symbol]["features"]["beta_60 to SPY"]
        values = frame[frame["symbol"] == symbol]["beta_60"].to_numpy()
        ready = np.flatnonzero(np.isfinite(values))
        assert (len(ready), ready[0]) == (want["n"] - 1, want["first"] + 1)
        # The same numbers, each one pair later: all but the golden one's last.
        assert values[ready].sum() + want["last"] == pytest.approx(want["sum"], rel=1e-8)


def test_beta_on_a_time_clock_needs_no_trigger_of_the_reference() -> None:
    """At our trigger the reference's last price is its close, though its trigger is to come."""
    g = np.random.default_rng(4)
    ours = pd.DataFrame({"ts": np.arange(80) * SECOND, "symbol": "A"})
    market = pd.DataFrame({"ts": np.arange(80) * SECOND + SECOND // 2, "symbol": "M"})
    returns = g.normal(0, 1e-3, 80)
    market["price"] = 100 * np.exp(np.cumsum(returns))
    ours["price"] = 50 * np.exp(np.cumsum(2 * returns))
    table = pd.concat([ours, market]).sort_values("ts", kind="stable")
    frame = run(table, SECOND, reference_symbol="M", beta_bars=5)
    mine = frame[frame["symbol"] == "A"]
    assert mine["beta_60"].isna().sum() == 5
    assert mine["beta_60"].iloc[5:].to_numpy() == pytest.approx(2.0, rel=1e-9)
    assert frame[frame["symbol"] == "M"]["beta_60"].isna().all()


def talib_differences(frame: pd.DataFrame, bars: pd.DataFrame) -> None:
    """Assert that the indicator columns equal TA-Lib's batch functions."""
    high, low, close = (bars[k].to_numpy(float) for k in ("high", "low", "price"))
    line, signal, hist = talib.MACD(close, 12, 26, 9)
    top, bottom = talib.MAX(high, 20), talib.MIN(low, 20)
    mean, sd = talib.SMA(close, 20), talib.STDDEV(close, 20, 1)
    wants = {
        "rsi_14": (talib.RSI(close, 14), 1e-12),
        "macd_line": (line, 1e-12),
        "macd_signal": (signal, 1e-12),
        "macd_hist": (hist, 1e-12),
        "natr_14": (talib.NATR(high, low, close, 14), 1e-12),
        "adx_14": (talib.ADX(high, low, close, 14), 1e-12),
        "donchian_pos_20": ((close - bottom) / (top - bottom), 0),
        "roc_10": (talib.ROC(close, 10), 0),
        "efficiency_ratio_10": (talib.ER(close, 10), 1e-12),
        "boll_z_20": ((close - mean) / sd, 1e-8),  # TA-Lib's STDDEV itself is good to 1e-10
    }
    for name, (want, tolerance) in wants.items():
        got = frame[name].to_numpy()
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=1e-12, err_msg=name)


def test_indicators_equal_talib_on_a_random_walk() -> None:
    """Through the stage, rows as bars."""
    g = np.random.default_rng(5)
    close = 100 + np.cumsum(g.normal(0, 1, 800))
    bars = pd.DataFrame({"ts": np.arange(800) * SECOND, "symbol": "X", "price": close})
    bars["open"] = close + g.normal(0, 0.2, 800)
    bars["high"] = bars[["open", "price"]].max(axis=1) + g.random(800)
    bars["low"] = bars[["open", "price"]].min(axis=1) - g.random(800)
    talib_differences(run(bars, 0), bars)


def test_indicators_and_volatilities_of_the_s_and_p_500() -> None:
    """TA-Lib equality and the range volatilities of QUANT 1.4 on arch.data.sp500."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports of another project
        sp500 = pytest.importorskip("arch.data.sp500", reason="ARCH MISSING: pip install arch")
    data = sp500.load()
    bars = pd.DataFrame(
        {
            k: data[v].to_numpy(float)
            for k, v in {
                "price": "Close",
                "open": "Open",
                "high": "High",
                "low": "Low",
                "size": "Volume",
            }.items()
        }
    )
    bars["ts"] = np.arange(len(bars)) * SECOND
    bars["symbol"] = "SPX"
    frame = run(bars, 0)
    talib_differences(frame, bars)
    last = frame.iloc[-1]
    assert last["parkinson_20"] == pytest.approx(0.0161496097, abs=5e-11)
    assert last["garman_klass_20"] == pytest.approx(0.0158708325, abs=5e-11)
    assert last["yang_zhang_20"] == pytest.approx(0.0172949858, abs=5e-11)
    assert last["bar_ewma_vol"] == pytest.approx(0.017640249443821584, rel=1e-13)
    assert last["autocorr1_50"] == pytest.approx(
        np.corrcoef(
            *(np.diff(np.log(bars["price"]))[s] for s in (slice(-50, None), slice(-51, -1)))
        )[0, 1],
        rel=1e-12,
    )
    assert frame["drawdown"].min() == pytest.approx(-0.5677538775030553, rel=1e-14)


def test_bar_toys() -> None:
    """Kaufman's ratio of 1, 2, 3, 2, 4 is .6; Amihud of the four bars of QUANT; vwap of three."""
    toy = pd.DataFrame({"ts": range(5), "symbol": "X", "price": [1.0, 2, 3, 2, 4]})
    assert run(toy, 0, efficiency_bars=4)["efficiency_ratio_10"].iloc[-1] == pytest.approx(0.6)
    toy = pd.DataFrame({"ts": range(5), "symbol": "X", "price": [100.0, 101, 101, 99, 100]})
    toy["size"] = [10.0, 20, 0, 30, 40]  # the bar without volume is skipped
    amihud = run(toy, 0, amihud_bars=3)["amihud_20"]
    returns = np.abs(np.diff(np.log([100, 101, 101, 99, 100])))[[0, 2, 3]]
    truth = np.mean(returns / np.array([101 * 20, 99 * 30, 100 * 40]))
    assert truth == pytest.approx(4.724240513565576e-06, rel=1e-12)
    assert amihud.iloc[-1] == pytest.approx(truth, rel=1e-14)
    toy = pd.DataFrame(
        {"ts": range(3), "symbol": "X", "price": [10.0, 11, 12], "size": [1.0, 2, 1]}
    )
    assert run(toy, 0, vwap_bars=3)["vwap_dev_20"].iloc[-1] == pytest.approx(12 / 11 - 1, rel=1e-14)
    assert run(toy, -1, vwap_ticks=3)["tick_vwap_dev_50"].iloc[-1] == pytest.approx(12 / 11 - 1)


def test_a_constant_price() -> None:
    """No deviation to measure: RSI 50, Bollinger, Donchian, correlations null, nothing infinite."""
    table = pd.DataFrame({"ts": np.arange(120) * SECOND, "symbol": "X", "price": 1640.3})
    table["size"] = 5.0
    last = run(table, 0).iloc[-1]
    assert last["rsi_14"] == 50
    assert (
        last["adx_14"] == last["realized_vol_20"] == last["parkinson_20"] == last["drawdown"] == 0
    )
    for name in (
        "boll_z_20",
        "donchian_pos_20",
        "autocorr1_50",
        "variance_ratio_5_50",
        "volume_z_20",
        "size_z_50",
        "momentum_20",
    ):
        assert math.isnan(last[name]), name


def synthetic(n: int, seed: int = 6) -> pd.DataFrame:
    """Three symbols with every field, sometimes missing, crossed or quarantined."""
    g = np.random.default_rng(seed)
    price = np.round(100 + np.cumsum(g.normal(0, 0.05, n)), 2)
    spread = np.round(g.integers(-1, 4, n) * 0.01, 2)
    table = pd.DataFrame(
        {
            "ts": 1_700_000_000 * SECOND + np.cumsum(g.integers(0, 3, n)) * SECOND // 4,
            "symbol": np.array(["A", "B", "M"])[g.integers(0, 3, n)],
            "price": price,
            "size": np.where(g.random(n) < 0.1, np.nan, g.integers(0, 9, n)),
            "side": np.array(["buy", "sell", ""])[g.integers(0, 3, n)],
            "bid": price - spread,
            "ask": price + spread,
            "bid_size": g.integers(0, 9, n).astype(float),
            "ask_size": np.where(g.random(n) < 0.1, np.nan, g.integers(0, 9, n)),
        }
    )
    table["flag"] = (g.random(n) < 0.05).astype(int)
    return table


def columns(blocks: list[Block]) -> dict[str, Array]:
    """All features of consecutive blocks."""
    rows = [block.rows["features"] for block in blocks]
    return {name: np.concatenate([r[name] for r in rows]) for name in rows[0].columns}


@pytest.mark.parametrize("clock", [SECOND, 0, -1])
@pytest.mark.parametrize("size", [1, 7])
def test_any_split_and_any_restart_give_the_same_bits(clock: int, size: int) -> None:
    """Blocks of 1 and 7 ticks, each by a new stage restored from a snapshot, against one block."""
    block = make_block(synthetic(900), clock)
    options = FeaturesSettings(
        bar_ns=max(clock, 0),
        reference_symbol="M",
        reference_join="end" if clock >= 0 else "span",
        beta_bars=10,
        zone="America/New_York",
    )
    whole = columns([Features(options).step(block)])
    stage, parts = Features(options), []
    for start in range(0, 900, size):
        stop = min(start + size, 900)
        parts.append(stage.step(cut(block, start, stop, last=stop == 900)))
        state, stage = stage.snapshot(), Features(options)
        stage.restore(state)
    split = columns(parts)
    assert len(split["ts"]) == len(block.at) > 200
    for name, values in whole.items():
        assert_array_equal(split[name].view(np.uint8), values.view(np.uint8), err_msg=name)
    assert sum(np.isfinite(whole[name]).any() for name in FEATURES) == len(FEATURES)


def test_every_prefix_gives_the_same_rows() -> None:
    """No lookahead: rows of the first ticks do not depend on the ticks that follow."""
    table = synthetic(600)
    whole = run(table, SECOND, reference_symbol="M", beta_bars=10)
    for n in (100, 351, 599):
        block = make_block(table, SECOND)
        part = Features(FeaturesSettings(bar_ns=SECOND, reference_symbol="M", beta_bars=10)).step(
            cut(block, 0, n, last=False)
        )
        rows = part.rows["features"]
        assert len(rows) > 10
        for name in FEATURES:
            assert_array_equal(rows[name], whole[name].to_numpy()[: len(rows)], err_msg=name)


def test_quarantined_ticks_never_enter() -> None:
    """The features with quarantined ticks are those without these ticks."""
    table = synthetic(500)
    wild = table.copy()
    wild.loc[wild["flag"] == 1, ["price", "size", "bid"]] = 1e9
    clean = table[table["flag"] == 0]
    for clock in (SECOND, -1):
        want, got = run(clean, clock), run(wild, clock)
        for name in FEATURES:
            assert_array_equal(got[name], want[name], err_msg=name)


def test_a_time_clock_samples_before_the_trigger() -> None:
    """The tick that closes a time bar belongs to the next one; a bar of one tick shows it."""
    table = pd.DataFrame(
        {"ts": [0, SECOND // 2, SECOND], "symbol": "X", "price": [100.0, 101.0, 150.0]}
    )
    first = run(table, SECOND).iloc[0]
    assert first["ret_1"] == pytest.approx(math.log(1.01), rel=1e-14)
    assert run(table, -1)["ret_1"].iloc[-1] == pytest.approx(math.log(150 / 101), rel=1e-14)


def test_features_without_their_inputs_are_null() -> None:
    """A source without sizes and quotes never shows a feature that needs them."""
    table = synthetic(600)[["ts", "symbol", "price"]]
    frame = run(table, -1)
    need = {
        "volume_z_20",
        "vwap_dev_20",
        "amihud_20",
        "beta_60",
        "corr_60",
        "tick_vwap_dev_50",
        "trade_imbalance_50",
        "microprice_dev",
        "queue_imbalance",
        "spread_bp",
        "ofi_50",
        "size_z_50",
    }
    assert {name for name in FEATURES if frame[name].isna().all()} == need
    table["bid"], table["ask"] = table["price"] - 0.01, table["price"] + 0.01
    assert run(table, -1)["spread_bp"].notna().all()
    assert run(table, -1)["ofi_50"].isna().all()


def test_local_time_of_day_follows_summer_time() -> None:
    """09:30 in New York is one angle in January and in July."""
    times = pd.to_datetime(
        ["2024-01-10 14:30", "2024-03-10 06:59:59", "2024-07-10 13:30"], format="ISO8601"
    )
    table = pd.DataFrame({"ts": times.as_unit("ns").astype("int64"), "symbol": "X", "price": 1.0})
    frame = run(table, -1, zone="America/New_York")
    angle = 2 * math.pi * np.array([9.5, 2 - 1 / 3600, 9.5]) / 24
    np.testing.assert_allclose(frame["tod_sin"], np.sin(angle), rtol=1e-12)
    np.testing.assert_allclose(frame["tod_cos"], np.cos(angle), rtol=1e-12)


def test_a_block_without_ticks_or_bars() -> None:
    """Empty blocks are blocks."""
    block = make_block(synthetic(3).iloc[:0], -1)
    assert len(Features(FeaturesSettings()).step(block).rows["features"]) == 0


def test_a_snapshot_of_other_periods_is_refused() -> None:
    """State makes sense only with the periods it was made with."""
    other = Features(FeaturesSettings(boll_bars=30)).snapshot()
    with pytest.raises(ValueError, match="other periods"):
        Features(FeaturesSettings()).restore(other)


@pytest.mark.parametrize(
    "bad", [{"zone": "Mars/Base"}, {"macd_fast": 26}, {"rsi_bars": 0}, {"x": 1}]
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    """A wrong setting is an error at the start."""
    with pytest.raises(ValueError, match=r"zone|macd_fast|rsi_bars|x"):
        FeaturesSettings(**bad)


def test_the_state_is_small() -> None:
    """At most 32 KB a symbol with the default periods."""
    assert Features(FeaturesSettings()).state_bytes == 14_656


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_finite_inputs_give_finite_or_null_outputs(data: st.DataObject) -> None:
    """No finite tick, however wild, makes an infinite feature; prices may even be negative."""
    n = data.draw(st.integers(1, 90))
    number = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-5, 5) | st.just(0.0)
    table = pd.DataFrame(
        {
            name: data.draw(st.lists(number, min_size=n, max_size=n))
            for name in ("price", "size", "bid", "ask", "bid_size", "ask_size")
        }
    )
    table["ts"] = np.sort(data.draw(st.lists(st.integers(0, 2**61), min_size=n, max_size=n)))
    table["symbol"] = "X"
    with np.errstate(all="ignore"):
        frame = run(table, -1)
    assert not np.isinf(frame[list(FEATURES)].to_numpy()).any()
