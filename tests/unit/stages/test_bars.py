"""Bars of the four clocks against pandas and against examples worked by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from pipeline.kernels.bars import ROW, TICKS, TIME
from pipeline.stages.bars import BarsSettings, parse_clock
from schemas.blocks import names_of
from tests.fixtures.ticks import SECOND, START, arrivals_of, frame, run, settings_of, walk

OHLC = ["open", "high", "low", "close"]
NAN = float("nan")


def bars_of(table: pd.DataFrame, clock: str, latency: int = 0, **guard: Any) -> pd.DataFrame:
    """All bars of a file, those that its end closes included."""
    settings = settings_of(bars={"clock": clock, "execution_latency": latency}, guard=guard)
    blocks = run(settings, arrivals_of(table))
    return pd.concat([frame(block["bars"]) for block in blocks], ignore_index=True)


def by_hand(*ticks: tuple[float, float], **more: Any) -> pd.DataFrame:
    """Ticks of one symbol as (seconds after START, price)."""
    return pd.DataFrame(
        {"ts": [START + int(t * SECOND) for t, _ in ticks], "price": [p for _, p in ticks], **more}
    )


def grouped(table: pd.DataFrame, keys: pd.Series) -> pd.DataFrame:
    """The truth by pandas: one row per symbol and key, in the order of symbol and time."""
    table = table.assign(key=keys, notional=table["price"] * table["size"])
    groups = table.groupby(["symbol", "key"], sort=True)
    found = groups.agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        n=("price", "size"),
        last_ts=("ts", "last"),
    )
    found["volume"] = groups["size"].sum(min_count=1)
    found["notional"] = groups["notional"].sum(min_count=1)
    return found.reset_index()


def compare(bars: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Same bars by symbol: prices and counts exactly, sums to the last bits."""
    bars = bars.sort_values(["symbol", "ts"], kind="stable").reset_index(drop=True)
    assert len(bars) == len(truth)
    for name in ("symbol", *OHLC, "n"):
        assert bars[name].tolist() == truth[name].tolist(), name
    for name in ("volume", "notional"):
        np.testing.assert_allclose(bars[name], truth[name], rtol=1e-13)
    vwap = (truth["notional"] / truth["volume"]).where(truth["volume"] > 0)
    np.testing.assert_allclose(bars["vwap"], vwap, rtol=1e-12)


