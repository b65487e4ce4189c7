"""What the guard notices and lets pass: missing trade ids, frozen and one-sided quotes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.stages.base import Block, joined
from pipeline.stages.chain import Chain, ChainSettings
from pipeline.stages.ticks import GuardSettings, Ticks
from schemas.arrivals import Arrivals, Gap
from schemas.ticks import COUNTED
from tests.fixtures.ticks import SECOND, START, arrivals_of, settings_of, walk

NAN = float("nan")
DAY = 86_400 * SECOND
INT64_MAX = 2**63 - 1


def counts_of(stage: Ticks, symbol: str = "A") -> dict[str, int]:
    """The guard's counts of a symbol by name."""
    row = stage.counts()[stage.symbols.index(symbol)].tolist()
    return dict(zip(map(str, COUNTED), row, strict=True))


def guard(table: pd.DataFrame, **options: Any) -> tuple[Block, dict[str, int]]:
    """The block of a guard over a table of ticks, and its counts of the symbol A."""
    stage = Ticks(GuardSettings(**options))
    return stage.step(Block(arrivals_of(table))), counts_of(stage)


def told(gaps: Iterable[Gap]) -> list[tuple[int, int, int]]:
    """Gaps as (offset, from_id, to_id)."""
    return [(gap.offset, gap.from_id, gap.to_id) for gap in gaps]


def ids(*values: int | None, **more: Any) -> pd.DataFrame:
    """Ticks with these trade ids at a constant price."""
    column = pd.Series(values, dtype=object)
    return pd.DataFrame({"price": 100.0, "id": column, "ts": START, **more})


def test_a_gap_is_an_event_with_its_place() -> None:
    """The tick after the missing ids tells which they are, where it stands and when it came."""
    table = ids(1, 2, 6, 7, 9).assign(ts=START + np.arange(5) * SECOND)
    block, counts = guard(table, consecutive_ids=True)
    assert list(block.gaps) == [
        Gap(2, 0, "A", START + 2 * SECOND, 3, 5),
        Gap(4, 0, "A", START + 4 * SECOND, 8, 8),
    ]
    assert [gap.missing for gap in block.gaps] == [3, 1]
    assert block.rows["ticks"]["gap"].tolist() == [0, 0, 3, 0, 1]
    assert counts["id_gap"] == 4


def test_without_consecutive_ids_nothing_is_missing() -> None:
    """Ids of a source that numbers otherwise tell nothing, and no column says so."""
    block, counts = guard(ids(1, 5, 9))
    assert not block.gaps
    assert block.rows["ticks"]["gap"].tolist() == [0, 0, 0]
    assert counts["id_gap"] == 0


@pytest.mark.parametrize(
    ("values", "gaps"),
    [
        ((5, None, 6), []),  # a tick without an id is no gap and hides none
        ((5, None, 7), [(2, 6, 6)]),
        ((1, 5, 3, 6), [(1, 2, 4)]),  # a straggler: 5 was there when 6 came
        ((1000, 1, 2, 5), [(3, 3, 4)]),  # a source that starts anew
        ((1000, 744, 1001), []),  # 256 below the highest is a straggler still
        ((1000, 743, 1001), [(2, 744, 1000)]),  # one more is a new sequence
        ((7, 7, 8), []),  # a duplicate is rejected
        ((-3, 1), [(1, -2, 0)]),
        ((0, 2**32 + 1), [(1, 1, 2**32)]),  # 2**32 would be 0 in an int32
        ((INT64_MAX, 5), []),
        ((-(2**63), INT64_MAX), [(1, -(2**63) + 1, INT64_MAX - 1)]),  # more than int64 counts
    ],
)
def test_gaps_by_hand(values: Sequence[int | None], gaps: list[tuple[int, int, int]]) -> None:
    """Which ids are missing in short sequences; the column holds what an int32 can."""
    block, counts = guard(ids(*values), consecutive_ids=True)
    assert told(block.gaps) == gaps
    found = block.rows["ticks"]
    assert found["gap"][found["gap"] != 0].tolist() == [
        min(gap.missing, 2**31 - 1) for gap in block.gaps
    ]
    assert counts["id_gap"] == min(sum(gap.missing for gap in block.gaps), INT64_MAX)


def test_counts_of_gaps_end_at_int64() -> None:
    """Two gaps of more than int64 together: the count stays at its end."""
    table = ids(0, INT64_MAX, -5, INT64_MAX - 1)
    block, counts = guard(table, consecutive_ids=True)
    assert len(block.gaps) == 2
    assert counts["id_gap"] == INT64_MAX


