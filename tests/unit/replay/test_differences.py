"""The first difference between two runs: one bit is enough, and equal runs have none."""

import numpy as np
import pytest

from pipeline.replay.differences import WHOLE_ROW, first_difference
from schemas.blocks import COLUMNS, STAGES, Rows, empty

N = 6


def sample(stage: str = "regimes") -> Rows:
    """Rows of two symbols in order of identity."""
    rows = empty(stage, N, ["A", "B"])
    for column in COLUMNS[stage]:
        into = rows.columns[column.name]
        if column.kind == "symbol":
            into[:] = np.arange(N) % 2
        elif column.kind == "label":
            into[:] = 0
        elif column.kind == "float64":
            into[:] = np.arange(N) + 0.1
        else:
            into[:] = 0
    rows.columns["offset"][:] = 10 + np.arange(N)
    return rows


@pytest.mark.parametrize("stage", STAGES)
def test_equal_runs_have_no_difference(stage: str) -> None:
    """Also with nulls, and with other codes for the same symbols."""
    one, other = sample(stage), sample(stage)
    floats = [c.name for c in COLUMNS[stage] if c.kind == "float64"]
    one.columns[floats[0]][2] = np.nan
    other.columns[floats[0]][2:3].view(np.int64)[:] = 0x7FF8000000000123  # a NaN with a payload
    other.columns["symbol"][:] = 2 - np.arange(N) % 2
    other = Rows(stage, other.columns, ["Z", "B", "A"])
    assert first_difference(one, other) is None
    assert first_difference(empty(stage), empty(stage)) is None


@pytest.mark.parametrize("stage", STAGES)
def test_every_column_is_compared(stage: str) -> None:
    """A change of any one value in any column is found where it is."""
    for column in COLUMNS[stage]:
        if column.name in {"partition", "offset", "index"}:
            continue
        one, other = sample(stage), sample(stage)
        values = other.columns[column.name]
        if column.kind == "float64":
            values[3] = np.nextafter(values[3], 9.0)  # one bit of one double
        else:
            values[3] = 1 - values[3] if column.kind in {"symbol", "label"} else values[3] + 1
        found = first_difference(one, other)
        assert found is not None, column.name
        assert found.column == column.name
        assert found.stage == stage
        assert (found.partition, found.offset, found.index) == (0, 13, 0)
        assert found.symbol == ("A" if column.name == "symbol" else "B")


@pytest.mark.parametrize(
    ("live", "replayed"),
    [(0.0, -0.0), (1.0, np.nan), (np.nan, 1.0), (5e-324, 0.0), (1.0, np.nextafter(1.0, 2.0))],
)
def test_one_bit_of_one_double_is_a_difference(live: float, replayed: float) -> None:
    """Minus zero is not zero, null is not a value, and the report names both values."""
    one, other = sample(), sample()
    one.columns["vol_low"][4], other.columns["vol_low"][4] = live, replayed
    found = first_difference(one, other)
    assert found is not None
    assert (found.column, found.offset) == ("vol_low", 14)
    for shown, value in ((found.live, live), (found.replayed, replayed)):
        assert shown is None if np.isnan(value) else float(shown).hex() == float(value).hex()
    assert "offset 14" in str(found)
    assert "vol_low" in str(found)


def test_null_and_label_are_different() -> None:
    """A tag on one side and none on the other."""
    one, other = sample(), sample()
    other.columns["vol"][1] = -1
    found = first_difference(one, other)
    assert found is not None
    assert (found.column, found.live, found.replayed) == ("vol", "low", None)


def test_a_missing_last_row_is_a_difference() -> None:
    """More rows on either side: the first one too many is named with its side."""
    one, other = sample(), sample().take(np.arange(N - 1))
    found = first_difference(one, other)
    assert found is not None
    assert (found.offset, found.live, found.replayed) == (15, "there", None)
    found = first_difference(other, one)
    assert found is not None
    assert (found.offset, found.live, found.replayed) == (15, None, "there")
    found = first_difference(empty("regimes"), one)
    assert found is not None
    assert found.offset == 10


@pytest.mark.parametrize("gone", [0, 3, 5])
def test_a_row_of_one_run_alone_is_a_difference(gone: int) -> None:
    """The rows behind a gap do not match their places any more: the lone one is named."""
    kept = np.delete(np.arange(N), gone)
    found = first_difference(sample(), sample().take(kept))
    assert found is not None
    assert (found.column, found.live, found.replayed) == (WHOLE_ROW, "there", None)
    assert found.offset == 10 + gone
    assert "is stored, but the replay does not make it" in str(found)
    found = first_difference(sample().take(kept), sample())
    assert found is not None
    assert (found.column, found.live, found.replayed) == (WHOLE_ROW, None, "there")
    assert found.offset == 10 + gone
    assert "is made by the replay, but not stored" in str(found)


@pytest.mark.parametrize("again", [1, 5])
def test_a_row_twice_is_a_difference(again: int) -> None:
    """A row stored twice is a row too many, and is called so."""
    twice = sample().take(np.sort([*range(N), again]))
    found = first_difference(twice, sample())
    assert found is not None
    assert (found.column, found.live, found.replayed) == (WHOLE_ROW, "once more", None)
    assert found.offset == 10 + again
    assert "is stored more than once" in str(found)


@pytest.mark.parametrize("name", ["partition", "offset", "index"])
def test_another_identity_is_another_row(name: str) -> None:
    """A row that changed its place is missing from one run or too many in the other."""
    one, other = sample(), sample()
    other.columns[name][3] += 1
    found = first_difference(one, other)
    assert found is not None
    assert (found.column, found.live, found.offset) == (WHOLE_ROW, "there", 13)


def test_a_value_before_a_gap_comes_first() -> None:
    """The earliest difference is told, of whichever kind."""
    one, other = sample(), sample().take(np.array([0, 1, 2, 4, 5]))
    other.columns["vol_high"][1] = 0.0
    found = first_difference(one, other)
    assert found is not None
    assert (found.offset, found.column) == (11, "vol_high")


def test_the_first_of_several_differences_is_reported() -> None:
    """First by row, then by column, so that a report leads to the cause."""
    one, other = sample(), sample()
    other.columns["efficiency_ratio"][5] = 0.0
    other.columns["vol_high"][2] = 0.0
    other.columns["vol_low"][2] = 0.0
    found = first_difference(one, other)
    assert found is not None
    assert (found.offset, found.column) == (12, "vol_low")


def test_comparing_changes_nothing() -> None:
    """Neither run is touched."""
    one, other = sample(), sample()
    one.columns["vol_low"][0:1].view(np.int64)[:] = 0x7FF8000000000123
    before = one["vol_low"].tobytes()
    first_difference(one, other)
    assert one["vol_low"].tobytes() == before
