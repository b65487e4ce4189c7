"""Topics followed without a group, on a real broker that goes away."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from pipeline.bus import following
from pipeline.bus.following import TopicFeed
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.errors import UnavailableError
from pipeline.servers import Addresses
from pipeline.servers.kafka import KafkaServer
from schemas.arrivals import Message

pytestmark = pytest.mark.timeout(240)


@dataclass
class Told:
    """What was brought."""

    values: list[bytes | None] = field(default_factory=list)
    renewals: int = 0

    def take(self, _partition: int, message: Message) -> Iterator[None]:
        """A message; some are no good."""
        if message.value == b"bad":
            raise ValueError("bad")
        if message.value == b"fault":
            raise TypeError("a fault of ours")
        self.values.append(message.value)
        yield

    def renew(self) -> None:
        """Offsets begin anew."""
        self.renewals += 1

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for it; the time limit of the test ends it."""
        while not reached():  # noqa: ASYNC110 -- only the server knows
            await asyncio.sleep(0.01)


async def make(kafka: str, topic: str, partitions: int = 1) -> None:
    """Make a topic, also when one of its name is still being deleted."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    code = -1
    while code:
        answer = await admin.create_topics([NewTopic(topic, partitions, 1)])
        ((_, code, *_),) = answer.topic_errors
    await admin.close()


async def publish(kafka: str, topic: str, *values: bytes, partition: int = 0) -> None:
    """Publish messages in order."""
    async with Publisher(kafka) as publisher:
        await publisher.deliver(Outgoing(topic, value, partition=partition) for value in values)


async def test_from_now_on(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds it is brought what is published since; nobody is brought anything else."""
    kafka, topic, told = addresses.kafka, f"test-{os.urandom(6).hex()}", Told()
    await make(kafka, topic, 2)
    await publish(kafka, topic, b"before")
    feed = TopicFeed(kafka, topic, told.take, told.renew)
    assert feed.answers is None
    async with feed.holding():
        assert feed.answers
        await publish(kafka, topic, b"1", b"bad", b"2")
        await told.until(lambda: len(told.values) == 2)
        async with feed.holding():
            await publish(kafka, topic, b"3", partition=1)
            await told.until(lambda: len(told.values) == 3)
        monkeypatch.setattr(following, "_LINGER", 0.0)
        async with feed.holding():
            pass
        await asyncio.sleep(0.1)
        await publish(kafka, topic, b"4")
        await told.until(lambda: len(told.values) == 4)
    await told.until(lambda: feed.answers is None)
    await publish(kafka, topic, b"nobody")
    async with feed.holding():
        await publish(kafka, topic, b"5")
        await told.until(lambda: len(told.values) == 5)
    assert told.values == [b"1", b"2", b"3", b"4", b"5"]
    await feed.close()


async def test_a_fault_of_ours_is_no_end(addresses: Addresses) -> None:
    """The message that we fail at is passed over, with a traceback in the log."""
    kafka, topic, told = addresses.kafka, f"test-{os.urandom(6).hex()}", Told()
    await make(kafka, topic)
    feed = TopicFeed(kafka, topic, told.take, told.renew)
    async with feed.holding():
        await publish(kafka, topic, b"1", b"fault", b"2")
        await told.until(lambda: told.values == [b"1", b"2"])
    await feed.close()


async def test_a_consumer_that_broke_is_replaced(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Following goes on where it was, and a partition that is new begins with its first message."""
    kafka, topic, told = addresses.kafka, f"test-{os.urandom(6).hex()}", Told()
    await make(kafka, topic)
    await publish(kafka, topic, b"before")
    feed = TopicFeed(kafka, topic, told.take, told.renew)
    breaking = asyncio.Event()

    async def broken(*_: object) -> None:
        breaking.set()
        raise UnavailableError("broken")

    async with feed.holding():
        begun = told.renewals
        await publish(kafka, topic, b"1")
        await told.until(lambda: told.values == [b"1"])
        for fault in (b"2", b"3"):
            with monkeypatch.context() as patch:
                patch.setattr(following, "bounds", broken)
                await breaking.wait()
                await publish(kafka, topic, fault)
                if fault == b"2":
                    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
                    await admin.start()
                    await admin.create_partitions({topic: NewPartitions(2)})
                    await admin.close()
                await publish(kafka, topic, fault * 2, partition=1)
            await told.until(lambda: feed.answers is True)
            breaking.clear()
        await told.until(lambda: len(told.values) == 5)
        assert sorted(map(bytes, filter(None, told.values))) == [b"1", b"2", b"22", b"3", b"33"]
        assert told.renewals == begun
    await feed.close()


async def test_a_topic_that_is_made_again(addresses: Addresses) -> None:
    """Its offsets begin anew, which is told, and all of it is brought."""
    kafka, topic, told = addresses.kafka, f"test-{os.urandom(6).hex()}", Told()
    await make(kafka, topic)
    await publish(kafka, topic, *[b"old"] * 5)
    feed = TopicFeed(kafka, topic, told.take, told.renew)
    async with feed.holding():
        begun = told.renewals
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.delete_topics([topic])
        await admin.close()
        await make(kafka, topic)
        await publish(kafka, topic, b"1", b"2")
        await told.until(lambda: told.values == [b"1", b"2"])
        assert told.renewals == begun + 1
    await feed.close()


async def test_a_broker_that_comes_and_goes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Away at the start, hung, killed: it is said, and afterwards nothing is missing."""
    told = Told()
    with KafkaServer(tmp_path_factory.mktemp("following")) as server:
        kafka = server.address
        await make(kafka, "t")
        await publish(kafka, "t", b"before")
        await asyncio.to_thread(server.kill)
        feed = TopicFeed(kafka, "t", told.take, told.renew)
        with pytest.raises(UnavailableError, match="does not answer"):
            async with feed.holding(0.5):
                pytest.fail("entered")
        assert feed.answers is False
        async with AsyncExitStack() as stack:
            coming = asyncio.create_task(stack.enter_async_context(feed.holding(200)))
            await asyncio.to_thread(server.start)
            await coming
            await publish(kafka, "t", b"1")
            await told.until(lambda: told.values == [b"1"])

            assert server.pid is not None
            process = psutil.Process(server.pid)
            group = [*process.children(recursive=True), process]
            for one in group:
                one.suspend()
            await told.until(lambda: feed.answers is False)
            with pytest.raises(UnavailableError):
                async with feed.holding(0.1):
                    pytest.fail("entered")
            for one in group:
                one.resume()
            await told.until(lambda: feed.answers is True)
            await publish(kafka, "t", b"2")
            await told.until(lambda: told.values == [b"1", b"2"])

            await asyncio.to_thread(server.kill)
            await told.until(lambda: feed.answers is False)
            await asyncio.to_thread(server.start)
            assert server.address == kafka
            await publish(kafka, "t", b"3")
            await told.until(lambda: told.values == [b"1", b"2", b"3"])
            assert feed.answers
        await feed.close()
        assert feed.answers is None
