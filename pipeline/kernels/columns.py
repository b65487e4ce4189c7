"""Rows as kernels that write them take them: columns of one dtype in one array, words by code.

A call with each column by itself would cost more than what is to be written of a small batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Final

import numpy as np

from pipeline.kernels.hot import piece
from schemas.blocks import COLUMNS, Array, Kind, Rows, dtype_of, per_stage

FLOAT8, INT8, INT4, TEXT = range(4)
_KINDS: Final[Mapping[Kind, int]] = {
    "int64": INT8, "int32": INT4, "float64": FLOAT8, "symbol": TEXT, "label": TEXT
}  # fmt: skip
_OPEN: Final = -1  # symbols come after the labels, any number of them
_MOST: Final = 1024  # words remembered: of each stage of each partition

_Encode = Callable[[str], bytes]
_known: Final[dict[tuple[int, str, int, _Encode], tuple[Sequence[str], "Words"]]] = {}
_Picked = Callable[[Mapping[str, Array]], tuple[Array, ...]]


@per_stage
def _plan_of(stage: str) -> "Plan":
    columns = COLUMNS[stage]
    labels = tuple(label for column in columns for label in column.labels)
    names: dict[np.dtype[Any], list[str]] = {}
    first = 0
    table = []
    for column in columns:
        group = names.setdefault(dtype_of(column), [])
        last = first + len(column.labels)
        words = (len(labels), _OPEN) if column.kind == "symbol" else (first, last)
        table.append((_KINDS[column.kind], len(group), *words))
        group.append(column.name)
        first = last
    # Several names each, or a getter would give no tuple: identity alone has enough of integers.
    doubles, longs, ints = (
        itemgetter(*names[np.dtype(kind)]) for kind in (np.float64, np.int64, np.int32)
    )
    return Plan(np.array(table, np.int64), labels, doubles, longs, ints)


def plan_of(stage: str) -> "Plan":
    """What is the same for all rows of a stage."""
    return _plan_of(stage)


def encoded(texts: Iterable[str], encode: _Encode = str.encode) -> "Words":
    """Texts as bytes, one after another."""
    words = [encode(text) for text in texts]
    ends = np.cumsum([0, *map(len, words)], dtype=np.int64)
    # A kernel is compiled once more for an array that cannot be written: hence no bytes.
    text = np.frombuffer(bytearray().join(words), np.uint8)
    return Words(ends, text, max(map(len, words), default=0))


@cache
def _labels_of(labels: tuple[str, ...], encode: _Encode) -> "Words":
    return encoded(labels, encode)


def words_of(rows: Rows, encode: _Encode = str.encode) -> "Words":
    """All labels of a stage and the symbols of its rows.

    Kept, as the same list of symbols comes with every batch. It may grow; what is in it stays in
    its place, as codes rest on that.
    """
    symbols, plan = rows.symbols, plan_of(rows.stage)
    key = id(symbols), rows.stage, len(plan.table), encode
    held, words = _known.get(key, ((), None))
    if words is None or held is not symbols:
        words = _labels_of(plan.labels, encode)
    known = len(words.ends) - 1 - len(plan.labels)
    if known < len(symbols):
        words = words.plus(encoded(symbols[known:], encode))
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = symbols, words  # with the list itself, or another may get its id
    return words


def gathered(rows: Rows) -> tuple[Array, Array, Array]:
    """The columns of each dtype after one another, contiguous, in the order of the plan.

    Returns:
        int64 (float64 columns * n,), the bits of doubles; int64 (int64 columns * n,); int32 (others
        * n,): integers and codes.
    """
    plan, columns = plan_of(rows.stage), rows.columns
    doubles = np.concatenate(plan.doubles(columns), dtype=np.float64)
    longs = np.concatenate(plan.longs(columns), dtype=np.int64)
    return doubles.view(np.int64), longs, np.concatenate(plan.ints(columns), dtype=np.int32)


@piece
def is_nan(bits: int) -> bool:
    """Whether the bits of a double are NaN: all bits of the exponent and one more."""
    return (bits & 0x7FFFFFFFFFFFFFFF) > 0x7FF0000000000000


@dataclass(frozen=True, slots=True)
class Words:
    """Texts by code.

    Args:
        ends: int64 (words + 1,), one past the last byte of the word before; 0 first.
        text: uint8, all words.
        longest: bytes of the longest.
    """

    ends: Array
    text: Array
    longest: int

    def plus(self, more: "Words") -> "Words":
        """These words and more after them."""
        ends = np.concatenate([self.ends, more.ends[1:] + self.ends[-1]])
        text = np.concatenate([self.text, more.text])
        return Words(ends, text, max(self.longest, more.longest))


@dataclass(frozen=True, slots=True)
class Plan:
    """How the columns of a stage are written.

    Args:
        table: int64 (columns, 4): FLOAT8 (NaN is null), INT8, INT4 or TEXT (a negative code is
            null); place among the columns of its dtype; of texts the word of code 0, and one past
            the last word, -1 of symbols: they are the last words.
        labels: of all columns.
        doubles, longs, ints: pick the columns of each dtype.
    """

    table: Array
    labels: tuple[str, ...]
    doubles: _Picked
    longs: _Picked
    ints: _Picked
