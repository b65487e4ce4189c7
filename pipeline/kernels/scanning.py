"""JSON ticks of the usual form, bytes to columns in one pass; whatever is unusual is left alone.

Usual is: an object or an array of objects with known keys, each once; texts of printable ASCII
without escapes; times and ids as integers; numbers whose digits a double holds exactly: then
mantissa and power of ten are both exact, and one multiplication or division rounds as a correct
parser does (Clinger 1990). A message that has anything else in it is reported and goes to the
general decoder, whose verdict alone counts.
"""

from typing import Final

import numpy as np

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

# Keys in the order of their columns: the floats, then the others.
KEYS: Final = (
    *("price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low"),
    *("factor", "volume_factor"),
    *("ts", "recv_ts", "id", "symbol", "side"),
)
FLOAT_KEYS: Final = 11
TS, RECV_TS, ID, SYMBOL, SIDE = range(FLOAT_KEYS, FLOAT_KEYS + 5)
_REQUIRED: Final = 1 | 1 << TS | 1 << SYMBOL
UNUSUAL: Final = -1
NO_ID: Final = -1

_ROOM: Final = (2**63 - 10) // 10  # a number up to this can take one more digit
_EXACT: Final = 2**53
_POWER: Final = 22
_POWERS: Final = np.array([10.0**i for i in range(_POWER + 1)])


def _word(text: bytes) -> int:
    """Up to eight bytes as a little-endian number."""
    return int.from_bytes(text.ljust(8, b"\0"), "little", signed=True)


_WORDS: Final = np.array(
    [[len(key), _word(key.encode()[:8]), _word(key.encode()[8:])] for key in KEYS], np.int64
)


@piece
def _space(text: Array, p: int, end: int) -> int:
    while p < end and (text[p] == 32 or text[p] == 10 or text[p] == 13 or text[p] == 9):
        p += 1
    return p


@piece
def _string(text: Array, p: int, end: int) -> int:
    """One past the last character of the text whose first is at p; UNUSUAL with escapes in it."""
    while p < end and text[p] != 34:
        if text[p] < 32 or text[p] > 126 or text[p] == 92:
            return UNUSUAL
        p += 1
    return p if p < end else UNUSUAL


@piece
def _key(text: Array, start: int, stop: int) -> int:
    first = np.int64(0)
    second = np.int64(0)
    for i in range(start, min(stop, start + 8)):
        first |= np.int64(text[i]) << (8 * (i - start))
    for i in range(start + 8, min(stop, start + 16)):
        second |= np.int64(text[i]) << (8 * (i - start - 8))
    for key in range(_WORDS.shape[0]):
        if _WORDS[key, 0] == stop - start and _WORDS[key, 1] == first and _WORDS[key, 2] == second:
            return key
    return UNUSUAL


@piece
def _digit(text: Array, p: int, end: int) -> bool:
    return p < end and 48 <= text[p] <= 57


@piece
def _number(text: Array, p: int, end: int) -> tuple[int, int, int, bool, bool]:
    """The number at p: one past it, digits, power of ten, whether negative, whether an integer."""
    negative = p < end and text[p] == 45
    if negative:
        p += 1
    m = int(np.int64(0))
    power = 0
    if not _digit(text, p, end):
        return UNUSUAL, m, 0, negative, False
    if text[p] == 48:
        p += 1
        if _digit(text, p, end):  # no number begins with 0 and a digit
            return UNUSUAL, m, 0, negative, False
    while _digit(text, p, end):
        if m > _ROOM:
            return UNUSUAL, m, 0, negative, False
        m = m * 10 + (text[p] - 48)
        p += 1
    whole = True
    if p < end and text[p] == 46:
        whole = False
        p += 1
        if not _digit(text, p, end):
            return UNUSUAL, m, 0, negative, False
        while _digit(text, p, end):
            if m > _ROOM:
                return UNUSUAL, m, 0, negative, False
            m = m * 10 + (text[p] - 48)
            power -= 1
            p += 1
    if p < end and (text[p] == 101 or text[p] == 69):
        whole = False
        p += 1
        down = p < end and text[p] == 45
        if p < end and (text[p] == 45 or text[p] == 43):
            p += 1
        if not _digit(text, p, end):
            return UNUSUAL, m, 0, negative, False
        e = 0
        while _digit(text, p, end):
            e = e * 10 + (text[p] - 48)
            p += 1
            if e > 1000:
                return UNUSUAL, m, 0, negative, False
        power += -e if down else e
    if negative and m == 0:
        return UNUSUAL, m, 0, negative, False
    return p, m, power, negative, whole


@piece
def _null(text: Array, p: int, end: int) -> bool:
    return (
        p + 4 <= end
        and text[p] == 110
        and text[p + 1] == 117
        and text[p + 2] == 108
        and text[p + 3] == 108
    )


@piece
def _side(text: Array, start: int, stop: int) -> int:
    if (
        stop - start == 3
        and text[start] == 98
        and text[start + 1] == 117
        and text[start + 2] == 121
    ):
        return 0
    if (
        stop - start == 4
        and text[start] == 115
        and text[start + 1] == 101
        and text[start + 2] == 108
        and text[start + 3] == 108
    ):
        return 1
    return UNUSUAL


