"""The decoder of `prices` with the fast path for JSON ticks of the usual form."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from pipeline.kernels import scanning
from schemas.arrivals import FACTORS, FLOATS
from schemas.blocks import Array
from schemas.codec import Decoder
from schemas.times import to_ns

_BRACE: Final = 123
_FLOATS: Final = (*FLOATS, *FACTORS)


def scan(values: Sequence[bytes], index: dict[str, int]) -> tuple[dict[str, Array], Array]:
    """Ticks of JSON messages in columns, and how many each message has.

    A message that is not of the usual form has -1 and no ticks: the general decoder reads it.
    `index` gets the symbols.
    """
    joined = b"".join(values)
    text = np.frombuffer(joined, np.uint8)
    ends = np.array(list(accumulate(map(len, values))), np.int64)
    room = int(np.count_nonzero(text == _BRACE))  # a tick has a brace
    table = np.empty(1 << (2 * room + 8).bit_length(), np.int64)
    table.fill(-1)
    names = np.zeros((room + 1, 2), np.int64)
    floats = np.empty((scanning.FLOAT_KEYS, room))
    ints = np.empty((3, room), np.int64)
    codes = np.empty((3, room), np.int32)
    codes[2].fill(-1)
    counts = np.empty(len(values), np.int64)
    n = scanning.scan(text, ends, table, names, floats, ints, codes, counts)
    first = len(index)
    known = [
        index.setdefault(joined[start:stop].decode("ascii"), len(index))
        for start, stop in names[: names[-1, 0]].tolist()
    ]
    ts, received, ids = ints[:, :n]
    symbol, side, was = codes[:, :n]
    columns: dict[str, Array] = dict(zip(_FLOATS, floats[:, :n], strict=True))
    columns["symbol"] = np.array(known, np.int32)[symbol] if first and n else symbol
    columns["ts"] = to_ns(ts)
    columns["side"] = side
    columns["id"] = ids
    columns["was"] = was
    # Mostly it is in none of them.
    columns["recv_ts"] = to_ns(received) if np.count_nonzero(received) else received
    return columns, counts


def new_decoder(partition: int) -> Decoder:
    """A decoder of one partition's messages."""
    return Decoder(partition, scan)
