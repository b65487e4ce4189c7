"""Rows of a stage as its topic carries them, repeats dropped by identity."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.bus.ranges import read_ranges
from pipeline.bus.topics import offset_bounds
from schemas.topics import SIGNALS

Identity = tuple[int, int, int]


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
