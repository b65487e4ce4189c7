"""The parts of the leak check: cuts, rows side by side, times, coins, warm-up, report, command."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.errors import MisuseError
from pipeline.replay.leakcheck import check
from pipeline.replay.leakcheck_canary import Score, scores, telling
from pipeline.replay.leakcheck_cuts import SHOCKS, cuts_of, fresh, newcomers
from pipeline.replay.leakcheck_plan import Plan
from pipeline.replay.leakcheck_rows import WHOLE_ROW, Found, Leak, differences, place_of
from pipeline.replay.leakcheck_stamps import Stamps
from pipeline.settings import load_settings
from pipeline.sources.files import read_arrivals
from pipeline.stages.chain import Chain
from schemas.arrivals import Arrivals
from schemas.blocks import COLUMNS, STAGES, Rows
from tests.fixtures.leaks import LEAKS, SETTINGS, sample
from tests.fixtures.rows import rows_of
from tests.fixtures.ticks import arrivals_of, walk

PLAN = Plan(cuts=40, stretches=4, stretch=200, reruns=1, warm_up=(2, 5, 10, 20, 40), canary=2000)
# Of real data a part of each sample, so that a test stays short; a whole one is `make bench`'s.
SAMPLES = {
    "crypto_trades_20240808": ("ticks:20", 6000),
    "crypto_quotes_20240808": ("time:1s", 12_000),
    "es_trades_20130901": ("ticks:1", 6000),
    "fx_quotes_eurusd_201405": ("time:10s", 12_000),
    "us_equity_daily_1998_2021": ("row", 8000),
}


def honest() -> Chain:
    """The chain as it is."""
    return Chain(SETTINGS)


def nothing(_: int) -> Iterator[Arrivals]:
    """No tick at all."""
    return iter(())


def head(path: Path, ticks: int, block: int) -> Iterator[Arrivals]:
    """The first ticks of a file."""
    for came in read_arrivals(path, block):
        part = fresh(came, 0, min(len(came), ticks))
        ticks -= len(part)
        if len(part):
            yield part


@pytest.mark.parametrize("name", SAMPLES)
def test_no_false_alarm_on_real_data(name: str, samples: Path) -> None:
    """All built-in columns of all stages, on five samples and all kinds of clocks, are clean."""
    clock, ticks = SAMPLES[name]
    settings = load_settings((f"bars.clock={clock}", "regimes.vol_window=30")).chain
    source = partial(head, samples / f"{name}.csv.gz", ticks)
    report = check(partial(Chain, settings), source, PLAN)
    assert not report.leaks, report.line()
    assert report.ticks == ticks
    assert report.columns == {stage: len(COLUMNS[stage]) for stage in STAGES}


def test_a_thousand_cut_points_or_more() -> None:
    """The standard plan cuts at a thousand random places where there are as many ticks."""
    plan = Plan(stretches=0, reruns=0, warm_up=(), canary=0)
    report = check(honest, sample, plan)
    assert report.cuts >= 1000
    assert report.shocks == report.cuts
    assert not report.leaks, report.line()


def test_cuts_lie_everywhere_and_beside_decisions() -> None:
    """Ends of prefixes: ascending, within the block, the last one its end."""
    decisions = np.arange(100, 10_000, 500)
    ends = cuts_of(10_000, 400, decisions, np.array([7777]), np.random.default_rng(1))
    assert (np.diff(ends) > 0).all()
    assert ends[0] > 0
    assert ends[-1] == 10_000
    assert 7777 in ends
    assert np.isin(decisions + 1, ends).mean() > 0.9
    assert (np.diff(ends) == 1).sum() > 20


def test_newcomers_are_told_once() -> None:
    """The first tick of each symbol, over all blocks."""
    came = arrivals_of(walk(60, ("A", "B"), seed=1))
    known: set[str] = set()
    assert len(newcomers(came, known)) == 2
    assert len(newcomers(came, known)) == 0


@pytest.mark.parametrize(("name", "change"), SHOCKS)
def test_a_shock_changes_only_what_is_behind(name: str, change: Any) -> None:
    """Ticks before the cut keep every bit, and the given ticks are not written to."""
    came = next(sample(500))
    before = fresh(came, 0, 500)
    ticks = fresh(came, 0, 500)
    change(ticks, 300, np.random.default_rng(1))
    for column, values in came.columns.items():
        np.testing.assert_array_equal(values, before[column])
        np.testing.assert_array_equal(ticks[column][:300], before[column][:300])
    assert any(
        not np.array_equal(ticks[column], came[column], equal_nan=values.dtype.kind == "f")
        for column, values in came.columns.items()
    ), name


@pytest.mark.parametrize("stage", STAGES)
def test_every_column_of_every_stage_is_compared(stage: str) -> None:
    """One bit in one row of one column is seen, and the column and the row named."""
    for column in COLUMNS[stage]:
        if column.name in {"offset", "index"}:
            continue  # the identity: another row
        whole, cut = (rows_of(stage, range(5, 15), seed=2) for _ in range(2))
        values = cut[column.name]
        if values.dtype == np.float64:
            values.view(np.int64)[3] ^= 1
            values[3] = 1.5 if np.isnan(values[3]) else values[3]
        else:
            values[3] = 0 if values[3] else 1
        (leak,) = differences(whole, cut, "prefix")
        assert (leak.stage, leak.column, leak.offset) == (stage, column.name, 8)


def test_nulls_are_equal_whatever_their_bits() -> None:
    """A NaN of other bits is the same null."""
    whole, cut = (rows_of("bars", range(5), seed=2) for _ in range(2))
    whole["close"][:], cut["close"][:] = np.nan, -np.float64("nan")
    assert not list(differences(whole, cut, "prefix"))


@pytest.mark.parametrize(("kept", "offset"), [([0, 1, 3], 2), ([0, 1, 2], 3)])
def test_a_missing_row_is_a_leak(kept: list[int], offset: int) -> None:
    """The whole row is named, from either side."""
    rows = rows_of("bars", range(4))
    fewer = rows.take(np.array(kept))
    for whole, cut, words in ((rows, fewer, "missing"), (fewer, rows, "there")):
        (leak,) = differences(whole, cut, "prefix")
        assert (leak.column, leak.offset, leak.cut) == (WHOLE_ROW, offset, words)


def test_symbols_are_compared_as_words() -> None:
    """Other codes for the same words are no difference, other words are."""
    one = rows_of("bars", range(4), symbols=("A", "B"))
    turned = Rows("bars", {**one.columns, "symbol": 1 - one["symbol"]}, ("B", "A"))
    assert not list(differences(one, turned, "prefix"))
    other = Rows("bars", dict(one.columns), ("A", "C"))
    assert [leak.column for leak in differences(one, other, "prefix")] == ["symbol"]


def test_leaks_come_in_the_order_of_causes() -> None:
    """One for each column, its first row, earlier stages and columns first."""
    found = Found()
    found.add(
        [Leak("shock", "signals", "p_up", offset=3), Leak("shock", "bars", "close", offset=9)]
    )
    found.add([Leak("prefix", "bars", "close", offset=7), Leak("prefix", "bars", "ts", offset=8)])
    found.add([Leak("prefix", "bars", "close", offset=5), Leak("stamp", "bars", WHOLE_ROW)])
    places = [(leak.column, leak.kind, leak.offset) for leak in found.leaks()]
    assert places == [
        (WHOLE_ROW, "stamp", -1),
        ("ts", "prefix", 8),
        ("close", "prefix", 5),
        ("p_up", "shock", 3),
    ]


def test_a_leak_is_spoken_in_one_line() -> None:
    """Column, row, symbol, time, both values."""
    rows = rows_of("bars", [41], symbols=("BTC",))
    text = str(place_of(rows, 0, "prefix", "close"))
    assert text.startswith("bars.close, first in the row at partition 0 offset 41 index 0 (BTC at ")
    assert "\n" not in text


@pytest.mark.parametrize("clock", ["time:10s", "ticks:7", "ticks:1", "row"])
@pytest.mark.parametrize("mode", ["full", "plain"])
def test_times_of_honest_rows_are_right(clock: str, mode: str) -> None:
    """Also where ticks come late and a plain guard takes them."""
    table = walk(900, seed=5)
    table.loc[::37, "ts"] -= 15_000_000_000
    came = arrivals_of(table)
    chain = Chain(load_settings((f"bars.clock={clock}", f"guard.mode={mode}")).chain)
    stamps = Stamps()
    for start in range(0, 900, 90):
        part = came.slice(start, start + 90)
        assert not list(stamps.check(part, chain.step(part)))


def test_coins_are_fair_to_the_past_and_tell_of_the_future() -> None:
    """No built-in column wins; an engine that is given tomorrow's sign does."""
    for name, column in (("tomorrow's sign", "p_momentum"), ("next return", "momentum_20")):
        (leak,) = (leak for leak in LEAKS if leak.name == name)
        caught = [
            one.column for one in telling(scores(leak.make, sample, PLAN)) if one.kind == "canary"
        ]
        assert column in caught
    seen = scores(honest, sample, PLAN)
    assert not list(telling(seen))
    assert {score.stage for score in seen} == set(STAGES)
    won = Score("features", "ret_1", "bar", drawn=True, bets=100, won=90)
    lost = Score("features", "ret_1", "bar", drawn=True, bets=100, won=10)
    even = Score("features", "ret_1", "bar", drawn=True, bets=100, won=60)
    assert [leak.kind for leak in telling([won, lost, even])] == ["canary", "canary"]


