"""Rows as JSON documents, one after another.

Texts of doubles come from outside: the shortest one that reads back the same is an art of its own.
"""

from typing import Final

import numpy as np

from pipeline.kernels.columns import FLOAT8, INT8, TEXT
from pipeline.kernels.hot import loop, piece, rare
from schemas.blocks import Array
from schemas.times import DAY

LONGEST_INTEGER: Final = 20
TIME: Final = b'"0000-00-00T00:00:00.000000000Z"}'  # the last member's value and the end
_LENGTH: Final = len(TIME)
_NULL: Final = 0x6C6C756E  # "null", the first letter lowest
_ZERO, _DASH, _DOT, _COMMA, _BRACKET = 48, 45, 46, 44, 93


@rare
def _copied(out: Array, at: int, text: Array, start: int, stop: int) -> int:
    """Write a piece of a text; one past it."""
    for b in range(start, stop):
        out[at] = text[b]
        at += 1
    return at


@piece
def _integer(out: Array, at: int, value: int) -> int:
    """Write an integer; one past it."""
    size = np.uint64(value)
    if value < 0:
        out[at] = _DASH
        at += 1
        size = np.uint64(0) - size
    count = 1
    rest = size // np.uint64(10)
    while rest > np.uint64(0):
        count += 1
        rest //= np.uint64(10)
    for b in range(at + count - 1, at - 1, -1):
        out[b] = np.uint64(_ZERO) + size % np.uint64(10)
        size //= np.uint64(10)
    return at + count


@piece
def _seconds(nanos: int) -> int:
    """A time as a number of 14 digits: year, month, day, hours, minutes, seconds in UTC."""
    days = nanos // DAY
    rest = (nanos - days * DAY) // 1_000_000_000
    # Howard Hinnant's civil_from_days: years begin in March, so that the odd day is the last.
    shifted = days + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    year += era * 400 + (1 if month <= 2 else 0)
    clock = rest // 3_600 * 10_000 + rest // 60 % 60 * 100 + rest % 60
    return (year * 10_000 + month * 100 + day) * 1_000_000 + clock


@piece
def _fill(out: Array, end: int, nanos: int) -> None:
    """Write the digits of a time into TIME before `end`."""
    value = nanos % 1_000_000_000
    for b in range(end - 1, end - _LENGTH, -1):
        if out[b] == _ZERO:
            out[b] = _ZERO + value % 10
            value //= 10
        elif out[b] == _DOT:
            value = _seconds(nanos)


@loop
def documents(
    longs: Array, ints: Array, plan: Array, ends: Array, text: Array, key_ends: Array,
    key_text: Array, doubles: Array, time: int, out: Array, stops: Array,
) -> int:  # fmt: skip
    """Write rows as JSON objects.

    Args:
        longs: int64 columns; see `columns.gathered`, also of ints.
        ints: int32, integers and codes of texts.
        plan: int64 (columns, 4), see `columns.Plan`.
        ends: int64, see `columns.Words`: of texts with their quotes.
        text: uint8.
        key_ends: int64, of what stands before the values, and of the last member with TIME.
        key_text: uint8.
        doubles: uint8, a JSON array of all doubles, row by row.
        time: place of `ts` among the columns of its dtype: the value of the last member.
        out: uint8, filled.
        stops: int64 (n,), filled: one past the last byte of each row.

    Returns:
        The bytes written; -1 when a code has no word.
    """
    n = len(stops)
    columns = plan.shape[0]
    at = 0
    double = 1
    for i in range(n):
        for j in range(columns + 1):
            at = _copied(out, at, key_text, key_ends[j], key_ends[j + 1])
            if j == columns:
                break
            kind = plan[j, 0]
            place = plan[j, 1] * n + i
            if kind == FLOAT8:
                while doubles[double] != _COMMA and doubles[double] != _BRACKET:
                    out[at] = doubles[double]
                    at += 1
                    double += 1
                double += 1
            elif kind != TEXT:
                at = _integer(out, at, longs[place] if kind == INT8 else ints[place])
            elif ints[place] < 0:
                for b in range(4):
                    out[at + b] = (_NULL >> (8 * b)) & 255
                at += 4
            else:
                word = plan[j, 2] + ints[place]
                if word >= plan[j, 3] and (plan[j, 3] >= 0 or word >= len(ends) - 1):
                    return -1
                at = _copied(out, at, text, ends[word], ends[word + 1])
        _fill(out, at, longs[time * n + i])
        stops[i] = at
    return at
