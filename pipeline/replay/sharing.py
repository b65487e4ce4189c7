"""Reading an input once for many runs: a file, stretches of the topic, or the stored ticks."""

from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from pipeline.bus.ranges import Range
from pipeline.disk import digest
from pipeline.replay.messages import Read, Stream
from pipeline.replay.shared_ticks import BLOCK, SharedTicks, TicksWriter
from pipeline.sources.files import AS_IT_IS, Reading, read_arrivals
from pipeline.store.pool import Pool
from pipeline.store.stored import stored_ticks
from schemas.topics import PRICES

_FETCH = 16_384  # stored ticks fetched at once: Python objects, before they are columns
Shared = tuple[SharedTicks, list[dict[str, Any]]]  # and what a manifest says about the input


def share_file(path: Path, writer: TicksWriter, reading: Reading = AS_IT_IS) -> Shared:
    """The ticks of a file; its end closes what is open.

    Raises:
        MisuseError: the file cannot be read.
    """
    for came in read_arrivals(path, BLOCK, reading):
        writer.write(came)
    shared = writer.finish(closes=True)
    return shared, [{"file": path.name, "rows": shared.rows, "sha256": digest(path)}]


async def share_topic(ranges: Mapping[int, Range], read: Read, writer: TicksWriter) -> Shared:
    """The ticks of stretches of `prices`; what their ends leave open stays so.

    Raises:
        UnavailableError: the broker does not answer.
    """
    facts = []
    for partition, span in sorted(ranges.items()):
        stream = Stream(read, partition, span, BLOCK)
        async with aclosing(stream.portions()) as portions:
            async for came, _ in portions:
                writer.write(came)
        facts.append({"topic": PRICES, **stream.facts()})
    return writer.finish(closes=False), facts


async def share_stored(
    pool: Pool, writer: TicksWriter, start: int | None = None, end: int | None = None
) -> Shared:
    """The live ticks in Postgres with start <= event time < end (ns).

    Raises:
        UnavailableError: Postgres does not answer.
    """
    facts = []
    async with stored_ticks(pool, start, end) as stored:
        for n, (low, high, count) in (await stored.extents()).items():
            async for came in stored.arrivals(n, _FETCH):
                writer.write(came)
            facts.append(
                {"table": "ticks", "partition": n, "from": low, "to": high + 1, "rows": count}
            )
    return writer.finish(closes=False), facts
