"""Following a topic in a consumer group: what was taken is committed when it is done with."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from pipeline.bus.topics import away, stop_consumer
from pipeline.errors import ConflictError

_POLL_MS: Final = 500
_FETCH: Final = 1024 * 1024
# Its heartbeat says that a member lives; it may be busy with what it took for long.
_FOR_EVER_MS: Final = 2**31 - 1
_REBALANCE_MS: Final = 10_000  # that others wait for a member who does not join again


@dataclass(frozen=True, slots=True)
class Record:
    """A message of a topic; `published` is its time in ns."""

    partition: int
    offset: int
    published: int
    value: bytes


class Follower:
    """A member of a group; two of a group never hold the same partition at once.

    A group that is new begins with what is published from then on. What was not committed comes
    again, here or at another member.
    """

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, bootstrap: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._bootstrap = bootstrap
        self._notes: dict[int, str] = {}

    async def take(self, count: int) -> Sequence[Record]:
        """The next messages of one partition, in order; none when nothing came for a while.

        Raises:
            UnavailableError: the broker refuses.
        """
        try:
            found = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=count)
        except KafkaError as error:
            raise away(self._bootstrap, error) from error
        return [
            Record(place.partition, one.offset, one.timestamp * 1_000_000, one.value or b"")
            for place, records in found.items()
            for one in records
        ]

    def holds(self, partition: int) -> bool:
        """Whether a partition is still ours."""
        return TopicPartition(self._topic, partition) in self._consumer.assignment()

    def note(self, partition: int) -> str:
        """What was noted at the last commit of a partition, by whoever held it."""
        return self._notes.get(partition, "")

    async def commit(self, record: Record, note: str) -> None:
        """A message and all before it in its partition need not come again.

        Raises:
            ConflictError: its partition has been taken away; it comes again elsewhere.
            UnavailableError: the broker does not take it; it may be repeated.
        """
        place = TopicPartition(self._topic, record.partition)
        try:
            await self._consumer.commit({place: (record.offset + 1, note)})
        except (CommitFailedError, IllegalStateError) as error:
            raise ConflictError(f"partition {record.partition} was taken away") from error
        except KafkaError as error:
            raise away(self._bootstrap, error) from error
        self._notes[record.partition] = note

    async def begin(self, places: Sequence[TopicPartition]) -> None:
        """Partitions have become ours: where to begin."""
        # Public calls give the offset alone; the release is pinned.
        known = await self._consumer._coordinator.fetch_committed_offsets(places)  # noqa: SLF001
        for place in places:
            before = known.get(place)
            if before is not None and before.offset >= 0:
                self._notes[place.partition] = before.metadata or ""
                continue
            self._notes.pop(place.partition, None)
            await self._consumer.seek_to_end(place)
            # Stored at once: who dies before the first message must not miss what came meanwhile.
            end = await self._consumer.position(place)
            await self._consumer.commit({place: (end, "")})


class _Beginning(ConsumerRebalanceListener):  # type: ignore[misc]  # the driver is untyped
    """Tells a follower of its partitions."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def on_partitions_revoked(self, revoked: Any) -> None:
        """What is in hand goes on, and cannot be committed."""

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Before the first message of them."""
        await self._follower.begin(sorted(assigned))


@asynccontextmanager
async def follow(bootstrap: str, topic: str, group: str) -> AsyncIterator[Follower]:
    """Follow a topic in a group.

    Raises:
        UnavailableError: the broker does not answer.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # where retention has deleted the place
        max_partition_fetch_bytes=_FETCH,
        max_poll_interval_ms=_FOR_EVER_MS,
        rebalance_timeout_ms=_REBALANCE_MS,
    )
    follower = Follower(consumer, topic, bootstrap)
    consumer.subscribe([topic], listener=_Beginning(follower))
    try:
        await consumer.start()
        yield follower
    except (KafkaError, OSError) as error:
        raise away(bootstrap, error) from error
    finally:
        await stop_consumer(consumer)