def test_symbols_have_sequences_of_their_own() -> None:
    """Each symbol counts for itself; events come in the order of arrival."""
    table = ids(1, 10, 3, 12, symbol=["A", "B", "A", "B"])
    block, _ = guard(table, consecutive_ids=True)
    assert [(gap.symbol, gap.from_id, gap.to_id) for gap in block.gaps] == [
        ("A", 2, 2),
        ("B", 11, 11),
    ]


def test_the_plain_guard_tells_gaps_too() -> None:
    """With guard.mode=plain repeated ids are taken, missing ones are told."""
    block, _ = guard(ids(1, 1, 4), mode="plain", consecutive_ids=True)
    assert told(block.gaps) == [(2, 2, 3)]


def test_another_instrument_starts_its_ids_anew() -> None:
    """What comes after long silence at another price has neither gaps nor duplicates of before."""
    price = [*(100 + np.arange(20) % 2), 700.0, 701.0, 700.0]
    ts = START + np.arange(23) * SECOND
    ts[20:] += 61 * DAY
    table = pd.DataFrame({"price": price, "ts": ts, "id": [*range(20), 500, 7, 503]})
    block, counts = guard(table, consecutive_ids=True)
    assert counts["new_instrument"] == 1
    assert counts["duplicate"] == 0
    assert told(block.gaps) == [(22, 8, 502)]


def test_bars_carry_what_is_missing_before_their_ticks() -> None:
    """By hand on ticks:2 and time:10s; the trigger of a time bar belongs to the next one."""
    table = ids(1, 3, 4, 9, 10, 12).assign(ts=START + np.array([0, 1, 2, 12, 13, 31]) * SECOND)
    for clock, expected in (("ticks:2", [1, 4, 1]), ("time:10s", [1, 4, 1]), ("row", None)):
        chain = Chain(settings_of(bars={"clock": clock}, guard={"consecutive_ids": True}))
        blocks = [chain.step(arrivals_of(table)), chain.finish(len(table))]
        ticks, bars = (
            np.concatenate([block.rows[stage]["gap"] for block in blocks])
            for stage in ("ticks", "bars")
        )
        assert bars.tolist() == (ticks.tolist() if expected is None else expected)
        assert bars.dtype == np.int32


def test_a_bar_knows_the_gap_before_a_quarantined_tick() -> None:
    """The spike enters no bar, but the ids that are missing before it are missing in one."""
    price = [*(100 + np.arange(60) % 2 / 50), 1000.0, 100.0]
    table = pd.DataFrame({"price": price, "id": [*range(60), 70, 71]})
    chain = Chain(settings_of(bars={"clock": "ticks:61"}, guard={"consecutive_ids": True}))
    rows = chain.step(arrivals_of(table)).rows
    assert rows["ticks"]["flag"].tolist() == [0] * 60 + [1, 0]
    assert rows["bars"]["gap"].tolist() == [10]


def test_the_sum_of_a_bar_ends_at_int32() -> None:
    """Gaps beyond int32 are its largest number in the bar as well, not a negative one."""
    chain = Chain(settings_of(bars={"clock": "ticks:3"}, guard={"consecutive_ids": True}))
    rows = chain.step(arrivals_of(ids(1, 2**40, 2**41))).rows
    assert rows["bars"]["gap"].tolist() == [2**31 - 1]


def numbered(n: int) -> Arrivals:
    """A walk of three symbols with ids that skip, straggle and repeat, a rename in the middle."""
    rng = np.random.default_rng(7)
    table = walk(n, seed=7)
    table["id"] = np.arange(n) + rng.integers(-4, 5, n)
    table.loc[rng.random(n) < 0.2, "id"] = None
    at = n // 2
    table.loc[(table["symbol"] == "A") & (table.index >= at), "symbol"] = "NEW"
    came = arrivals_of(table)
    first = np.flatnonzero(came["symbol"] == came.symbols.index("NEW"))[0]
    came.columns["was"][first] = came.symbols.index("A")
    return came


QUALITY = settings_of(bars={"clock": "ticks:5"}, guard={"consecutive_ids": True, "stale_floor": 3})


def parts(settings: ChainSettings, came: Arrivals, size: int, restart: int = 0) -> list[Block]:
    """The blocks of a run of `size` ticks each; a new chain takes over at each `restart`-th."""
    chain = Chain(settings)
    blocks = []
    for number, low in enumerate(range(0, len(came), size), 1):
        blocks.append(chain.step(came.slice(low, min(low + size, len(came)))))
        if restart and number % restart == 0:
            data = chain.snapshot()
            chain = Chain(settings)
            chain.restore(data)
    return blocks


