"""Bounded reading of a topic: from an offset or a time to an end, touching no consumer group."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bus.topics import bounds, partitions_of, reader
from schemas.arrivals import Message

Range = tuple[int, int]  # first offset, one past the last
_POLL_MS: Final = 500
_RECORDS: Final = 2000


async def read_ranges(
    bootstrap: str, topic: str, ranges: Mapping[int, Range]
) -> AsyncIterator[tuple[int, list[Message]]]:
    """Messages of each partition with low <= offset < high, in order, as (partition, messages).

    What retention has deleted is left out: reading starts at the first offset that is there.
    """
    if not ranges:
        return  # aiokafka leaks a cancellation where a consumer stops that did nothing
    async with reader(bootstrap) as consumer:
        async for found in _read(consumer, topic, ranges):
            yield found


async def _read(
    consumer: AIOKafkaConsumer, topic: str, ranges: Mapping[int, Range]
) -> AsyncIterator[tuple[int, list[Message]]]:
    wanted = [TopicPartition(topic, number) for number in ranges]
    consumer.assign(wanted)
    edges = await bounds(consumer, wanted)
    left: dict[Any, int] = {}
    for partition in wanted:
        low, high = ranges[partition.partition]
        first, last = edges[partition.partition]
        low, high = max(low, first), min(high, last)
        if low < high:
            consumer.seek(partition, low)
            left[partition] = high
        else:
            consumer.pause(partition)
    while left:
        batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS)
        for partition, records in batches.items():
            if partition not in left:
                continue
            end = left[partition]
            messages = [
                Message(record.offset, record.timestamp * 1_000_000, record.value)
                for record in records
                if record.offset < end
            ]
            if messages:
                yield partition.partition, messages
        # The position also passes what is no record (control batches), so a range always ends.
        for partition in list(left):
            if await consumer.position(partition) >= left[partition]:
                del left[partition]
                consumer.pause(partition)


async def ranges_by_time(
    bootstrap: str, topic: str, start_ms: int | None, end_ms: int | None
) -> dict[int, Range]:
    """The offsets of each partition whose record time lies in [start, end), None for no bound."""
    async with reader(bootstrap) as consumer:
        partitions = await partitions_of(consumer, topic)
        edges = await bounds(consumer, partitions)
        low = {p.partition: edges[p.partition][0] for p in partitions}
        high = {p.partition: edges[p.partition][1] for p in partitions}
        for limits, at in ((low, start_ms), (high, end_ms)):
            if at is None:
                continue
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, at))
            for partition, place in found.items():
                last = edges[partition.partition][1]
                limits[partition.partition] = last if place is None else place.offset
        return {number: (low[number], high[number]) for number in low}
