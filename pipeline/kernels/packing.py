"""Rows of Postgres' binary COPY from columns."""

from typing import Final

import numpy as np

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

FLOAT8, INT8, INT4, TEXT = range(4)
_NULL: Final = -1


@piece
def _four(out: Array, at: int, value: int) -> int:
    """Write a big-endian int32; one past it."""
    out[at] = (value >> 24) & 255
    out[at + 1] = (value >> 16) & 255
    out[at + 2] = (value >> 8) & 255
    out[at + 3] = value & 255
    return at + 4


@piece
def _eight(out: Array, at: int, value: int) -> int:
    """Write a big-endian int64 with its length before it; one past it."""
    at = _four(out, at, 8)
    return _four(out, _four(out, at, value >> 32), value)


@loop
def pack(
    values: Array, kinds: Array, first_word: Array, word_ends: Array, text: Array, day: int,
    out: Array,
) -> int:  # fmt: skip
    """Write rows, each a count of fields and fields of a length and bytes; the bytes written.

    Args:
        values: int64 (columns, n): integers, the bits of doubles, codes of texts.
        kinds: int64 (columns,): FLOAT8 (NaN is null), INT8, INT4 or TEXT (a negative code is null).
        first_word: int64 (columns,), the word of code 0 of a TEXT column.
        word_ends: int64 (words + 1,), one past the last byte of the word before; 0 first.
        text: uint8, all words.
        day: the last field of every row, an int4.
        out: uint8, filled.
    """
    columns, n = values.shape
    at = 0
    for i in range(n):
        out[at] = ((columns + 1) >> 8) & 255
        out[at + 1] = (columns + 1) & 255
        at += 2
        for j in range(columns):
            kind = kinds[j]
            value = values[j, i]
            if kind == FLOAT8:
                # NaN: all bits of the exponent and one more.
                if value & np.int64(0x7FFFFFFFFFFFFFFF) > np.int64(0x7FF0000000000000):
                    at = _four(out, at, _NULL)
                else:
                    at = _eight(out, at, value)
            elif kind == INT8:
                at = _eight(out, at, value)
            elif kind == INT4:
                at = _four(out, _four(out, at, 4), value)
            elif value < 0:
                at = _four(out, at, _NULL)
            else:
                word = first_word[j] + value
                start, stop = word_ends[word], word_ends[word + 1]
                at = _four(out, at, stop - start)
                for b in range(start, stop):
                    out[at] = text[b]
                    at += 1
        at = _four(out, _four(out, at, 4), day)
    return at
