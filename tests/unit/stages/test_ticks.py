"""The ingest guard: every reason, its order, its counts, its memory."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.ticks import ID_WINDOW
from pipeline.stages.base import Block
from pipeline.stages.ticks import GuardSettings, Ticks
from schemas.arrivals import Arrivals, Reject
from schemas.ticks import COUNTED, REASONS, Reason
from schemas.times import DAY, EARLIEST, NO_TIME
from tests.fixtures.ticks import SECOND, START, arrivals_of, frame

ACCEPTED = "accepted"


def judge(
    rows: Sequence[dict[str, Any]] | pd.DataFrame, stage: Ticks | None = None, **options: Any
) -> list[str]:
    """The verdict on each tick in words; `received` is half a day after START unless given."""
    table = pd.DataFrame(rows)
    for name, default in (("price", 1.0), ("symbol", "A")):
        table[name] = table[name].fillna(default) if name in table else default
    if "ts" in table:
        table["ts"] = [START if pd.isna(ts) else int(ts) for ts in table["ts"].astype(object)]
    else:
        table["ts"] = START
    received = options.pop("received", START + DAY // 2)
    came = arrivals_of(table, np.full(len(table), received, np.int64))
    stage = stage or Ticks(GuardSettings(**options))
    return verdicts(came, stage)


def verdicts(came: Arrivals, stage: Ticks) -> list[str]:
    """The verdict on each tick in words."""
    block = stage.step(Block(came))
    found = {int(offset): ACCEPTED for offset in block.rows["ticks"]["offset"]}
    for reject in block.rejects:
        assert reject.offset not in found
        found[reject.offset] = reject.reason.value
    assert [reject.offset for reject in block.rejects] == sorted(r.offset for r in block.rejects)
    assert (np.diff(block.rows["ticks"]["offset"]) > 0).all()
    return [found[offset] for offset in came["offset"].tolist()]


INF = float("inf")
NUMBERS = ("price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low")
PRICES = ("price", "bid", "ask", "open", "high", "low")
SIZES = ("size", "bid_size", "ask_size")


@pytest.mark.parametrize("mode", ["full", "plain"])
@pytest.mark.parametrize(
    ("tick", "reason"),
    [
        *(({name: INF}, "non_finite") for name in NUMBERS),
        *(({name: -INF}, "non_finite") for name in NUMBERS),
        *(({name: 0.0}, "non_positive") for name in PRICES),
        *(({name: -0.0}, "non_positive") for name in PRICES),
        *(({name: -37.63}, "non_positive") for name in PRICES),
        *(({name: -1.0}, "negative_size") for name in SIZES),
        *(({name: 0.0}, ACCEPTED) for name in SIZES),
        *(({name: float("nan")}, ACCEPTED) for name in NUMBERS if name != "price"),
        ({"price": 5e-324}, ACCEPTED),
        ({"price": 5.853e-05}, ACCEPTED),
        ({"bid": 2.0, "ask": 1.0}, ACCEPTED),  # crossed quotes count elsewhere
        ({"ts": NO_TIME}, "bad_time"),
        ({"ts": START // 10**9}, "bad_time"),  # seconds read as nanoseconds: January 1970
        ({"ts": START // 10**6}, "bad_time"),
        ({"ts": START // 10**3}, "bad_time"),
        ({"ts": EARLIEST - 1}, "bad_time"),
        ({"ts": EARLIEST}, ACCEPTED),
        ({"ts": START + DAY // 2 + DAY}, ACCEPTED),
        ({"ts": START + DAY // 2 + DAY + 1}, "bad_time"),
        ({"ts": 2**63 - 1}, "bad_time"),
        ({"recv_ts": EARLIEST - 1}, "bad_time"),
        (
            {"recv_ts": START - SECOND},
            ACCEPTED,
        ),  # received before the event: skewed clocks are legal
        ({"recv_ts": START + DAY // 2 + DAY + 1}, "bad_time"),
        ({"symbol": "A B"}, "bad_symbol"),
        ({"symbol": ""}, "bad_symbol"),
        ({"symbol": "x" * 33}, "bad_symbol"),
        ({"symbol": "x" * 32}, ACCEPTED),
    ],
)
def test_each_fault_of_one_tick_has_its_reason(
    tick: dict[str, Any], reason: str, mode: str
) -> None:
    """Values that no kernel may see are rejected in both modes, and only those."""
    assert judge([tick], mode=mode) == [reason]


@pytest.mark.parametrize("mode", ["full", "plain"])
def test_a_price_that_is_missing_is_not_finite(mode: str) -> None:
    """NaN means missing for all numbers but the price."""
    came = arrivals_of(pd.DataFrame({"price": [float("nan"), 1.0]}))
    assert verdicts(came, Ticks(GuardSettings(mode=mode))) == ["non_finite", ACCEPTED]


def test_what_decoding_marked_stays_marked() -> None:
    """A tick that decoding found malformed is rejected as that, whatever else it is."""
    came = arrivals_of(pd.DataFrame({"price": [1.0, 0.0, 1.0]}))
    came["fault"][1] = REASONS.index(Reason.MALFORMED)
    assert verdicts(came, Ticks(GuardSettings())) == [ACCEPTED, "malformed", ACCEPTED]


def test_a_file_has_no_bound_of_receipt() -> None:
    """A file is read at any time: ticks of tomorrow in it are not refused."""
    came = arrivals_of(pd.DataFrame({"price": [1.0], "ts": [2**62]}))
    assert verdicts(came, Ticks(GuardSettings())) == [ACCEPTED]


def test_a_late_tick_is_late_for_its_symbol_only() -> None:
    """Older than the symbol's last accepted tick is late; equal times and other symbols are not."""
    rows: list[dict[str, Any]] = [
        {"symbol": "A", "ts": START + 5},
        {"symbol": "B", "ts": START + 1},
        {"symbol": "A", "ts": START + 5},
        {"symbol": "A", "ts": START + 4},
        {"symbol": "A", "ts": START + 9, "price": 0.0},  # rejected: moves nothing
        {"symbol": "A", "ts": START + 6},
    ]
    expected = [ACCEPTED, ACCEPTED, ACCEPTED, "late", "non_positive", ACCEPTED]
    assert judge(rows) == expected
    assert judge(rows, mode="plain") == [*expected[:3], ACCEPTED, *expected[4:]]


