"""Bounded reading of a topic: from an offset or a time to an end, touching no consumer group."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bus.topics import bounds, cluster_id, offset_bounds, partitions_of, reader
from pipeline.errors import MisuseError
from schemas.arrivals import Message

Range = tuple[int, int]  # first offset, one past the last
Limits = tuple[int | None, int | None]  # the same as a user says it: None is the end that is there
_POLL_MS: Final = 500
_RECORDS: Final = 2000


async def read_ranges(
    bootstrap: str, topic: str, ranges: Mapping[int, Range]
) -> AsyncGenerator[tuple[int, list[Message]], None]:
    """Messages of each partition with low <= offset < high, in order, as (partition, messages).

    What retention has deleted is left out: reading starts at the first offset that is there.

    Raises:
        UnavailableError: the broker does not answer, or goes away meanwhile.
    """
    if not ranges:
        return
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
        if not batches:
            await bounds(consumer, list(left))  # the client would wait for a dead broker for ever
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


@dataclass(frozen=True, slots=True)
class Request:
    """A stretch of a topic as a user names it: by record time in ms, or by offsets of partitions.

    The end is not included; None is no bound. With `offsets` only its partitions are meant.
    """

    topic: str
    start_ms: int | None = None
    end_ms: int | None = None
    offsets: Mapping[int, Limits] | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages that are there: the cluster by its id, the topic, offsets by partition."""

    cluster: str
    topic: str
    ranges: Mapping[int, Range]


def first_ms(ns: int | None) -> int | None:
    """The first millisecond, as the broker counts, that is not before a time; None for none."""
    return None if ns is None else -(-ns // 1_000_000)


async def resolve(bootstrap: str, request: Request) -> Stretch:
    """What a request means on this broker now.

    Raises:
        MisuseError: a partition or an offset that it names is not there.
        UnavailableError: the broker does not answer, or has no such topic.
    """
    if request.offsets is None:
        ranges = await ranges_by_time(bootstrap, request.topic, request.start_ms, request.end_ms)
    else:
        edges = await offset_bounds(bootstrap, request.topic)
        ranges = {n: _within(n, limits, edges) for n, limits in sorted(request.offsets.items())}
    return Stretch(await cluster_id(bootstrap), request.topic, ranges)


def _within(partition: int, limits: Limits, edges: Mapping[int, Range]) -> Range:
    if partition not in edges:
        raise MisuseError(f"there is no partition {partition}: the topic has {len(edges)}")
    first, last = edges[partition]
    low, high = (
        edge if said is None else said for edge, said in zip((first, last), limits, strict=True)
    )
    if not first <= low <= high <= last:
        raise MisuseError(
            f"partition {partition} holds the offsets from {first} to {last}, the end not "
            f"included: {low} to {high} is not among them"
        )
    return low, high