def test_what_bounces_is_no_foresight() -> None:
    """Where the price itself wins almost every bet, nothing can be told by winning."""
    sure = Score("features", "ret_1", "bar", drawn=False, bets=500, won=500)
    bounce = Score("bars", "close", "bar", drawn=False, bets=500, won=3)
    calm = Score("bars", "close", "bar", drawn=False, bets=500, won=260)
    assert not list(telling([sure, bounce]))
    assert [leak.column for leak in telling([sure, calm])] == ["ret_1"]


def test_warm_up_tells_what_remembers() -> None:
    """Five lengths; windows settle, the highest price so far does not."""
    plan = Plan(cuts=20, stretches=4, stretch=200, reruns=0, warm_up=PLAN.warm_up, canary=0)
    report = check(honest, sample, plan)
    assert {one.bars for one in report.startups} == set(PLAN.warm_up)
    slow = report.slow()
    assert "features.drawdown" in slow
    assert "features.ret_1" not in slow
    assert "features.roc_10" not in slow
    early = {one.column: one for one in report.startups if one.bars == 2}
    assert early["roc_10"].differing > 0


def test_the_report_is_json() -> None:
    """Without infinities, and with the text of each leak."""
    report = check(honest, sample, PLAN)
    facts = json.loads(json.dumps(report.facts(), allow_nan=False))
    assert facts["leaks"] == []
    assert facts["rows"]["ticks"] == report.rows["ticks"] > 0
    assert facts["restarts"] > 0
    assert facts["reruns"] == 1
    assert report.line().startswith("no leak: ")