@pytest.mark.parametrize(("size", "restart"), [(1, 0), (7, 0), (7, 3), (100, 1)])
def test_any_split_and_any_restart_tell_the_same(size: int, restart: int) -> None:
    """Events, both columns and all counts, whatever the blocks were and who took over when."""
    came = numbered(600)
    chain = Chain(QUALITY)
    whole = chain.step(came)
    assert len(whole.gaps) > 50
    assert {gap.symbol for gap in whole.gaps} == {"A", "B", "C", "NEW"}
    pieces = joined(parts(QUALITY, came, size, restart), came)
    assert list(pieces.gaps) == list(whole.gaps)
    for stage in ("ticks", "bars"):
        assert pieces.rows[stage]["gap"].tolist() == whole.rows[stage]["gap"].tolist()
    assert whole.rows["bars"]["gap"].any()


@pytest.mark.parametrize(("size", "restart"), [(1, 0), (7, 0), (7, 3)])
def test_any_split_and_any_restart_count_the_same(size: int, restart: int) -> None:
    """The counts of frozen and one-sided quotes, and every other one."""
    table = walk(600, ("A", "B"), seed=3)
    rng = np.random.default_rng(3)
    for side, stretch in (("bid", 1), ("ask", 3)):  # 75 of 300 ticks each stand still
        moves = np.where(np.arange(600) // 75 % 4 == stretch, 0, rng.integers(0, 9, 600))
        table[side] = 100.0 + moves + rng.choice([0.0, NAN], 600, p=[0.9, 0.1])
    came = arrivals_of(table)
    options = GuardSettings(stale_floor=3)
    whole, stage = Ticks(options), Ticks(options)
    whole.step(Block(came))
    for number, low in enumerate(range(0, 600, size), 1):
        stage.step(Block(came.slice(low, min(low + size, 600))))
        if restart and number % restart == 0:
            state = stage.snapshot()
            stage = Ticks(options)
            stage.restore(state)
    assert stage.counts().tolist() == whole.counts().tolist()
    counts = counts_of(whole)
    assert counts["frozen_bid"] == counts["frozen_ask"] == 2
    assert counts["one_sided"] > 20


def quotes(
    seconds: Sequence[float], bid: Sequence[float], ask: Sequence[float], **more: Any
) -> pd.DataFrame:
    """Ticks at a constant price with these quotes."""
    ts = [START + int(second * SECOND) for second in seconds]
    return pd.DataFrame({"ts": ts, "price": 100.0, "bid": bid, "ask": ask, **more})


def frozen(table: pd.DataFrame, side: str, **options: Any) -> list[int]:
    """At which ticks a side was counted as frozen; the table is mirrored for the ask."""
    if side == "ask":
        table = table.assign(bid=200 - table["ask"], ask=200 - table["bid"])
    stage = Ticks(GuardSettings(**options))
    came = arrivals_of(table)
    found, before = [], 0
    for i in range(len(came)):
        stage.step(Block(came.slice(i, i + 1)))
        counts = counts_of(stage, str(table["symbol"][i]) if "symbol" in table else "A")
        if counts[f"frozen_{side}"] != before:
            assert counts[f"frozen_{side}"] == before + 1
            found.append(i)
        before = counts[f"frozen_{side}"]
        assert counts["frozen_ask" if side == "bid" else "frozen_bid"] == 0
    return found


def moving(n: int) -> list[float]:
    """Asks that change with every tick."""
    return [101.0 + i % 3 for i in range(n)]


SIDES = pytest.mark.parametrize("side", ["bid", "ask"])


@SIDES
def test_a_side_that_never_moves_is_frozen_after_the_floor(side: str) -> None:
    """60 s are never frozen, 61 are: counted once, at the tick that shows it, not at each."""
    table = quotes(range(100), [99.0] * 100, moving(100))
    assert frozen(table, side) == [61]
    assert frozen(table, side, stale_floor=5) == [6]
    assert frozen(table, side, mode="plain") == []


@SIDES
def test_a_side_that_moves_again_may_freeze_again(side: str) -> None:
    """The bid moves at 70 s and stands from there: frozen at 61 s; again, 10 x 70 s later."""
    table = quotes(range(800), [99.0] * 70 + [98.0] * 730, moving(800))
    assert frozen(table, side) == [61, 771]


@SIDES
def test_ten_medians_of_the_side_itself_are_never_frozen(side: str) -> None:
    """Changes after 10 s and 10 s: the running median is 10 / 1.02 s, its tenfold 98.04 s."""
    bid = [99.0] * 10 + [98.0] * 10 + [97.0] * 120
    assert frozen(quotes(range(140), bid, moving(140)), side) == [20 + 99]


@SIDES
def test_both_sides_at_rest_are_a_quiet_market(side: str) -> None:
    """Trades go on and no side moves: nothing is frozen, until one of them moves alone."""
    assert frozen(quotes(range(100), [99.0] * 100, [101.0] * 100), side) == []
    both = [99.0 + i // 40 for i in range(100)]
    assert frozen(quotes(range(100), both, [price + 2 for price in both]), side) == []


@SIDES
@pytest.mark.parametrize("quoted", [True, False])
def test_silence_of_the_symbol_freezes_no_side(side: str, quoted: bool) -> None:
    """After an hour without a tick both sides are young, whether a quote or a trade ends it."""
    seconds = [*range(20), 3600, *range(3601, 3700)]
    bid = [*(99.0 - i % 2 for i in range(20)), *[98.0] * 100]
    ask = moving(120)
    if not quoted:
        bid[20] = ask[20] = NAN
    assert frozen(quotes(seconds, bid, ask), side) == [20 + 61]


@SIDES
def test_a_missing_side_is_not_frozen_and_a_crossed_one_may_be(side: str) -> None:
    """While no bid is quoted it cannot freeze; a bid left behind by a falling ask does."""
    bid = [99.0] * 30 + [NAN] * 40 + [99.0] * 30
    assert frozen(quotes(range(100), bid, moving(100)), side) == [70]
    falling = [101.0 - i / 10 for i in range(100)]
    assert frozen(quotes(range(100), [99.0] * 100, falling), side) == [61]


@SIDES
def test_a_rename_moves_the_age_of_a_side(side: str) -> None:
    """After `was` the side is as old as under the former symbol, whose own starts anew."""
    names = ["A"] * 40 + ["B"] * 60
    table = quotes(range(100), [99.0] * 100, moving(100), symbol=names)
    if side == "ask":
        table = table.assign(bid=200 - table["ask"], ask=200 - table["bid"])
    came = arrivals_of(table)
    came.columns["was"][40] = came.symbols.index("A")
    chain = Chain(ChainSettings())
    for stop, expected in ((61, 0), (62, 1), (100, 1)):
        chain = Chain(ChainSettings())
        chain.step(came.slice(0, stop))
        assert counts_of(chain.ticks, "B")[f"frozen_{side}"] == expected
    again = quotes(range(100, 150), [99.0] * 50, moving(50))
    chain.step(arrivals_of(again))
    assert counts_of(chain.ticks, "A")[f"frozen_{side}"] == 0


@SIDES
def test_another_instrument_has_other_sides(side: str) -> None:
    """A life forgets prices, ages and medians: the floor counts from its first quote."""
    seconds = [*range(100), *range(100 + 61 * 86_400, 200 + 61 * 86_400)]
    price = [*(100 + np.arange(100) % 2 / 50), *(700 + np.arange(100) % 2 / 50)]
    bid = [99.0 - i // 30 for i in range(100)] + [96.0] * 100
    table = quotes(seconds, bid, moving(200)).assign(price=price)
    assert frozen(table, side) == [100 + 61]


def test_one_sided_quotes_are_counted_and_enter_no_quote_feature() -> None:
    """Bids without asks and asks without bids: accepted, and as if they had not been quoted."""
    table = walk(400, seed=5)
    rng = np.random.default_rng(5)
    one = rng.random(400) < 0.3
    bids = rng.random(400) < 0.5
    whole = table["bid"].notna() & one
    table.loc[one & bids, "ask"] = NAN
    table.loc[one & ~bids, "bid"] = NAN
    without = table.copy()
    without.loc[one, ["bid", "ask"]] = NAN
    chains = [Chain(settings_of(bars={"clock": "ticks:1"})) for _ in range(2)]
    ours, theirs = (
        chain.step(arrivals_of(t)) for chain, t in zip(chains, (table, without), strict=True)
    )
    assert len(ours.rows["ticks"]) == 400
    for name, values in ours.rows["features"].columns.items():
        np.testing.assert_array_equal(values, theirs.rows["features"][name], name)
    sided = [
        sum(counts_of(chain.ticks, symbol)["one_sided"] for symbol in "ABC") for chain in chains
    ]
    assert sided == [int(whole.sum()), 0]
    assert np.isfinite(ours.rows["features"]["spread_bp"]).sum() > 50
