"""Topics, bounded reading and publishing on a real broker."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.bus.blocks import count_rows
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import Range, ranges_by_time, read_ranges
from pipeline.bus.topics import count_topics, ensure_topics, offset_bounds, reader
from pipeline.clock import now_ns
from pipeline.errors import UnavailableError
from pipeline.servers import Addresses
from pipeline.settings import TopicSettings
from schemas.codec import block_bytes, json_bytes
from schemas.topics import TOPICS
from tests.fixtures.rows import rows_of

Make = Callable[..., Awaitable[str]]


@pytest.fixture
async def kafka(addresses: Addresses) -> str:
    """The broker."""
    return addresses.kafka


@pytest.fixture
async def make(kafka: str) -> AsyncIterator[Make]:
    """Makes fresh topics; they are deleted afterwards."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    made: list[str] = []

    async def topic(partitions: int = 1, **config: str) -> str:
        name = f"test-{os.urandom(6).hex()}"
        settings = {"max.message.bytes": str(32 * 2**20), **config}
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        made.append(name)
        return name

    yield topic
    if made:
        await admin.delete_topics(made)
    await admin.close()


async def fill(kafka: str, topic: str, n: int, partition: int = 0) -> None:
    """Publish n messages, each its number."""
    async with Publisher(kafka) as publisher:
        await publisher.deliver(
            Outgoing(topic, str(i).encode(), partition=partition) for i in range(n)
        )


async def read(kafka: str, topic: str, ranges: Mapping[int, Range]) -> dict[int, list[int]]:
    """Offsets read of each partition; values must be those offsets."""
    found: dict[int, list[int]] = {}
    async for partition, messages in read_ranges(kafka, topic, ranges):
        for message in messages:
            assert message.value == str(message.offset).encode()
            assert abs(message.received - now_ns()) < 120 * 10**9
            found.setdefault(partition, []).append(message.offset)
    return found


async def test_topics_are_made_once(kafka: str) -> None:
    """The first call makes what is missing, with its partitions and policy; the second nothing."""
    settings = TopicSettings(partitions=3)
    made = await ensure_topics(kafka, settings)
    assert await ensure_topics(kafka, settings) == []
    counted = await count_topics(kafka)
    assert set(counted) == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        if topic.name in made:
            assert counted[topic.name] == (3 if topic.partitioned else 1, 0)


async def test_a_range_is_read_exactly(kafka: str, make: Make) -> None:
    """Low <= offset < high of each partition, in order, nothing more."""
    topic = await make(3)
    await fill(kafka, topic, 50)
    await fill(kafka, topic, 5000, 1)
    assert await offset_bounds(kafka, topic) == {0: (0, 50), 1: (0, 5000), 2: (0, 0)}
    ranges = {0: (10, 20), 1: (100, 4777), 2: (0, 9)}
    found = await read(kafka, topic, ranges)
    assert found == {0: list(range(10, 20)), 1: list(range(100, 4777))}


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0, 0), []),
        ((5, 5), []),
        ((9, 3), []),
        ((0, 1), [0]),
        ((9, 10), [9]),
        ((8, 1000), [8, 9]),
        ((10, 20), []),
        ((500, 900), []),
    ],
)
async def test_a_range_ends_whatever_its_bounds(
    kafka: str, make: Make, bounds: Range, expected: list[int]
) -> None:
    """Empty, inverted and beyond the end: reading ends with what is there."""
    topic = await make()
    await fill(kafka, topic, 10)
    assert (await read(kafka, topic, {0: bounds})).get(0, []) == expected
    assert await read(kafka, topic, {}) == {}


async def test_a_reader_may_stop_early(kafka: str, make: Make) -> None:
    """Leaving the loop closes the consumer; another one reads all."""
    topic = await make()
    await fill(kafka, topic, 3000)
    ranges = read_ranges(kafka, topic, {0: (0, 3000)})
    _, first = await anext(ranges)
    assert first[0].offset == 0
    await ranges.aclose()
    assert (await read(kafka, topic, {0: (0, 3000)}))[0] == list(range(3000))


