"""What must be true at every step of every schedule."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.toy import Clean, Row


class InvariantError(AssertionError):
    """A promise was broken."""


def demand(holds: object, broken: str, *seen: object) -> None:
    """Raise unless a condition holds.

    Raises:
        InvariantError: it does not.
    """
    if not holds:
        raise InvariantError(f"{broken}: {', '.join(map(repr, seen))}")


def check_acknowledged(partition: int, committed: int, mark: int) -> None:
    """The group never acknowledges what is not stored."""
    demand(committed <= mark + 1, "acknowledged beyond the mark", partition, committed, mark)


def check_epoch(partition: int, before: int, after: int) -> None:
    """Epochs only grow."""
    demand(after > before, "the epoch did not grow", partition, before, after)


def check_stored(partition: int, clean: Clean, mark: int, rows: Sequence[Row], checked: int) -> int:
    """The stored rows are the clean ones up to the mark, each once; returns how many."""
    wanted = clean.rows_until(mark)
    if rows[checked:] != clean.rows[checked:wanted]:
        got = [row[:2] for row in rows[checked:]]
        expected = [row[:2] for row in clean.rows[checked:wanted]]
        where = "other rows stored" if got != expected else "other values stored"
        demand(False, where, partition, mark, rows[checked:], clean.rows[checked:wanted])
    return wanted


def check_facts(partition: int, clean: Clean, mark: int, progress: Any) -> None:
    """Rejects, symbols and counts are those of the clean replay up to the mark."""
    state = clean.state_behind(mark)
    wanted = clean.refusals[: state.refused]
    demand(progress.refusals == wanted, "other rejects", partition, progress.refusals, wanted)
    demand(progress.refused == state.refused, "counted wrong", partition, progress.refused)
    demand(progress.symbols == state.symbols, "other symbols", partition, progress.symbols)


def check_published(
    stream: object, expected: Sequence[Row], known: int, rows: Sequence[Row]
) -> int:
    """After dropping repeats a topic is a beginning of the clean replay; returns its length."""
    for row in rows:
        if known and row[:2] <= expected[known - 1][:2]:
            demand(row in expected[:known], "a repeat differs", stream, row)
        else:
            demand(known < len(expected), "a row too many published", stream, row)
            demand(row == expected[known], "published wrongly", stream, row, expected[known])
            known += 1
    return known


def check_ahead(stream: object, expected: Sequence[Row], known: int, mark: int) -> None:
    """What is stored has been published."""
    behind = known < len(expected) and expected[known][0] <= mark
    demand(not behind, "stored but not published", stream, expected[known : known + 1], mark)


def check_snapshot(partition: int, clean: Clean, offset: int, mark: int, data: bytes) -> None:
    """A snapshot is the clean state at its offset, which is stored."""
    demand(offset <= mark, "a snapshot beyond the mark", partition, offset, mark)
    demand(data == clean.states[offset].packed(), "a snapshot differs", partition, offset, data)


def check_cached(clean: Clean, mark: int, document: Mapping[str, Any]) -> None:
    """A cached row is one of the stored ones."""
    offset, index = document["offset"], document["index"]
    row = (offset, index, document["symbol"], int(document["price"]))
    demand(offset <= mark, "cached but not stored", row, mark)
    demand(
        row in clean.rows[clean.rows_until(offset - 1) : clean.rows_until(offset)],
        "cached wrongly",
        row,
    )


def check_planned(stream: object, expected: Sequence[Row], known: int, offset: int) -> None:
    """Versions are swapped where nobody has published."""
    ahead = known > 0 and expected[known - 1][0] >= offset
    demand(
        not ahead, "swapped behind what is published", stream, expected[known - 1 : known], offset
    )
