"""One run of many: its figures are a backtest's, and a window knows nothing behind its end."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import TickstreamError
from pipeline.replay.backtest import METRICS, backtest
from pipeline.replay.engine import replay_file
from pipeline.replay.executors import packed
from pipeline.replay.shared_ticks import SharedTicks, TicksWriter, periods_per_year
from pipeline.replay.splits import Window
from pipeline.replay.trial import Trial, run
from pipeline.replay.trial_figures import Outcome
from pipeline.settings import Settings, load_settings
from schemas import blocks
from schemas.times import DAY
from tests.fixtures.ticks import SECOND, START, arrivals_of, walk
from tests.unit.replay.test_crossing import crossing, sp500

MINUTE = 60 * SECOND
WHOLE = Window(None, None)
N = 6000


@pytest.fixture
def settings() -> Settings:
    """Trades often: buys above the mean, sells below."""
    return load_settings(["signals.follow=boll_z_20", "equity.period=1m", "fills.taker_bp=2"])


def shared(
    table: pd.DataFrame, folder: Path, period: int = MINUTE, block: int = 999
) -> SharedTicks:
    """The ticks of a table as a file's, written in blocks."""
    came = arrivals_of(table)
    with TicksWriter(folder, period) as writer:
        for low in range(0, len(came), block):
            writer.write(came.slice(low, low + block))
        return writer.finish(closes=True)


def told(settings: Settings, ticks: SharedTicks, *windows: Window) -> list[Outcome]:
    """The outcomes of a run on the clock of a minute."""
    return list(run(Trial(settings.chain, windows, MINUTE, 252.0), ticks).outcomes)


def figures_of_backtest(table: pd.DataFrame, settings: Settings, home: Path) -> dict[str, Any]:
    """What `tickstream backtest` finds."""
    table.to_parquet(home / "ticks.parquet")
    out = home / "out"
    backtest(out, lambda into: replay_file(home / "ticks.parquet", into, settings), lambda _: "")
    found: dict[str, Any] = json.loads((out / METRICS).read_text())
    return found


def test_a_run_is_a_backtest(tmp_path: Path) -> None:
    """The crossing on the S&P: every figure as the backtest has it, to the last bit."""
    before = blocks._COLUMNS["features"]
    settings = crossing("fills.mode=next_open")
    backtested = figures_of_backtest(sp500(), settings, tmp_path)
    blocks._COLUMNS["features"] = before
    ticks = shared(sp500(), tmp_path / "ticks", DAY)
    assert ticks.periods_per_year == 252
    trial = Trial(settings.chain, (WHOLE,), DAY, ticks.periods_per_year)
    outcome = run(trial, ticks).outcomes[0]
    assert blocks._COLUMNS["features"] == before  # a user's columns are gone again
    figures = outcome.figures
    np.testing.assert_allclose(figures["final_equity"], 1_470_520.7243071883, rtol=1e-12)
    performance = {k: v for k, v in backtested["performance"].items() if k != "dsr"}
    assert {name: figures[name] for name in performance} == performance
    trading = backtested["trading"]
    assert {name: figures[name] for name in trading} == trading
    assert figures["buy_and_hold"] == backtested["buy_and_hold"]
    assert figures["auc"] == backtested["engines"]["combined"]["auc"]
    assert outcome.equity[-1] == figures["final_equity"]
    settings_hash = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings_hash"]
    assert run(trial, ticks).settings_hash == settings_hash


def test_a_window_from_the_start_is_a_backtest_of_what_came_before_its_end(
    tmp_path: Path, settings: Settings
) -> None:
    """Of the file that ends there; several symbols, several windows in one run."""
    table = walk(N)
    ticks = shared(table, tmp_path / "ticks")
    ends = [START + 1000 * SECOND, START + 3333 * SECOND]
    outcomes = told(settings, ticks, *(Window(None, end) for end in ends), WHOLE)
    for end, outcome in zip([*ends, 2**62], outcomes, strict=True):
        home = tmp_path / str(end)
        home.mkdir()
        truth = figures_of_backtest(table[table["ts"] < end], settings, home)
        assert outcome.figures["final_equity"] == truth["final_equity"]
        assert outcome.figures["trades"] == truth["trading"]["trades"] > 10
        assert outcome.figures["auc"] == truth["engines"]["combined"]["auc"]


@pytest.mark.parametrize("start", [None, START + 1700 * SECOND])
def test_nothing_behind_a_window_reaches_it(
    tmp_path: Path, settings: Settings, start: int | None
) -> None:
    """Every price at or after the end is doubled: no bit of the window changes, only later ones."""
    table = walk(N)
    end = START + 3000 * SECOND
    shocked = table.copy()
    late = shocked["ts"] >= end
    shocked.loc[late, ["price", "bid", "ask"]] *= 2.0
    windows = Window(start, end, 5), Window(start, end), Window(end, None)
    plain = told(settings, shared(table, tmp_path / "a"), *windows)
    other = told(settings, shared(shocked, tmp_path / "b"), *windows)
    assert plain[:2] == other[:2]
    assert plain[2] != other[2]