async def test_offsets_by_time(kafka: str, make: Make) -> None:
    """Record times in [start, end); None is no bound; beyond the last record is the end."""
    topic = await make(2)
    times = [1_700_000_000_000 + i * 1000 for i in range(10)]
    async with Publisher(kafka) as publisher:
        for at in times:
            await publisher._producer.send_and_wait(topic, b"x", partition=0, timestamp_ms=at)
    cases: list[tuple[int | None, int | None, Range]] = [
        (None, None, (0, 10)),
        (times[3], None, (3, 10)),
        (times[3] + 1, times[7], (4, 7)),
        (times[3], times[3], (3, 3)),
        (times[0] - 10**6, times[9] + 1, (0, 10)),
        (times[9] + 1, None, (10, 10)),
        (None, times[0], (0, 0)),
    ]
    for start, end, expected in cases:
        found = await ranges_by_time(kafka, topic, start, end)
        assert found == {0: expected, 1: (0, 0)}, (start, end)


async def test_a_large_message_passes(kafka: str, make: Make) -> None:
    """Ten megabytes in one record, published and read back."""
    topic = await make()
    value = os.urandom(10 * 2**20)
    async with Publisher(kafka) as publisher:
        await publisher.deliver([Outgoing(topic, value, b"key", headers=[("reason", b"late")])])
    async for _, messages in read_ranges(kafka, topic, {0: (0, 1)}):
        assert [message.value == value for message in messages] == [True]


async def test_keys_and_headers_arrive(kafka: str, make: Make) -> None:
    """The same key goes to the same partition; headers stay as they were."""
    topic = await make(4)
    async with Publisher(kafka) as publisher:
        await publisher.deliver(
            Outgoing(topic, b"v", key, headers=[("index", b"3")]) for key in (b"A", b"B") * 5
        )
    seen: dict[bytes, set[int]] = {}
    async with reader(kafka) as consumer:
        consumer.subscribe([topic])
        got = 0
        while got < 10:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    got += 1
                    seen.setdefault(record.key, set()).add(partition.partition)
                    assert record.headers == (("index", b"3"),)
    assert {key: len(partitions) for key, partitions in seen.items()} == {b"A": 1, b"B": 1}


async def test_what_the_broker_refuses_is_an_error(kafka: str, make: Make) -> None:
    """A message larger than the topic takes is not lost in silence; the publisher lives on."""
    topic = await make(**{"max.message.bytes": "1000"})
    async with Publisher(kafka) as publisher:
        with pytest.raises(UnavailableError, match="Kafka does not take"):
            await publisher.deliver([Outgoing(topic, os.urandom(5000))])
        await publisher.deliver([Outgoing(topic, b"0")])
    assert await read(kafka, topic, {0: (0, 9)}) == {0: [0]}


async def test_rows_on_a_topic_are_counted_once(kafka: str, make: Make) -> None:
    """A batch that was published again after a crash does not count twice."""
    bars, signals = await make(2), await make(2)
    first, second = rows_of("bars", range(5)), rows_of("bars", range(3, 8))
    other = rows_of("bars", range(4), partition=1)
    async with Publisher(kafka) as publisher:
        for rows, partition in ((first, 0), (first, 0), (second, 0), (other, 1)):
            await publisher.deliver([Outgoing(bars, block_bytes(rows), partition=partition)])
        for offset in (1, 2, 2, 3):
            row = {"partition": 0, "offset": offset, "index": 0}
            await publisher.deliver([Outgoing(signals, json_bytes(row))])
    assert await count_rows(kafka, bars) == 8 + 4


async def test_a_missing_topic_is_named(kafka: str) -> None:
    """A topic that nobody made is an error with its name, not a wait."""
    with pytest.raises(UnavailableError, match="nobody-made-this"):
        await offset_bounds(kafka, "nobody-made-this")


async def test_a_broker_that_is_away_is_said_so() -> None:
    """Nobody listens: publisher, reader and administration give up and say so in one line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{free.getsockname()[1]}"

    async def publish() -> None:
        async with Publisher(away):
            pass

    calls: list[Callable[[], Awaitable[Any]]] = [
        publish,
        lambda: offset_bounds(away, "prices"),
        lambda: ranges_by_time(away, "prices", None, None),
        lambda: ensure_topics(away, TopicSettings()),
    ]
    for call in calls:
        async with asyncio.timeout(60):  # else it hangs
            with pytest.raises(UnavailableError, match=away) as caught:
                await call()
        assert "\n" not in str(caught.value)
