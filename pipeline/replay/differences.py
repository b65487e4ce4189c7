"""The first place where stored rows and replayed rows of a stage part, bit by bit."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.blocks import COLUMNS, Array, Rows, spoken

WHOLE_ROW: Final = "(whole row)"
_IDENTITY: Final = ("partition", "offset", "index")
_ROW_SAID: Final = {
    ("there", None): "is stored, but the replay does not make it",
    ("once more", None): "is stored more than once",
    (None, "there"): "is made by the replay, but not stored",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where live and replay part: a column of a row with both values, or a row of one of them."""

    stage: str
    symbol: str
    ts: int
    partition: int
    offset: int
    index: int
    column: str
    live: Any
    replayed: Any

    def __str__(self) -> str:
        where = f"partition {self.partition} offset {self.offset} index {self.index}"
        row = f"{self.stage}, row at {where} ({self.symbol})"
        if self.column == WHOLE_ROW:
            return f"{row} {_ROW_SAID[self.live, self.replayed]}"
        values = f"live {_spoken(self.live)}, replayed {_spoken(self.replayed)}"
        return f"{row}, column {self.column}: {values}"


def _spoken(value: Any) -> str:
    return f"{value!r} ({value.hex()})" if isinstance(value, float) else repr(value)


def _bits(rows: Rows, name: str, kind: str) -> Array:
    values = rows[name]
    if kind == "float64":
        return np.ascontiguousarray(values).view(np.int64)
    if kind == "symbol":
        return np.array([*rows.symbols, ""])[values]
    return values


def _canonical(rows: Rows) -> Rows:
    """One NaN for every null: Postgres and Arrow keep no payload of a NaN."""
    columns = {
        name: np.where(values != values, np.nan, values) if values.dtype == np.float64 else values  # noqa: PLR0124 -- NaN is null
        for name, values in rows.columns.items()
    }
    return Rows(rows.stage, columns, rows.symbols)


def first_difference(live: Rows, replayed: Rows) -> Difference | None:
    """The first row, in order of identity, that only one of two runs has, or differs in a column.

    Of a row that both have, the first column that differs is named.
    """
    live, replayed = _canonical(live), _canonical(replayed)
    n = min(len(live), len(replayed))
    apart = np.zeros(n, np.bool_)
    for name in _IDENTITY:
        apart |= live[name][:n] != replayed[name][:n]
    together = int(np.argmax(apart)) if apart.any() else n
    first, where = together, None
    for column in COLUMNS[live.stage]:
        ours = _bits(live, column.name, column.kind)[:first]
        theirs = _bits(replayed, column.name, column.kind)[:first]
        wrong = np.flatnonzero(ours != theirs)
        if wrong.size:
            first, where = int(wrong[0]), column
    if where is not None:
        values = (spoken(live, where, first), spoken(replayed, where, first))
        return _difference(replayed, first, where.name, *values)
    if together == len(live) == len(replayed):
        return None
    return _lone(live, replayed, together)


def _lone(live: Rows, replayed: Rows, at: int) -> Difference:
    """The first row that one of two runs has alone: up to it they have the same rows."""
    stored = _identity(live, at) if at < len(live) else None
    made = _identity(replayed, at) if at < len(replayed) else None
    if stored is not None and (made is None or stored < made):
        again = at > 0 and stored == _identity(live, at - 1)
        return _difference(live, at, WHOLE_ROW, "once more" if again else "there", None)
    return _difference(replayed, at, WHOLE_ROW, None, "there")


def _identity(rows: Rows, at: int) -> tuple[int, ...]:
    return tuple(int(rows[name][at]) for name in _IDENTITY)


def _difference(rows: Rows, at: int, column: str, live: Any, replayed: Any) -> Difference:
    symbol = rows.symbols[int(rows["symbol"][at])]
    ts = int(rows["ts"][at])
    partition, offset, index = _identity(rows, at)
    return Difference(rows.stage, symbol, ts, partition, offset, index, column, live, replayed)
