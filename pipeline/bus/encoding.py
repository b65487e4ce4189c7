"""Rows to the bytes of their topics, by one kernel: what `schemas.codec` defines, byte for byte.

pyarrow takes 0.2 to 0.3 ms a block, most of it for schema and metadata, whatever the rows.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from pipeline.kernels.columns import Words, encoded, gathered, plan_of, words_of
from pipeline.kernels.documents import LONGEST_INTEGER, TIME, documents
from pipeline.kernels.streaming import stream
from schemas import codec
from schemas.blocks import COLUMNS, Array, Rows, empty, per_stage
from schemas.codec import json_bytes

# Fields of the tables of Arrow's Message.fbs, in the order of their declaration.
_HEADER, _BODY = 2, 3
_LENGTH, _NODES, _BUFFERS = 0, 1, 2
_PREFIX: Final = 8  # bytes before a message: a mark and its length
_VECTOR: Final = 4  # bytes before the elements of a vector: their number


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table is."""
    (back,) = struct.unpack_from("<i", data, table)
    (place,) = struct.unpack_from("<H", data, table - back + 4 + 2 * number)
    return table + int(place)


def _target(data: bytes, at: int) -> int:
    """What a flatbuffer's reference points at."""
    return at + int(struct.unpack_from("<I", data, at)[0])


@per_stage
def _frame(stage: str) -> "_Frame":
    # One row: a number that is 0 would not be written.
    data = codec.block_bytes(empty(stage, 1, ["-"]))
    batch = _PREFIX + int(struct.unpack_from("<i", data, 4)[0])
    message = _target(data, batch + _PREFIX)
    header = _target(data, _field(data, message, _HEADER))
    places = (
        _field(data, header, _LENGTH),
        _field(data, message, _BODY),
        _target(data, _field(data, header, _NODES)) + _VECTOR,
        _target(data, _field(data, header, _BUFFERS)) + _VECTOR,
    )
    body = batch + _PREFIX + int(struct.unpack_from("<i", data, batch + 4)[0])
    head = np.frombuffer(bytearray(data[:body]), np.int64)
    return _Frame(head, np.array(places, np.int64) // 8)


def block_bytes(rows: Rows) -> bytes:
    """Rows of a stage as the value of its topic: an Arrow IPC stream of one block.

    Raises:
        IndexError: a code has no symbol or label.
    """
    n = len(rows)
    if not n:
        return codec.block_bytes(rows)
    plan, texts = plan_of(rows.stage), words_of(rows)
    frame = _frame(rows.stage)
    # Of a column at most: bits, and doubles or the ends of texts and the texts, each padded.
    most = n // 64 + 1 + max(n, n // 2 + 1 + n * texts.longest // 8 + 1)
    words = np.empty(len(frame.head) + len(plan.table) * most + 1, np.int64)
    out = words.view(np.uint8)
    used = stream(
        n, *gathered(rows), plan.table, texts.ends, texts.text, frame.head, frame.places,
        words, words.view(np.int32), out,
    )  # fmt: skip
    if used < 0:
        raise IndexError(f"{rows.stage}: a code has no symbol or label")
    return out[: 8 * used].tobytes()


@per_stage
def _form(stage: str) -> "_Form":
    columns = COLUMNS[stage]
    names = [json_bytes(column.name).decode() + ":" for column in columns]
    keys = [f"{{{names[0]}", *(f",{name}" for name in names[1:]), f',"time":{TIME.decode()}']
    time = [column.name for column in columns if column.kind == "int64"].index("ts")
    return _Form(encoded(keys), time, sum(map(len, keys)) + LONGEST_INTEGER * len(columns))


def row_bytes(rows: Rows) -> list[bytes]:
    """Each row as JSON: its document of `codec.row_documents`.

    Raises:
        IndexError: a code has no symbol or label.
    """
    n = len(rows)
    if not n:
        return []
    plan, texts = plan_of(rows.stage), words_of(rows, json_bytes)
    form = _form(rows.stage)
    bits, longs, ints = gathered(rows)
    doubles = json_bytes(bits.view(np.float64).reshape(-1, n).T.ravel().tolist())
    most = form.width + texts.longest * len(plan.table)
    out, stops = np.empty(n * most + len(doubles), np.uint8), np.empty(n, np.int64)
    used = documents(
        longs, ints, plan.table, texts.ends, texts.text, form.keys.ends, form.keys.text,
        np.frombuffer(bytearray(doubles), np.uint8), form.time, out, stops,
    )  # fmt: skip
    if used < 0:
        raise IndexError(f"{rows.stage}: a code has no symbol or label")
    data = out[:used].tobytes()
    return [data[start:stop] for start, stop in pairwise([0, *stops.tolist()])]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The stream of a stage before its body, int64 words, and where its numbers are, int64 (4,)."""

    head: Array
    places: Array


@dataclass(frozen=True, slots=True)
class _Form:
    """What is the same in the JSON of all rows of a stage.

    Args:
        keys: what stands before each value; the last with a time and the end.
        time: place of `ts` among the columns of its dtype.
        width: bytes of a row at most without texts and doubles.
    """

    keys: Words
    time: int
    width: int
