"""What a stage is: a pure step over blocks with a state that can be copied and restored."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from pipeline.errors import MisuseError
from schemas.arrivals import Arrivals, Gap, Reject
from schemas.blocks import IDENTITY, Array, Column, Rows, numbers_of

State = Mapping[str, Array]
HEAD: Final = (*(c.name for c in IDENTITY), "symbol", "ts", "known_at")
_LINE: Final = 64  # bytes of a cache line


class Block(Struct, frozen=True, eq=False):
    """One run of ticks of one partition on its way through the chain.

    Each stage adds its rows under its name. `at` says for each row of `bars` which tick (its
    position in the rows of `ticks`) triggered it; rows made by the end of a file have `at` = number
    of ticks. `after` is true where the trigger itself belongs to the bar (clocks `ticks`, `row`).
    `end_offset` is not negative in the last block of a file: one past the offset of its last tick.
    `gaps` are the runs of missing ids, in the order of arrival. `books` (bars, 2, BOOK) are what
    `kernels.fills` says of each bar before and after its fill, `filled_at` the time of it or -1.
    """

    arrivals: Arrivals
    rows: Mapping[str, Rows] = field(default_factory=dict)
    rejects: Sequence[Reject] = ()
    at: Array = field(default_factory=lambda: np.empty(0, np.int64))
    after: bool = False
    end_offset: int = -1
    gaps: Sequence[Gap] = ()
    books: Array = field(default_factory=lambda: np.empty((0, 0, 0)))
    filled_at: Array = field(default_factory=lambda: np.empty(0, np.int64))

    def plus(self, rows: Rows, **told: Any) -> "Block":
        """The block with one more stage's rows, and what else that stage tells."""
        return replace(self, rows={**self.rows, rows.stage: rows}, **told)


class Stage(Protocol):
    """A slice of the chain.

    `step` is a function of what it was given so far, whatever the split into blocks; it neither
    keeps nor changes its argument. `snapshot` returns copies; `restore` takes what it gave.
    """

    name: ClassVar[str]

    def step(self, block: Block) -> Block:
        """The block with this stage's rows added."""
        ...

    def snapshot(self) -> State:
        """The whole state as arrays by name."""
        ...

    def restore(self, state: State) -> None:
        """Continue from a snapshot, bit for bit."""
        ...

    def rename(self, old: int, new: int) -> None:
        """Move the state of one symbol to another; the old one starts anew."""
        ...


class PerSymbol(Stage):
    """A stage whose whole state is `_arrays`, each with a row for each symbol."""

    _arrays: dict[str, Array]

    def snapshot(self) -> State:
        """The arrays, copied."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def restore(self, state: State) -> None:
        """Continue from a snapshot."""
        self._arrays = {name: state[name].copy() for name in self._arrays}

    def rename(self, old: int, new: int) -> None:
        """Move the rows of one symbol to another."""
        moved(self._arrays, old, new)


def grown(array: Array, n: int, fill: float) -> Array:
    """The array with at least n rows (the first axis doubles), new rows filled."""
    have = array.shape[0]
    if n <= have:
        return array
    bigger = np.full((max(n, 2 * have, 8), *array.shape[1:]), fill, array.dtype)
    bigger[:have] = array
    return bigger


def grow(arrays: MutableMapping[str, Array], n: int) -> None:
    """Give every array at least n rows, new ones zero; they all have the same number of them."""
    if n > len(next(iter(arrays.values()))):
        for name, array in arrays.items():
            arrays[name] = grown(array, n, 0)


def moved(arrays: MutableMapping[str, Array], old: int, new: int, fill: float = 0) -> None:
    """Move row `old` of every array to row `new`, growing them if need be."""
    for name, array in arrays.items():
        big = grown(array, max(old, new) + 1, fill)
        big[new] = big[old]
        big[old] = fill
        arrays[name] = big


def joined(blocks: Sequence[Block], arrivals: Arrivals) -> Block:
    """The blocks of parts of a run as the block of the run."""
    rows = {}
    for stage, first in blocks[-1].rows.items():
        parts = [block.rows[stage].columns for block in blocks]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in first.columns}
        rows[stage] = Rows(stage, columns, first.symbols)
    starts = np.cumsum([0, *(len(block.rows["ticks"]) for block in blocks)])
    at = np.concatenate([block.at + start for block, start in zip(blocks, starts, strict=False)])
    rejects = [reject for block in blocks for reject in block.rejects]
    gaps = [gap for block in blocks for gap in block.gaps]
    books = np.concatenate([block.books for block in blocks])
    filled_at = np.concatenate([block.filled_at for block in blocks])
    return replace(
        blocks[-1], arrivals=arrivals, rows=rows, rejects=rejects, at=at, gaps=gaps, books=books,
        filled_at=filled_at,
    )  # fmt: skip


def room(columns: int, n: int, dtype: Any = np.float64) -> Array:
    """An array (columns, n or more) for a kernel to fill; its columns become those of the rows.

    They lie an odd number of cache lines apart: what is written together for a row would fall on
    few sets of the cache at an even distance.
    """
    items = _LINE // np.dtype(dtype).itemsize
    return np.empty((columns, items * ((n // items + 1) | 1)), dtype)


def cut(table: Array, n: int) -> Array:
    """The first n of each column of a `room`; a copy if rows would keep much else in memory."""
    return table[..., :n] if 4 * n + _LINE >= table.shape[-1] else table[..., :n].copy()


def numbers_named(names: Sequence[str], of: str = "") -> list[Column]:
    """Columns of numbers of bars and features by their names; `of` begins the message.

    Raises:
        MisuseError: there is none of a name.
    """
    known = numbers_of("bars", "features")
    for name in names:
        if name not in known:
            raise MisuseError(f"{of}bars and features have no column of numbers {name}")
    return [known[name] for name in names]


def beside(values: Array, n: int) -> Array:
    """What another stage gave for n bars, one value each; nulls if it gave more or fewer.

    Compiled loops look at no length: they would read what lies behind the end.
    """
    if len(values) == n:
        return values
    null = np.nan if values.dtype.kind == "f" else -1
    return np.full((n, *values.shape[1:]), null, values.dtype)


def head(rows: Rows) -> dict[str, Array]:
    """Identity, symbol and times of rows: the columns that the next stage takes over."""
    columns = rows.columns
    return {name: columns[name] for name in HEAD}