@pytest.mark.parametrize(
    ("clock", "width"), [("time:10s", 10 * SECOND), ("time:250ms", SECOND // 4)]
)
def test_time_bars_are_those_of_pandas(clock: str, width: int) -> None:
    """[kW, (k+1)W) on the epoch grid, stamped with its end, whatever the symbol."""
    table = walk(4000)
    truth = grouped(table, table["ts"] // width)
    bars = bars_of(table, clock)
    compare(bars, truth)
    ordered = bars.sort_values(["symbol", "ts"], kind="stable")
    assert ordered["ts"].tolist() == ((truth["key"] + 1) * width).tolist()


@pytest.mark.parametrize("width", [1, 7, 100])
def test_tick_bars_are_those_of_pandas(width: int) -> None:
    """Every width-th tick of a symbol closes a bar, stamped with its own time."""
    table = walk(2000)
    truth = grouped(table, table.groupby("symbol").cumcount() // width)
    bars = bars_of(table, f"ticks:{width}")
    compare(bars, truth)
    ordered = bars.sort_values(["symbol", "ts"], kind="stable")
    assert ordered["ts"].tolist() == truth["last_ts"].tolist()


def test_rows_are_bars_already() -> None:
    """With the clock row each row is a bar with its own open, high and low, else its price."""
    table = by_hand((0, 10.0), (1, 11.0), (2, 12.0))
    table["open"] = [9.0, NAN, 11.5]
    table["high"] = [10.5, 12.0, NAN]
    table["low"] = [8.0, NAN, 11.25]
    table["size"] = [5.0, NAN, 0.0]
    bars = bars_of(table, "row")
    assert bars[OHLC].to_numpy().tolist() == [
        [9.0, 10.5, 8.0, 10.0],
        [11.0, 12.0, 11.0, 11.0],
        [11.5, 12.0, 11.25, 12.0],
    ]
    assert bars["ts"].tolist() == table["ts"].tolist()
    assert bars["n"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(bars["volume"], [5.0, NAN, 0.0])
    np.testing.assert_array_equal(bars["vwap"], [10.0, NAN, NAN])
    # The reference of a decision is the next row's open.
    np.testing.assert_array_equal(bars["exec_price"], [NAN, 11.0, 11.5])
    assert bars["exec_ts"].tolist() == [-1, START + SECOND, START + 2 * SECOND]
    assert bars[["exec_bid", "exec_ask"]].isna().all(axis=None)


def test_a_bar_closes_at_the_first_tick_at_or_after_its_end() -> None:
    """The trigger of [0, 10) is the tick at 10 exactly, and it belongs to the next bar."""
    table = by_hand((0, 1.0), (9.999999999, 2.0), (10, 3.0), (12, 4.0), (35, 5.0), (36, 6.0))
    table["recv_ts"] = table["ts"] + 7
    bars = bars_of(table, "time:10s")
    assert bars["ts"].tolist() == [START + s * SECOND for s in (10, 20, 40)]
    assert bars["trigger_ts"].tolist() == [START + s * SECOND for s in (10, 35, 36)]
    assert bars["offset"].tolist() == [2, 4, 6]  # the last one stands one past the file's last tick
    assert bars["close"].tolist() == [2.0, 4.0, 6.0]
    assert bars["n"].tolist() == [2, 2, 2]
    assert bars["known_at"].tolist()[:2] == [START + s * SECOND + 7 for s in (10, 35)]


def test_empty_bars_are_not_emitted() -> None:
    """A gap of an hour makes no bar: nothing happened, nothing is invented."""
    bars = bars_of(by_hand((0, 1.0), (3600, 2.0)), "time:10s")
    assert bars["ts"].tolist() == [START + 10 * SECOND, START + 3610 * SECOND]


def test_another_symbol_closes_nothing() -> None:
    """Only the symbol's own tick is its trigger."""
    table = by_hand((0, 1.0), (15, 9.0), (30, 8.0), symbol=["A", "B", "B"])
    bars = bars_of(table, "time:10s")
    assert bars["symbol"].tolist() == ["B", "A", "B"]
    assert bars["offset"].tolist() == [2, 3, 3]


def test_volume_is_null_without_sizes() -> None:
    """No tick with a size: null. A size of zero: zero, and no vwap."""
    table = by_hand((0, 1.0), (1, 2.0), (10, 3.0), (20, 4.0), (21, 5.0))
    table["size"] = [NAN, NAN, 0.0, NAN, 2.0]
    bars = bars_of(table, "time:10s")
    np.testing.assert_array_equal(bars["volume"], [NAN, 0.0, 2.0])
    np.testing.assert_array_equal(bars["notional"], [NAN, 0.0, 10.0])
    np.testing.assert_array_equal(bars["vwap"], [NAN, NAN, 5.0])


def test_the_execution_reference_is_the_first_tick_after_the_trigger() -> None:
    """The previous decision trades at the tick after its trigger, never at the trigger itself."""
    table = by_hand((0, 1.0), (10, 2.0), (10, 3.0), (11, 4.0), (20, 5.0), (30, 6.0))
    table["bid"] = table["price"] - 0.5
    table["ask"] = table["price"] + 0.5
    bars = bars_of(table, "time:10s")
    np.testing.assert_array_equal(bars["exec_price"], [NAN, 3.0, 6.0, NAN])
    np.testing.assert_array_equal(bars["exec_bid"], [NAN, 2.5, 5.5, NAN])
    np.testing.assert_array_equal(bars["exec_ask"], [NAN, 3.5, 6.5, NAN])
    assert bars["exec_ts"].tolist() == [-1, START + 10 * SECOND, START + 30 * SECOND, -1]


@pytest.mark.parametrize(
    ("latency", "price", "at"),
    [
        (0, 3.0, 10.0),
        (1, 4.0, 11.0),
        (SECOND, 4.0, 11.0),
        (SECOND + 1, 5.0, 14.0),
        (60 * SECOND, NAN, None),
    ],
)
def test_latency_moves_the_execution_reference(
    latency: int, price: float, at: float | None
) -> None:
    """The first tick at or after trigger time + latency; none before the next decision is null."""
    table = by_hand((0, 1.0), (10, 2.0), (10, 3.0), (11, 4.0), (14, 5.0), (20, 6.0), (21, 7.0))
    second = bars_of(table, "time:10s", latency).iloc[1]
    np.testing.assert_equal(second["exec_price"], price)
    assert second["exec_ts"] == (-1 if at is None else START + int(at * SECOND))


def test_the_reference_of_tick_bars_is_the_next_tick() -> None:
    """With ticks:2 the bar of ticks 3 and 4 carries tick 3 as reference of the decision before."""
    bars = bars_of(by_hand(*((i, float(i)) for i in range(1, 8))), "ticks:2")
    np.testing.assert_array_equal(bars["exec_price"], [NAN, 3.0, 5.0, 7.0])
    assert bars["n"].tolist() == [2, 2, 2, 1]  # the end of the file closes the last one


@pytest.mark.parametrize("seconds", [3, 10, 47])
def test_the_reference_by_brute_force(seconds: int) -> None:
    """On a walk of three symbols each reference is what a search over all later ticks finds.

    It is of the decision before, or of the earliest that still waits for its first tick.
    """
    table, latency = walk(3000, seed=4), seconds * SECOND
    bars = bars_of(table, "time:10s", latency)
    found = 0
    for symbol, mine in bars.groupby("symbol"):
        ticks = table[table["symbol"] == symbol]
        offsets, triggers = mine["offset"].tolist(), mine["trigger_ts"].tolist()
        expected, waiting = [NAN], triggers[0]
        for before, after, trigger in zip(offsets, offsets[1:], triggers[1:], strict=False):
            between = (ticks.index > before) & (ticks.index <= after)
            later = ticks["price"][between & (ticks["ts"] >= waiting + latency)]
            expected.append(later.iloc[0] if len(later) else NAN)
            waiting = trigger if len(later) else waiting
            found += len(later) > 0
        np.testing.assert_array_equal(mine["exec_price"], expected)
    assert found > 50


def test_the_reference_with_a_long_latency_serves_the_earliest() -> None:
    """With ticks:1, one a second, and 2.5 s each third tick is a reference, none is for ever."""
    bars = bars_of(by_hand(*((i, float(i)) for i in range(1, 11))), "ticks:1", 5 * SECOND // 2)
    served = bars["exec_price"].dropna()
    assert served.tolist() == [4.0, 7.0, 10.0]
    assert served.index.tolist() == [3, 6, 9]


def test_a_stale_reference_has_no_price() -> None:
    """The first tick after a long silence is where nobody could have traded; its time is told."""
    times = [*range(40), 4000, 4001, 4002]
    table = by_hand(*((float(s), 10.0 + s % 2) for s in times))
    bars = bars_of(table, "ticks:1")
    assert np.flatnonzero(bars["exec_price"].isna()).tolist() == [0, 40]
    assert bars["exec_ts"].iloc[40] == START + 4000 * SECOND


def test_a_reference_behind_a_split_is_in_its_row_s_units() -> None:
    """The tick of the split is the reference for the bar that it opens."""
    table = by_hand(*((i, 10.0) for i in range(4)), *((i, 5.0) for i in range(4, 8)))
    table["factor"] = [NAN] * 4 + [0.5] + [NAN] * 3
    for clock in ("ticks:2", "ticks:1", "row"):
        bars = bars_of(table, clock)
        after = bars[bars["ts"] >= START + 4 * SECOND]
        assert (after["exec_price"] == 5.0).all(), clock


def test_another_instrument_is_no_reference() -> None:
    """A decision on what a ticker was is not filled at the price of what it becomes."""
    later = 100 * 86_400
    table = by_hand(
        *((10.0 * i, 10.0 + 0.01 * (i % 2)) for i in range(60)), (later, 900.0), (later + 20, 900.0)
    )
    bars = bars_of(table, "time:10s")
    assert bars["life"].tolist() == [0] * 60 + [1] * 2
    assert np.isnan(bars["exec_price"][59])


def test_the_end_of_a_file_closes_every_open_bar() -> None:
    """Rows of the end stand one past the last tick, one place for each symbol."""
    table = by_hand((0, 1.0), (1, 2.0), (2, 3.0), symbol=["A", "B", "A"])
    bars = bars_of(table, "time:10s")
    assert bars[["symbol", "offset", "index"]].to_numpy().tolist() == [["A", 3, 0], ["B", 3, 1]]
    assert bars["trigger_ts"].tolist() == [START + 2 * SECOND, START + SECOND]
    assert bars["ts"].tolist() == [START + 10 * SECOND] * 2


def test_no_tick_no_bar() -> None:
    """An empty file has bars of no rows and all columns."""
    bars = bars_of(pd.DataFrame({"price": []}), "time:10s")
    assert list(bars.columns) == list(names_of("bars"))
    assert bars.empty


def test_rejected_ticks_are_in_no_bar() -> None:
    """What the guard turned away moves no high and no count."""
    table = by_hand((0, 1.0), (1, -5.0), (2, 2.0), (0.5, 99.0), (10, 3.0))
    first = bars_of(table, "time:10s").iloc[0]
    assert (first["high"], first["low"], first["n"]) == (2.0, 1.0, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time:10s", (TIME, 10 * SECOND)),
        ("time:1ns", (TIME, 1)),
        ("time:5us", (TIME, 5000)),
        ("time:5ms", (TIME, 5_000_000)),
        ("time:3m", (TIME, 180 * SECOND)),
        ("time:24h", (TIME, 86_400 * SECOND)),
        ("ticks:100", (TICKS, 100)),
        ("row", (ROW, 1)),
    ],
)
def test_clocks_are_read(text: str, expected: tuple[int, int]) -> None:
    """Every unit of the documented clocks."""
    assert parse_clock(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "time",
        "time:",
        "time:0s",
        "time:-1s",
        "time:10",
        "ticks:0",
        "rows",
        "time:10s ",
        "time:9999h99",
    ],
)
def test_other_clocks_are_refused(text: str) -> None:
    """A clock that does not exist is refused when the settings are made."""
    with pytest.raises(ValueError, match="clock"):
        parse_clock(text)
    with pytest.raises(ValidationError, match="clock"):
        BarsSettings(clock=text)
