"""The output topics, read on from where the last run ended."""

from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import BLOCK_TOPICS, REJECTED, SIGNALS
from tests.acceptance.evidence import Record, end_offsets

OUTPUTS: Final = (*BLOCK_TOPICS, SIGNALS, REJECTED)
Place = tuple[str, int]  # topic and partition
_FETCH: Final = 64 * 2**20


async def ends_of(bootstrap: str, topics: Sequence[str]) -> dict[Place, int]:
    """One past the last offset of each partition of each topic."""
    async with _reader(bootstrap) as consumer:
        return {
            (topic, partition): end
            for topic in topics
            for partition, end in (await end_offsets(consumer, topic)).items()
        }


async def read_on(
    bootstrap: str, starts: Mapping[Place, int], ends: Mapping[Place, int]
) -> dict[Place, list[Record]]:
    """The records of each partition between these offsets, in order."""
    found: dict[Place, list[Record]] = {place: [] for place in ends}
    left = {place for place, end in ends.items() if starts.get(place, 0) < end}
    async with _reader(bootstrap) as consumer:
        consumer.assign([TopicPartition(*place) for place in left])
        for place in left:
            consumer.seek(TopicPartition(*place), starts.get(place, 0))
        while left:
            for at, records in (await consumer.getmany(timeout_ms=200)).items():
                place = (at.topic, at.partition)
                for one in records:
                    if one.offset < ends[place]:
                        headers = {name: bytes(text).decode() for name, text in one.headers}
                        record = Record(at.partition, one.offset, one.key, one.value, headers)
                        found[place].append(record)
            left = {p for p in left if await consumer.position(TopicPartition(*p)) < ends[p]}
    return found


def _reader(bootstrap: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH,
        fetch_max_bytes=_FETCH,
        fetch_max_wait_ms=50,
    )
