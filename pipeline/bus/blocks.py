"""Rows of a stage as its topic carries them, repeats dropped by identity."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.bus.ranges import read_ranges
from pipeline.bus.topics import offset_bounds
from pipeline.stages.base import HEAD
from schemas.blocks import COLUMNS, Rows, from_arrow
from schemas.topics import SIGNALS

Identity = tuple[int, int, int]


def fresh_rows(topic: str, number: int, value: bytes | None, mark: tuple[int, int]) -> Rows:
    """Rows of a message behind a mark (offset and index), in the order of their identity.

    Raises:
        ValueError: it is no block of this topic and partition.
    """
    try:
        table = pa.ipc.open_stream(value or b"").read_all()
        table.validate(full=True)  # wrong offsets would crash us
        if any(table.column(column.name).null_count for column in COLUMNS[topic][: len(HEAD)]):
            raise ValueError("a row without a place or a symbol")
        rows = from_arrow(topic, table)
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise ValueError("no block of this topic") from error
    if np.any(rows["partition"] != number):
        raise ValueError("rows of another partition")
    offset, index = rows["offset"], rows["index"]
    order = np.lexsort((index, offset))
    behind = (offset > mark[0]) | ((offset == mark[0]) & (index > mark[1]))
    return rows.take(order[behind[order]])


async def fresh_blocks(
    bootstrap: str, topic: str, number: int, place: tuple[int, int, int], end: int
) -> AsyncGenerator[tuple[Rows | None, tuple[int, int, int]], None]:
    """Of each message of a partition what is fresh in it, and the place behind it.

    A place is the next offset of the topic, and offset and index of the last row that was seen.
    The rows are None where a message is no block of this topic and partition.

    Raises:
        UnavailableError: the broker does not answer, or goes away meanwhile.
    """
    begin, *mark = place
    async with aclosing(read_ranges(bootstrap, topic, {number: (begin, end)})) as found:
        async for _, messages in found:
            for message in messages:
                rows: Rows | None = None
                with suppress(ValueError):
                    rows = fresh_rows(topic, number, message.value, (mark[0], mark[1]))
                if rows is not None and len(rows):
                    mark = [int(rows["offset"][-1]), int(rows["index"][-1])]
                yield rows, (message.offset + 1, mark[0], mark[1])


async def read_values(bootstrap: str, topic: str) -> AsyncIterator[bytes]:
    """Every message of a topic up to its present end, partition by partition."""
    for partition, bounds in (await offset_bounds(bootstrap, topic)).items():
        async for _, messages in read_ranges(bootstrap, topic, {partition: bounds}):
            for message in messages:
                if message.value is not None:
                    yield message.value


async def count_rows(bootstrap: str, stage: str) -> int:
    """Distinct rows of a stage on its topic.

    Within a source partition identity only grows, so a row at or below the mark is a repeat.
    """
    marks: dict[int, Identity] = {}
    rows = 0
    async for value in read_values(bootstrap, stage):
        for identity in sorted(_identities(stage, value)):
            if identity > marks.get(identity[0], (-1, -1, -1)):
                marks[identity[0]] = identity
                rows += 1
    return rows


def _identities(stage: str, value: bytes) -> list[Identity]:
    if stage == SIGNALS:
        row: dict[str, Any] = msgspec.json.decode(value)
        return [(row["partition"], row["offset"], row["index"])]
    table = pa.ipc.open_stream(value).read_all()
    columns = [table.column(name).to_pylist() for name in ("partition", "offset", "index")]
    return list(zip(*columns, strict=True))