def test_equal_rows_without_an_id_are_real_prints() -> None:
    """305,809 equal rows of ES are trades: without an id nothing is dropped."""
    rows = [{"ts": START, "price": 5.0, "size": 1.0}] * 50
    assert judge(rows) == [ACCEPTED] * 50


@pytest.mark.parametrize("kind", [int, str])
def test_an_id_seen_before_is_a_duplicate_within_its_symbol(kind: type) -> None:
    """Integers in any order and texts: the second one goes, another symbol's same id stays."""
    ids = [5, 3, 5, 9, 3, 4, 9]
    rows = [{"symbol": "A", "id": kind(i), "ts": START} for i in ids]
    rows.insert(1, {"symbol": "B", "id": kind(5), "ts": START})
    expected = [ACCEPTED] * 3 + ["duplicate", ACCEPTED, "duplicate", ACCEPTED, "duplicate"]
    assert judge(rows) == expected
    assert judge(rows, mode="plain") == [ACCEPTED] * 8


def test_a_rejected_tick_does_not_use_up_its_id() -> None:
    """The repaired tick of the same id is accepted; a duplicate is named before it is late."""
    rows: list[dict[str, Any]] = [
        {"id": 1, "ts": START + 10, "price": -1.0},
        {"id": 1, "ts": START + 10},
        {"id": 2, "ts": START},  # late
        {"id": 2, "ts": START + 11},
        {"id": 1, "ts": START},
    ]
    assert judge(rows) == ["non_positive", ACCEPTED, "late", ACCEPTED, "duplicate"]


def test_256_ids_are_remembered_for_a_symbol() -> None:
    """An id is forgotten when 256 newer ones were accepted, not before."""
    for newer, verdict in ((ID_WINDOW - 1, "duplicate"), (ID_WINDOW, ACCEPTED)):
        ids = [7, *range(1000, 1000 + newer), 7]
        assert judge([{"id": i} for i in ids])[-1] == verdict
    assert ID_WINDOW == 256


@given(st.lists(st.integers(-3, 12), max_size=60), st.integers(1, 7))
@settings(max_examples=60)
def test_duplicates_are_those_that_a_set_finds(ids: list[int], block: int) -> None:
    """Below 256 ids the memory is a set, also across blocks; -1 stands for no id."""
    seen: set[int] = set()
    expected = []
    for i in ids:
        expected.append("duplicate" if i in seen else ACCEPTED)
        if i != -1:
            seen.add(i)
    stage = Ticks(GuardSettings())
    came = arrivals_of(pd.DataFrame({"price": [1.0] * len(ids), "id": ids, "ts": START}))
    found = [verdicts(came.slice(i, i + block), stage) for i in range(0, len(ids), block)]
    assert [word for part in found for word in part] == expected


