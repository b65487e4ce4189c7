"""The Arrow IPC stream of one record batch: numbers into its head, the body behind it.

The head is what pyarrow writes for other rows of the stage: a schema, and the metadata of a batch.
Of the latter only numbers depend on the rows, and they stand in places of their own. All lengths
there are multiples of 8 bytes, as every buffer of the body is padded to 8: so we count in words.
"""

from typing import Final

from pipeline.kernels.columns import FLOAT8, INT4, INT8, TEXT, is_nan
from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

# Places of numbers in the head: rows, bytes of the body, first of nodes and of buffers.
LENGTH, BODY, NODES, BUFFERS = range(4)
_END: Final = 0xFFFFFFFF  # the mark of a message, and that it has no bytes


@piece
def _node(words: Array, at: int, first: int, second: int) -> int:
    """Write a pair of numbers of the head; one past it."""
    words[at] = first
    words[at + 1] = second
    return at + 2


@piece
def _valid_doubles(words: Array, at: int, doubles: Array, first: int, n: int) -> int:
    """Write a bit for each double, 1 unless it is NaN; how many are."""
    valid = 0
    for start in range(0, n, 64):
        bits = 0
        for i in range(start, min(start + 64, n)):
            good = 0 if is_nan(doubles[first + i]) else 1
            bits |= good << (i - start)
            valid += good
        words[at + start // 64] = bits
    return n - valid


@piece
def _valid_codes(words: Array, at: int, codes: Array, first: int, n: int) -> int:
    """Write a bit for each code, 1 unless it is negative; how many are."""
    valid = 0
    for start in range(0, n, 64):
        bits = 0
        for i in range(start, min(start + 64, n)):
            good = 1 if codes[first + i] >= 0 else 0
            bits |= good << (i - start)
            valid += good
        words[at + start // 64] = bits
    return n - valid


@piece
def _texts(
    halves: Array, out: Array, at: int, codes: Array, first: int, n: int, ends: Array, text: Array,
    low: int, high: int,
) -> int:  # fmt: skip
    """Write where each text ends and the texts, of words from low to high; their bytes, or -1."""
    begin = 8 * (at + (n + 2) // 2)
    used = 0
    halves[2 * at] = 0
    for i in range(n):
        if codes[first + i] >= 0:
            word = low + codes[first + i]
            if word >= high:
                return -1
            for b in range(ends[word], ends[word + 1]):
                out[begin + used] = text[b]
                used += 1
        halves[2 * at + i + 1] = used
    if n % 2 == 0:
        halves[2 * at + n + 1] = 0
    for b in range(begin + used, begin + (used + 7) // 8 * 8):
        out[b] = 0
    return used


@loop
def stream(
    n: int, doubles: Array, longs: Array, ints: Array, plan: Array, ends: Array, text: Array,
    head: Array, places: Array, words: Array, halves: Array, out: Array,
) -> int:  # fmt: skip
    """Write a stream of n rows.

    Args:
        n: number of rows, at least 1.
        doubles: int64, the bits of the float64 columns; see `columns.gathered`, also of the others.
        longs: int64 columns.
        ints: int32, integers and codes of texts.
        plan: int64 (columns, 4), see `columns.Plan`.
        ends: int64, see `columns.Words`.
        text: uint8.
        head: int64, the stream before the body.
        places: int64 (4,), where numbers of the head are: LENGTH, BODY, NODES, BUFFERS.
        words: int64, filled.
        halves: int32, the same memory.
        out: uint8, the same memory.

    Returns:
        The words of 8 bytes that were written; -1 when a code has no word.
    """
    start = at = len(head)
    for i in range(start):
        words[i] = head[i]
    node, buffer = places[NODES], places[BUFFERS]
    for j in range(plan.shape[0]):
        kind = plan[j, 0]
        first = plan[j, 1] * n
        nulls = 0
        if kind == FLOAT8:
            nulls = _valid_doubles(words, at, doubles, first, n)
        elif kind == TEXT:
            nulls = _valid_codes(words, at, ints, first, n)
        node = _node(words, node, n, nulls)
        # Without nulls there are no bits: the values that follow are longer and take their place.
        buffer = _node(words, buffer, 8 * (at - start), (n + 7) // 8 if nulls else 0)
        at += (n + 63) // 64 if nulls else 0
        if kind == FLOAT8:
            for i in range(n):
                words[at + i] = doubles[first + i]
            buffer = _node(words, buffer, 8 * (at - start), 8 * n)
            at += n
        elif kind == INT8:
            for i in range(n):
                words[at + i] = longs[first + i]
            buffer = _node(words, buffer, 8 * (at - start), 8 * n)
            at += n
        elif kind == INT4:
            for i in range(n):
                halves[2 * at + i] = ints[first + i]
            if n % 2:
                halves[2 * at + n] = 0
            buffer = _node(words, buffer, 8 * (at - start), 4 * n)
            at += (n + 1) // 2
        else:
            high = plan[j, 3] if plan[j, 3] >= 0 else len(ends) - 1
            used = _texts(halves, out, at, ints, first, n, ends, text, plan[j, 2], high)
            if used < 0:
                return -1
            buffer = _node(words, buffer, 8 * (at - start), 4 * (n + 1))
            at += (n + 2) // 2
            buffer = _node(words, buffer, 8 * (at - start), used)
            at += (used + 7) // 8
    words[places[LENGTH]] = n
    words[places[BODY]] = 8 * (at - start)
    words[at] = _END
    return at + 1