def test_purged_bars_leave_no_trace(tmp_path: Path, settings: Settings) -> None:
    """Prices behind the last bar that teaches are changed: returns and trades stay as they are."""
    table = walk(N, ("A",))
    end = START + 3000 * SECOND
    left_out = 12
    ticks = shared(table, tmp_path / "a")
    whole, kept = told(settings, ticks, Window(None, end), Window(None, end, left_out))
    bars = sorted({-(-(ts + 1) // (10 * SECOND)) * 10 * SECOND for ts in table["ts"]})
    before = [ts for ts in bars if ts < end]
    assert kept.figures["bars"] == len(before) - left_out
    last = before[-1 - left_out]
    changed = table.copy()
    changed.loc[changed["ts"] >= last + 10 * SECOND, ["price", "bid", "ask"]] *= 1.003
    others = told(settings, shared(changed, tmp_path / "b"), Window(None, end, left_out))
    same = ("final_equity", "sharpe", "trades", "fills", "buy_and_hold", "turnover", "bars")
    assert {n: kept.figures[n] for n in same} == {n: others[0].figures[n] for n in same}
    assert whole.figures["final_equity"] != kept.figures["final_equity"]
    # Labels of bars that teach reach 5 bars further, and no price behind those is known to them.
    changed["price"] = table["price"]
    changed.loc[changed["ts"] >= before[-1 - left_out + 5] + 10 * SECOND, "price"] *= 1.003
    ticks = shared(changed, tmp_path / "c")
    late, known = told(settings, ticks, Window(None, end), Window(None, end, left_out))
    assert known.figures["auc"] == kept.figures["auc"]
    assert late.figures["auc"] != whole.figures["auc"]
    assert kept.ts[-1] <= -(-last // MINUTE) * MINUTE
    assert told(settings, ticks, Window(None, START + 60 * SECOND, 500))[0].figures["books"] == 0


SAME = ("bars", "fills", "trades", "final_equity", "all_fees", "auc", "buy_and_hold", "log_loss")


@pytest.mark.parametrize("sets", [(), ("signals.follow=boll_z_20",)])
def test_skipped_bars_are_not_traded_on(tmp_path: Path, sets: tuple[str, ...]) -> None:
    """As if the window began with the bar behind them, by a column and by a probability."""
    settings = load_settings(["equity.period=1m", "signals.cost_bp=0", *sets])
    table = walk(N, ("A",))
    start, skipped = START + 3000 * SECOND, 23
    ticks = shared(table, tmp_path / "a")
    bars = sorted({-(-(ts + 1) // (10 * SECOND)) * 10 * SECOND for ts in table["ts"]})
    trigger = {bar: int(table["ts"][table["ts"] >= bar].min()) for bar in bars[:-1]}
    behind = [bar for bar in bars[:-1] if trigger[bar] >= start]
    # Between the ticks that trigger the last skipped bar and the one behind it.
    later = trigger[behind[skipped - 1]] + 1
    window = Window(start, None, skipped=skipped)
    all_of_it, quiet, truth = told(
        settings, ticks, Window(start, None), window, Window(later, None)
    )
    assert {n: quiet.figures[n] for n in SAME} == {n: truth.figures[n] for n in SAME}
    assert quiet.figures["fills"] > 5
    assert all_of_it.figures["bars"] == quiet.figures["bars"] + skipped
    assert all_of_it.figures["final_equity"] != quiet.figures["final_equity"]
    assert told(settings, ticks, Window(start, None, skipped=10**6))[0].figures["books"] == 0


def test_each_symbol_skips_bars_of_its_own(tmp_path: Path, settings: Settings) -> None:
    """The second one begins late: its first bars are skipped when they come."""
    table = walk(N, ("A", "B"))
    late = (table["symbol"] == "A") | (table["ts"] >= START + 4000 * SECOND)
    table = table[late].reset_index(drop=True)
    window = Window(START + 3000 * SECOND, None, skipped=40)
    one = told(settings, shared(table, tmp_path / "a"), window)[0]
    both = [
        told(settings, shared(table[table["symbol"] == s], tmp_path / s), window)[0] for s in "AB"
    ]
    assert one.figures["bars"] == sum(part.figures["bars"] for part in both)
    assert one.figures["fills"] == sum(part.figures["fills"] for part in both) > 20
    assert min(part.figures["fills"] for part in both) > 5


def test_a_hole_leaves_two_windows_side_by_side(tmp_path: Path, settings: Settings) -> None:
    """Every book begins anew behind it; sums of both parts, and no figure of what lies within."""
    ticks = shared(walk(N), tmp_path / "a")
    low, high = START + 2000 * SECOND, START + 3500 * SECOND
    whole = Window(None, None, 7, 11, hole=(low, high))
    before, behind = Window(None, low, 7), Window(high, None, skipped=11)
    assert whole.spans == (before, behind)
    found, *parts = told(settings, ticks, whole, before, behind)
    for name in ("bars", "books", "capital", "fills", "trades", "profit", "all_fees"):
        total = sum(part.figures[name] for part in parts)
        assert found.figures[name] == pytest.approx(total, rel=1e-12), name
    assert min(part.figures["fills"] for part in parts) > 20
    ends = sum(part.figures["final_equity"] for part in parts)
    assert found.figures["final_equity"] == pytest.approx(ends, rel=1e-12)
    assert found.ts == [*parts[0].ts, *parts[1].ts]
    assert found.figures["exposure"] is None
    assert found.figures["gross_leverage"] is None


def test_a_window_begins_warm_with_a_fresh_book(tmp_path: Path) -> None:
    """It trades from its first bars on, as a chain that saw nothing before cannot; first cash."""
    # So dear that a book which had traded before would be empty.
    settings = load_settings(["signals.follow=boll_z_20", "fills.taker_bp=90"])
    table = walk(N, ("A",))
    start = START + 3000 * SECOND
    warm = told(settings, shared(table, tmp_path / "a"), Window(start, None))[0]
    cold = told(settings, shared(table[table["ts"] >= start], tmp_path / "b"), WHOLE)[0]
    assert warm.figures["capital"] == cold.figures["capital"] == 1_000_000.0
    assert warm.figures["fills"] > cold.figures["fills"] > 0
    assert abs(warm.equity[0] / 1e6 - 1) < 0.05
    before = told(settings, shared(table, tmp_path / "c"), Window(None, start))[0]
    assert before.figures["final_equity"] < 700_000
    assert warm.ts[0] == -(-(start + 1) // MINUTE) * MINUTE
    assert warm.equity[2] != 1_000_000.0 == cold.equity[2]  # 20 bars of 10 s are not there yet


def test_windows_do_not_depend_on_their_company(tmp_path: Path, settings: Settings) -> None:
    """Alone or in one run with others, in any order, an outcome is the same."""
    ticks = shared(walk(N), tmp_path)
    a, b = START + 1500 * SECOND, START + 3000 * SECOND
    windows = [
        Window(a, b),
        Window(None, a, 5),
        Window(b, None),
        Window(None, None),
        Window(a, None),
    ]
    together = told(settings, ticks, *windows)
    assert together == [told(settings, ticks, window)[0] for window in windows]
    assert together[::-1] == told(settings, ticks, *windows[::-1])


def test_shared_ticks_are_the_same_however_they_came(tmp_path: Path) -> None:
    """Block sizes leave no trace in the files, and so none in the identity of a run."""
    table = walk(70_000)
    one = shared(table, tmp_path / "a", block=70_000)
    two = shared(table, tmp_path / "b", block=7_777)
    assert one.sha256 == two.sha256
    assert (one.rows, one.first, one.last) == (70_000, table["ts"].min(), table["ts"].max())
    changed = table.copy()
    changed["price"] = table["price"].where(table.index != 5, 7.0)
    other = shared(changed, tmp_path / "c")
    trial = Trial(load_settings().chain, (WHOLE,), MINUTE, 252.0)
    assert trial.key(one) == trial.key(two) != trial.key(other)
    later = Trial(load_settings(["signals.cost_bp=1"]).chain, (WHOLE,), MINUTE, 252.0)
    assert later.key(one) != trial.key(one)


def test_ticks_that_are_gone_are_told(tmp_path: Path) -> None:
    """One line, also where the worker of a cluster cannot see them."""
    ticks = shared(walk(100), tmp_path / "a")
    (tmp_path / "a" / "0.arrow").unlink()
    with pytest.raises(TickstreamError, match="not to be seen here"):
        told(load_settings(), ticks, WHOLE)


def test_ticks_travel_to_where_they_cannot_be_seen(tmp_path: Path) -> None:
    """As bytes, for the workers of a cluster without the folder: the same outcome."""
    ticks = shared(walk(2000), tmp_path / "a")
    sent = replace(ticks, folder=tmp_path / "none", data=packed(ticks))
    assert told(load_settings(), sent, WHOLE) == told(load_settings(), ticks, WHOLE)


def test_no_tick_no_figure(tmp_path: Path) -> None:
    """An empty input has a run without a figure."""
    figures = told(load_settings(), shared(walk(0), tmp_path), WHOLE)[0].figures
    assert figures["bars"] == figures["trades"] == 0
    assert figures["sharpe"] is None


def _hours(*per_day: int) -> Iterator[int]:
    for day, count in enumerate(per_day):
        yield from (day * 24 + hour + 1 for hour in range(count))


@pytest.mark.parametrize(
    ("periods", "width", "year"),
    [
        (_hours(*([7, 7, 7, 7, 7, 0, 0] * 3)), DAY // 24, 252 * 7),
        (_hours(*([24] * 21)), DAY // 24, 365 * 24),
        (_hours(2, 18, 12), DAY // 24, 252 * 12),
        (range(1, 30), DAY, 365),
        (range(3), 7 * DAY, 365.25 / 7),
        ((), DAY // 24, 252),
    ],
)
def test_a_year_has_as_many_periods_as_its_days(periods: Any, width: int, year: float) -> None:
    """Of a market that is open seven hours a day, 1,764 hours."""
    assert periods_per_year(np.array(list(periods), np.int64), width) == pytest.approx(year)