@piece
def _code(text: Array, start: int, stop: int, table: Array, names: Array) -> int:
    """The number of the symbol text[start:stop], a new one for a new symbol.

    `table` int64 (a power of two,), -1 where free; `names` int64 (room, 2), where each symbol was
    first seen, the count of them in its last row.
    """
    mask = table.shape[0] - 1
    h = np.uint64(14695981039346656037)
    for i in range(start, stop):
        h = (h ^ np.uint64(text[i])) * np.uint64(1099511628211)
    slot = np.int64((h ^ (h >> np.uint64(29))) & np.uint64(mask))
    while table[slot] >= 0:
        code = table[slot]
        a = names[code, 0]
        if names[code, 1] - a == stop - start:
            same = True
            for i in range(stop - start):
                if text[a + i] != text[start + i]:
                    same = False
                    break
            if same:
                return int(code)
        slot = (slot + 1) & mask
    count = names[-1, 0]
    table[slot] = count
    names[count, 0] = start
    names[count, 1] = stop
    names[-1, 0] = count + 1
    return int(count)


@piece
def _object(
    text: Array,
    p: int,
    end: int,
    table: Array,
    names: Array,
    floats: Array,
    ints: Array,
    codes: Array,
    row: int,
) -> int:
    """Read the object whose brace is before p into a row; one past its closing brace."""
    for j in range(FLOAT_KEYS):
        floats[j, row] = np.nan
    ints[0, row] = 0
    ints[1, row] = 0
    ints[2, row] = NO_ID
    codes[1, row] = -1
    seen = 0
    while True:
        p = _space(text, p, end)
        if p >= end or text[p] != 34:
            return UNUSUAL
        stop = _string(text, p + 1, end)
        if stop < 0:
            return UNUSUAL
        key = _key(text, p + 1, stop)
        if key < 0 or seen & (1 << key):
            return UNUSUAL
        seen |= 1 << key
        p = _space(text, stop + 1, end)
        if p >= end or text[p] != 58:
            return UNUSUAL
        p = _space(text, p + 1, end)
        if key >= SYMBOL:
            if key == SIDE and _null(text, p, end):
                p += 4
            else:
                if p >= end or text[p] != 34:
                    return UNUSUAL
                stop = _string(text, p + 1, end)
                if stop < 0:
                    return UNUSUAL
                if key == SYMBOL:
                    codes[0, row] = _code(text, p + 1, stop, table, names)
                else:
                    codes[1, row] = _side(text, p + 1, stop)
                    if codes[1, row] < 0:
                        return UNUSUAL
                p = stop + 1
        elif 0 < key != TS and _null(text, p, end):
            p += 4
        else:
            p, m, power, negative, whole = _number(text, p, end)
            if p < 0:
                return UNUSUAL
            if key >= TS:
                if not whole:
                    return UNUSUAL
                ints[key - TS, row] = -m if negative else m
            else:
                if m > _EXACT or power > _POWER or power < -_POWER:
                    return UNUSUAL
                x = float(m)
                x = x * _POWERS[power] if power >= 0 else x / _POWERS[-power]
                floats[key, row] = -x if negative else x
        p = _space(text, p, end)
        if p >= end:
            return UNUSUAL
        if text[p] == 125:
            break
        if text[p] != 44:
            return UNUSUAL
        p += 1
    return p + 1 if seen & _REQUIRED == _REQUIRED else UNUSUAL


@piece
def _message(
    text: Array,
    p: int,
    end: int,
    table: Array,
    names: Array,
    floats: Array,
    ints: Array,
    codes: Array,
    row: int,
) -> int:
    """Read a message into rows from `row` on; the next free row, or UNUSUAL."""
    p = _space(text, p, end)
    if p >= end:
        return UNUSUAL
    many = text[p] == 91
    if many:
        p = _space(text, p + 1, end)
        if p < end and text[p] == 93:
            return row if _space(text, p + 1, end) == end else UNUSUAL
    while True:
        if p >= end or text[p] != 123:
            return UNUSUAL
        p = _object(text, p + 1, end, table, names, floats, ints, codes, row)
        if p < 0:
            return UNUSUAL
        row += 1
        p = _space(text, p, end)
        if not many:
            return row if p == end else UNUSUAL
        if p < end and text[p] == 93:
            return row if _space(text, p + 1, end) == end else UNUSUAL
        if p >= end or text[p] != 44:
            return UNUSUAL
        p = _space(text, p + 1, end)


@loop
def scan(
    text: Array,
    ends: Array,
    table: Array,
    names: Array,
    floats: Array,
    ints: Array,
    codes: Array,
    counts: Array,
) -> int:
    """Read messages that stand one after another; the number of ticks read.

    Args:
        text: uint8, all messages.
        ends: int64 (m,), one past the last byte of each.
        table: int64 (a power of two above the number of ticks,), -1; scratch.
        names: int64 (ticks + 1, 2), 0; gets where each symbol was first seen, by its code.
        floats: float64 (FLOAT_KEYS, ticks or more), filled, NaN where missing.
        ints: int64 (3, ticks or more), filled: ts, recv_ts (0 missing), id (NO_ID missing).
        codes: int32 (2, ticks or more), filled: symbol, side (-1 missing).
        counts: int64 (m,), filled: ticks of each message, or UNUSUAL.
    """
    row = int(np.int64(0))
    start = int(np.int64(0))
    for i in range(ends.shape[0]):
        after = _message(text, start, ends[i], table, names, floats, ints, codes, row)
        counts[i] = after - row if after >= 0 else UNUSUAL
        if after >= 0:
            row = after
        start = ends[i]
    return row