def test_symbols_beyond_the_limit_are_refused_and_the_known_go_on() -> None:
    """max_symbols bounds memory: later symbols are rejected, earlier ones are not touched."""
    rows = [{"symbol": s} for s in ("A", "B B", "B", "C", "A", "C", "D", "B")]
    expected = [ACCEPTED, "bad_symbol", ACCEPTED, *["too_many_symbols", ACCEPTED] * 1]
    expected += ["too_many_symbols", "too_many_symbols", ACCEPTED]
    assert judge(rows, max_symbols=2) == expected


def test_a_symbol_is_admitted_with_its_first_tick_only() -> None:
    """Symbols that are only named, and unusable ones, take no room: no split changes a verdict."""
    names = ["A", "no good", "B", "C"]
    table = pd.DataFrame({"symbol": names, "price": 1.0})
    came = arrivals_of(table)
    came["fault"][1] = REASONS.index(Reason.MALFORMED)  # found first, for another reason
    for cuts in ([0, 4], [0, 1, 2, 3, 4], [0, 2, 4]):
        stage = Ticks(GuardSettings(max_symbols=2))
        found = [
            word for low, high in pairwise(cuts) for word in verdicts(came.slice(low, high), stage)
        ]
        assert found == [ACCEPTED, "malformed", ACCEPTED, "too_many_symbols"]
        assert stage.symbols == ["A", "B"]
    stage = Ticks(GuardSettings())
    verdicts(came.slice(0, 1), stage)
    assert stage.symbols == ["A"]


def test_counts_are_absolute_by_symbol_and_reason() -> None:
    """Counts only grow with what was judged, and a repeated snapshot cannot count twice."""
    stage = Ticks(GuardSettings())
    rows: list[dict[str, Any]] = [
        {"symbol": "A", "id": 1},
        {"symbol": "A", "id": 1},
        {"symbol": "B", "price": -1.0},
        {"symbol": "A", "size": -1.0},
        {"symbol": "B"},
        {"symbol": "b b"},
    ]
    judge(rows, stage)
    before = stage.snapshot()
    judge(rows, stage)
    counts = pd.DataFrame(
        stage.counts(), index=stage.symbols, columns=[str(name) for name in COUNTED]
    )
    found = counts[["duplicate", "negative_size", "non_positive", ACCEPTED]].to_numpy().tolist()
    assert found == [[3, 2, 0, 1], [0, 0, 2, 2]]
    assert counts.to_numpy().sum() == 10
    again = Ticks(GuardSettings())
    again.restore(before)
    judge(rows, again)
    assert again.counts().tolist() == stage.counts().tolist()


def test_what_decoding_refused_is_counted_and_comes_first() -> None:
    """Unread messages are counted by reason, and the block's rejects keep them in front."""
    stage = Ticks(GuardSettings())
    unread = [Reject(9, -1, Reason.UNDECODABLE, "x"), Reject(9, 3, Reason.MALFORMED, "y")]
    came = arrivals_of(pd.DataFrame({"price": [0.0, 1.0]}))
    block = stage.step(Block(came, rejects=unread))
    assert list(block.rejects[:2]) == unread
    assert [(r.offset, r.reason, r.symbol) for r in block.rejects[2:]] == [
        (0, Reason.NON_POSITIVE, "A")
    ]
    assert stage.unread().tolist() == [1, 1] + [0] * (len(REASONS) - 2)


def test_accepted_ticks_become_rows_as_they_came() -> None:
    """A row holds exactly the values of its tick, its coordinates and the flag accepted."""
    table = pd.DataFrame(
        {
            "symbol": ["B", "A"],
            "ts": [START, START + 1],
            "price": [1.5, 2.5],
            "size": [np.nan, 3.0],
            "side": ["sell", None],
            "bid": [1.4, np.nan],
            "ask": [1.6, np.nan],
            "bid_size": [7.0, np.nan],
            "ask_size": [8.0, np.nan],
            "open": [1.1, np.nan],
            "high": [1.2, np.nan],
            "low": [1.3, np.nan],
            "id": [11, None],
            "recv_ts": [START + 5, START + 6],
            "offset": [70, 71],
        }
    )
    rows = frame(Ticks(GuardSettings()).step(Block(arrivals_of(table))).rows["ticks"])
    for name in ("symbol", "ts", "offset", *NUMBERS):
        pd.testing.assert_series_equal(rows[name], table[name], check_dtype=False)
    assert rows["known_at"].tolist() == [START + 5, START + 6]
    assert rows["side"].tolist() == [1, -1]
    assert rows["id"].tolist() == [11, -1]
    assert rows["flag"].tolist() == [0, 0]
    assert rows["partition"].tolist() == [0, 0]
