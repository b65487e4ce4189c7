"""Binary COPY of a stage's rows, written by one kernel from the columns as they stand."""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final

import numpy as np

from pipeline.kernels.packing import FLOAT8, INT4, INT8, TEXT, pack
from schemas.blocks import COLUMNS, Array, Rows, present

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"
_EPOCH: Final = date(2000, 1, 1)
_KINDS: Final = {"int64": INT8, "int32": INT4, "float64": FLOAT8, "symbol": TEXT, "label": TEXT}
_WIDTHS: Final = {FLOAT8: 12, INT8: 12, INT4: 8, TEXT: 4}  # with the length, without the text
_DAY: Final = "written_on"


def copy_columns(stage: str) -> list[str]:
    """The columns of the table that COPY fills, in order."""
    return [*(column.name for column in COLUMNS[stage]), _DAY]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is the same for all rows of a stage; words of labels, places of the symbol column."""

    kinds: Array
    first_word: Array
    words: tuple[bytes, ...]
    width: int  # of a row without its symbols
    symbols: tuple[int, ...]


@lru_cache(maxsize=64)
def _plan(stage: str, _count: int) -> _Plan:  # a stage's columns only grow
    columns = COLUMNS[stage]
    kinds = [_KINDS[column.kind] for column in columns]
    words: list[bytes] = []
    first = np.zeros(len(columns), np.int64)
    width = 2 + 8 + sum(_WIDTHS[kind] for kind in kinds)
    for j, column in enumerate(columns):
        first[j] = len(words)
        labels = [label.encode() for label in column.labels]
        words += labels
        width += max(map(len, labels), default=0)
    places = tuple(j for j, column in enumerate(columns) if column.kind == "symbol")
    return _Plan(np.array(kinds, np.int64), first, tuple(words), width, places)


def copy_bytes(rows: Rows, written_on: date) -> bytes:
    """Rows as binary COPY for `copy_columns(rows.stage)`, to stand between HEADER and TRAILER."""
    n = len(rows)
    if not n:
        return b""
    columns = COLUMNS[rows.stage]
    plan = _plan(rows.stage, len(columns))
    values = np.empty((len(columns), n), np.int64)
    doubles = values.view(np.float64)
    for j, column in enumerate(columns):
        (doubles if column.kind == "float64" else values)[j] = rows[column.name]
    words, first_word, width = [*plan.words], plan.first_word.copy(), plan.width
    for j in plan.symbols:
        values[j], names = present(values[j], rows.symbols)
        own = [name.encode() for name in names]
        first_word[j] = len(words)
        words += own
        width += max(map(len, own))
    ends = np.cumsum([0, *map(len, words)], dtype=np.int64)
    text = np.frombuffer(b"".join(words) or b"\0", np.uint8)
    out = np.empty(n * width, np.uint8)
    day = (written_on - _EPOCH).days
    used = pack(values, plan.kinds, first_word, ends, text, day, out)
    return out[:used].tobytes()
