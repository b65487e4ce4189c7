"""The decoder of `prices` with the fast path for JSON ticks of the usual form."""

from collections.abc import Sequence

import numpy as np

from pipeline.kernels import scanning
from schemas.arrivals import FACTORS, FLOATS
from schemas.blocks import Array
from schemas.codec import Decoder
from schemas.times import to_ns

_BRACE = 123


def scan(values: Sequence[bytes], index: dict[str, int]) -> tuple[dict[str, Array], Array]:
    """Ticks of JSON messages in columns, and how many each message has.

    A message that is not of the usual form has -1 and no ticks: the general decoder reads it.
    `index` gets the symbols.
    """
    text = np.frombuffer(b"".join(values), np.uint8)
    ends = np.cumsum([len(value) for value in values], dtype=np.int64)
    room = int(np.count_nonzero(text == _BRACE))  # a tick has a brace
    table = np.full(1 << (2 * room + 8).bit_length(), -1, np.int64)
    names = np.zeros((room + 1, 2), np.int64)
    floats = np.empty((scanning.FLOAT_KEYS, room))
    ints = np.empty((3, room), np.int64)
    codes = np.empty((2, room), np.int32)
    counts = np.empty(len(values), np.int64)
    n = scanning.scan(text, ends, table, names, floats, ints, codes, counts)
    columns: dict[str, Array] = dict(zip((*FLOATS, *FACTORS), floats[:, :n], strict=True))
    known = [
        index.setdefault(text[start:stop].tobytes().decode("ascii"), len(index))
        for start, stop in names[: names[-1, 0] if room else 0].tolist()
    ]
    columns["symbol"] = np.array(known, np.int32)[codes[0, :n]] if n else codes[0, :0]
    columns["ts"] = to_ns(ints[0, :n])
    columns["side"] = codes[1, :n]
    columns["id"] = ints[2, :n]
    columns["was"] = np.full(n, -1, np.int32)
    columns["recv_ts"] = to_ns(ints[1, :n])
    return columns, counts


def new_decoder(partition: int) -> Decoder:
    """A decoder of one partition's messages."""
    return Decoder(partition, scan)