def test_without_a_tick_there_is_nothing_to_prove() -> None:
    """An empty input is misuse."""
    with pytest.raises(MisuseError, match="no tick"):
        check(honest, nothing, PLAN)


def test_a_short_input_is_checked() -> None:
    """One tick, two ticks, a few."""
    for ticks in (1, 2, 9):
        report = check(honest, partial(_few, ticks), PLAN)
        assert not report.leaks, report.line()
        assert report.ticks == ticks


def _few(ticks: int, block: int) -> Iterator[Arrivals]:
    yield next(sample(block)).slice(0, ticks)


def ticks_file(path: Path) -> Path:
    """A CSV of some ticks."""
    table = walk(600, ("A", "B"), seed=8)
    table["side"] = table["side"].where(table["side"].notna(), "")
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def test_the_command(tmp_path: Path) -> None:
    """One line, a report for programs, exit code 0; a leak makes it 1 and is named."""
    path = ticks_file(tmp_path / "ticks.csv")
    report = tmp_path / "report.json"
    options = ["leakcheck", str(path), "--cuts", "30", "--report", str(report)]
    clean = CliRunner().invoke(cli, options)
    assert clean.exit_code == 0, clean.output
    assert clean.stdout.startswith("no leak: ")
    assert json.loads(report.read_text())["ticks"] == 600
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from pipeline.stages.custom import feature\nSEEN = []\n"
        '@feature(inputs=("close",), periods=1, unit="-")\ndef seen_so_far(close):\n'
        '    """A mean over all runs."""\n    SEEN.append(close[-1])\n'
        "    return sum(SEEN) / len(SEEN)\n"
    )
    leaky = CliRunner().invoke(cli, [*options, "--set", f'user.features=["{mine}"]'])
    assert leaky.exit_code == 1
    assert "error: leak: features.seen_so_far, first in the row at partition 0" in leaky.stderr
    (leak,) = json.loads(report.read_text())["leaks"]
    assert leak["column"] == "seen_so_far"


@pytest.mark.parametrize("source", ["kafka:prices", "no_such_file.csv"])
def test_misuse_is_one_line(source: str, tmp_path: Path) -> None:
    """Exit code 2."""
    found = CliRunner().invoke(cli, ["leakcheck", source, "--report", str(tmp_path / "r.json")])
    assert found.exit_code == 2
    assert found.stderr.strip().count("\n") == 0
