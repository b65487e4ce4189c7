"""Topics on the broker: made by us, never by accident; their partitions and offsets."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from pipeline.errors import UnavailableError
from pipeline.settings import TopicSettings
from schemas.topics import TOPICS

_FETCH: Final = 8 * 1024 * 1024
_LISTED: Final = 20.0  # seconds until a broker tells of topics that were made
_PATIENCE_MS: Final = 20_000  # that a broker may take to answer, or to come back


@asynccontextmanager
async def reader(bootstrap: str, wait_ms: int = 100) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group: it commits nothing and disturbs nobody.

    `wait_ms`: how long a fetch waits for the first message.

    Raises:
        UnavailableError: the broker does not answer, or goes away meanwhile.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH,
        fetch_max_wait_ms=wait_ms,
        request_timeout_ms=_PATIENCE_MS,
    )
    try:
        await consumer.start()
        yield consumer
    except (KafkaError, OSError) as error:
        raise away(bootstrap, error) from error
    finally:
        await stop_consumer(consumer)


def away(bootstrap: str, error: BaseException) -> UnavailableError:
    """What to raise when the broker fails."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnavailableError(f"Kafka at {bootstrap} does not answer: {reason}")


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer also while its requests fail.

    aiokafka cancels the requests that are under way and awaits them: where one waits to be tried
    again, the cancellation comes out as if it were ours, and the connections stay open.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        requests = consumer._fetcher._pending_tasks  # noqa: SLF001 -- the release is pinned
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await consumer._client.close()  # noqa: SLF001 -- the same


async def ensure_topics(bootstrap: str, settings: TopicSettings) -> list[str]:
    """Make the topics that are missing, and wait until they are there; returns whom we made.

    Raises:
        UnavailableError: the broker does not answer or refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        present = set(await admin.list_topics())
        wanted = [
            NewTopic(
                topic.name,
                settings.partitions if topic.partitioned else 1,
                settings.replication,
                topic_configs=_config(compacted=topic.compacted),
            )
            for topic in TOPICS
            if topic.name not in present
        ]
        return await _made(admin, wanted) if wanted else []
    except (KafkaError, OSError) as error:
        raise away(bootstrap, error) from error
    finally:
        await admin.close()


async def _made(admin: AIOKafkaAdminClient, wanted: list[NewTopic]) -> list[str]:
    """Make topics unless somebody was faster; the broker hears of them after its controller."""
    made = []
    answer = await admin.create_topics(wanted)
    for name, code, *detail in answer.topic_errors:
        kind = for_code(code)
        if not code:
            made.append(name)
        elif not issubclass(kind, TopicAlreadyExistsError):
            raise UnavailableError(f"topic {name} cannot be made: {detail or kind.__name__}")
    names = {topic.name for topic in wanted}
    async with asyncio.timeout(_LISTED):
        while not names.issubset(await admin.list_topics()):  # noqa: ASYNC110 -- only the broker knows
            await asyncio.sleep(0.02)
    return made


def _config(*, compacted: bool) -> dict[str, str]:
    policy = "compact" if compacted else "delete"
    return {"cleanup.policy": policy, "max.message.bytes": str(32 * 1024 * 1024)}


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of a topic, in order.

    Raises:
        UnavailableError: there is no such topic.
    """
    for _ in range(50):
        found = consumer.partitions_for_topic(topic)
        if found:
            return [TopicPartition(topic, number) for number in sorted(found)]
        consumer.subscribe([topic])  # makes the client fetch the topic's metadata
        await asyncio.sleep(0.05)
        consumer.unsubscribe()
    raise UnavailableError(f"topic {topic} does not exist on this broker")


async def offset_bounds(bootstrap: str, topic: str) -> dict[int, tuple[int, int]]:
    """First offset and one past the last, by partition."""
    async with reader(bootstrap) as consumer:
        return await bounds(consumer, await partitions_of(consumer, topic))


async def bounds(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
) -> dict[int, tuple[int, int]]:
    """First offset and one past the last, by partition."""
    first: Mapping[Any, int] = await consumer.beginning_offsets(partitions)
    last: Mapping[Any, int] = await consumer.end_offsets(partitions)
    return {p.partition: (first[p], last[p]) for p in partitions}


async def cluster_id(bootstrap: str) -> str:
    """The name that a cluster gave itself when its storage was formatted.

    Raises:
        UnavailableError: the broker does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    except (KafkaError, OSError) as error:
        raise away(bootstrap, error) from error
    finally:
        await admin.close()


async def count_topics(bootstrap: str) -> dict[str, tuple[int, int]]:
    """Partitions and messages of each of our topics that exists."""
    found: dict[str, tuple[int, int]] = {}
    async with reader(bootstrap) as consumer:
        present = await consumer.topics()
        for topic in TOPICS:
            if topic.name in present:
                partitions = await partitions_of(consumer, topic.name)
                edges = await bounds(consumer, partitions)
                count = sum(high - low for low, high in edges.values())
                found[topic.name] = (len(partitions), count)
    return found
