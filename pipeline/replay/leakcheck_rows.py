"""Leaks, and rows of two runs held against each other column by column."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from schemas.arrivals import Arrivals
from schemas.blocks import COLUMNS, STAGES, Array, Column, Rows, spoken
from schemas.times import format_rfc3339

Kind = Literal[
    "prefix", "shock", "stamp", "late", "rewritten", "fresh", "rerun", "canary", "foresight",
    "outside",
]  # fmt: skip
WHOLE_ROW: Final = "(whole row)"
_INDEX_BITS: Final = 21  # a message holds fewer ticks than that, a topic fewer than 2**42 messages
_MEANING: Final[Mapping[Kind, str]] = {
    "prefix": "differs when the input ends just after it, or comes in other blocks",
    "shock": "differs when later ticks have other values",
    "stamp": "bears a time before that of what it was made from",
    "late": "came after ticks that follow its own",
    "rewritten": "was changed after it had been given out",
    "fresh": "differs when a fresh process goes on from a snapshot",
    "rerun": "differs when a fresh process runs the input again, up to here",
    "canary": "foretells returns whose signs were drawn by lot",
    "foresight": "foretells the next return almost always: more than skill can",
    "outside": "is made with something from outside its input",
}
_NOWHERE: Final = np.empty(0, np.int64)
_CODES: Final = {name: place for place, name in enumerate(STAGES)}


@dataclass(frozen=True, slots=True)
class Leak:
    """One column that knew too much: how it was seen, the first such row, and both its values.

    `offset` is -1 where a whole run and no single row betrays it; `ts` is ns, event time. `whole`
    is the value of the run over the whole input, `cut` that of the run that saw less or other.
    """

    kind: Kind
    stage: str
    column: str
    partition: int = -1
    offset: int = -1
    index: int = -1
    symbol: str = ""
    ts: int = -1
    whole: Any = None
    cut: Any = None
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.stage}.{self.column}"
        if self.offset >= 0:
            at = f" at {format_rfc3339(self.ts)}" if self.ts >= 0 else ""
            text += f", first in the row at partition {self.partition} offset {self.offset}"
            text += f" index {self.index} ({self.symbol}{at})"
        text += f": {_MEANING[self.kind]}"
        if self.whole is not None or self.cut is not None:
            text += f" ({self.whole!r} with the whole input, {self.cut!r} without)"
        return text + (f"; {self.detail}" if self.detail else "")

    def order(self) -> tuple[int, bool, int, int]:
        """Causes before effects: by the order of stages, then of columns, then of rows.

        What is made of all engines comes after each of them.
        """
        names = [column.name for column in COLUMNS.get(self.stage, ())]
        place = names.index(self.column) if self.column in names else -1
        of_all = self.column == "p_up" or self.column.startswith("w_")
        of_all &= self.stage == "predictions"
        return _CODES.get(self.stage, len(_CODES)), of_all, place, self.offset


class Found:
    """Leaks so far: the first row of each column, of each kind."""

    def __init__(self) -> None:
        self._leaks: dict[tuple[str, str, Kind], Leak] = {}

    def add(self, leaks: Iterable[Leak]) -> None:
        """Keep those that are the first of their column."""
        for leak in leaks:
            place = (leak.stage, leak.column, leak.kind)
            known = self._leaks.get(place)
            if known is None or leak.offset < known.offset:
                self._leaks[place] = leak

    def leaks(self) -> tuple[Leak, ...]:
        """One for each column, by the plainest kind that saw it, causes before effects."""
        best: dict[tuple[str, str], Leak] = {}
        rank = {kind: place for place, kind in enumerate(_MEANING)}
        for leak in sorted(self._leaks.values(), key=lambda leak: rank[leak.kind]):
            best.setdefault((leak.stage, leak.column), leak)
        return tuple(sorted(best.values(), key=Leak.order))


def keys(rows: Rows | Arrivals) -> Array:
    """The identity of rows or ticks within their partition as one growing int64, shape (n,)."""
    return (rows["offset"].astype(np.int64) << _INDEX_BITS) + rows["index"]


def stages_of(rows: Mapping[str, Rows]) -> list[str]:
    """The stages of a block that have columns, in the order of the data."""
    return [stage for stage in STAGES if stage in rows]


def differing(ours: Rows, theirs: Rows, column: Column) -> Array:
    """Where two runs of rows of equal length differ in a column, by bits; every NaN is null."""
    one, other = ours[column.name], theirs[column.name]
    if one.tobytes() == other.tobytes() and column.kind != "symbol":
        return _NOWHERE  # almost always; the rest would cost ten times as much
    if column.kind == "float64":
        bits = np.ascontiguousarray(one).view(np.int64) != np.ascontiguousarray(other).view(
            np.int64
        )
        if bits.any():
            bits &= ~(np.isnan(one) & np.isnan(other))
        return np.flatnonzero(bits)
    if column.kind == "symbol" and not _same_words(ours.symbols, theirs.symbols):
        one, other = (np.array([*r.symbols, ""])[r[column.name]] for r in (ours, theirs))
    return np.flatnonzero(one != other)


def _same_words(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    n = min(len(ours), len(theirs))
    return ours is theirs or ours[:n] == theirs[:n]


def differences(whole: Rows, cut: Rows, kind: Kind, skip: Sequence[str] = ()) -> Iterator[Leak]:
    """For each column the first row in which a run that saw less differs from the whole one."""
    n = min(len(whole), len(cut))
    apart = np.flatnonzero(keys(whole)[:n] != keys(cut)[:n])
    if apart.size or len(whole) != len(cut):
        n = int(apart[0]) if apart.size else n
        yield _extra(whole, cut, n, kind)
        whole, cut = whole.take(slice(0, n)), cut.take(slice(0, n))
    if not n:
        return
    for column in COLUMNS[whole.stage]:
        if column.name in skip:
            continue
        wrong = differing(whole, cut, column)
        if wrong.size:
            at = int(wrong[0])
            values = spoken(whole, column, at), spoken(cut, column, at)
            yield replace(place_of(whole, at, kind, column.name), whole=values[0], cut=values[1])


def _extra(whole: Rows, cut: Rows, at: int, kind: Kind) -> Leak:
    """A row that one of two runs has and the other has not."""
    sides = [keys(rows)[at] if at < len(rows) else np.iinfo(np.int64).max for rows in (whole, cut)]
    if sides[0] <= sides[1]:
        return replace(place_of(whole, at, kind, WHOLE_ROW), whole="there", cut="missing")
    return replace(place_of(cut, at, kind, WHOLE_ROW), whole="missing", cut="there")


def place_of(rows: Rows, at: int, kind: Kind, column: str, detail: str = "") -> Leak:
    """A leak in this row, without values."""
    partition, offset, index, code, ts = (
        int(rows[name][at]) for name in ("partition", "offset", "index", "symbol", "ts")
    )
    symbol = rows.symbols[code] if 0 <= code < len(rows.symbols) else ""
    return Leak(kind, rows.stage, column, partition, offset, index, symbol, ts, detail=detail)
