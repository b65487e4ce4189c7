"""Binary COPY of a stage's rows, built by numpy: one structured array with big-endian fields."""

from datetime import date
from functools import lru_cache
from typing import Any, Final

import numpy as np

from pipeline.kernels.packing import squeeze
from schemas.blocks import COLUMNS, Array, Column, Rows

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"
_EPOCH: Final = date(2000, 1, 1)
_FORMATS: Final = {"int64": ">i8", "int32": ">i4", "float64": ">f8"}
_DAY: Final = "written_on"


def copy_columns(stage: str) -> list[str]:
    """The columns of the table that COPY fills, in order."""
    return [*(column.name for column in COLUMNS[stage]), _DAY]


class _Words:
    """Texts by code as fixed-width bytes with their lengths; code -1 is null."""

    def __init__(self, words: tuple[str, ...]) -> None:
        encoded = [word.encode() for word in words] + [b""]
        self.width = max(1, *(len(word) for word in encoded))
        self.bytes = np.array(encoded, f"S{self.width}")
        self.lengths = np.array([*(len(word) for word in encoded[:-1]), -1], ">i4")


@lru_cache(maxsize=64)
def _words(words: tuple[str, ...]) -> _Words:
    return _Words(words)


def _length(name: str) -> str:
    return f"{name} length"


@lru_cache(maxsize=64)
def _layout(stage: str, widths: tuple[int, ...]) -> tuple[np.dtype[Any], Array]:
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    text = iter(widths)
    for column in COLUMNS[stage]:
        spec = _FORMATS.get(column.kind) or f"S{next(text)}"
        fields += [(_length(column.name), ">i4"), (column.name, spec)]
    fields += [(_length(_DAY), ">i4"), (_DAY, ">i4")]
    dtype = np.dtype(fields)
    offsets = {} if dtype.fields is None else {name: at[1] for name, at in dtype.fields.items()}
    places = [offsets[_length(name)] for name in copy_columns(stage)]
    return dtype, np.array(places, np.int64)


def _texts(column: Column, rows: Rows) -> _Words:
    return _words(tuple(rows.symbols) if column.kind == "symbol" else column.labels)


def copy_bytes(rows: Rows, written_on: date) -> bytes:
    """Rows as binary COPY for `copy_columns(rows.stage)`, to stand between HEADER and TRAILER."""
    if not len(rows):
        return b""
    columns = COLUMNS[rows.stage]
    texts = {c.name: _texts(c, rows) for c in columns if c.kind in {"symbol", "label"}}
    dtype, places = _layout(rows.stage, tuple(words.width for words in texts.values()))
    packed = np.empty(len(rows), dtype)
    packed["fields"] = len(columns) + 1
    for column in columns:
        values = rows[column.name]
        length = _length(column.name)
        if column.name in texts:
            words = texts[column.name]
            packed[column.name] = words.bytes[values]
            packed[length] = words.lengths[values]
        else:
            packed[column.name] = values
            size = values.dtype.itemsize
            packed[length] = np.where(values != values, -1, size)  # noqa: PLR0124 -- NaN is null
    packed[_length(_DAY)] = 4
    packed[_DAY] = (written_on - _EPOCH).days
    raw = packed.view(np.uint8).reshape(len(rows), dtype.itemsize)
    out = np.empty(raw.size, np.uint8)
    used = squeeze(raw, places, out)
    return out[:used].tobytes()
