"""Publishing with awaited delivery."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from pipeline.errors import UnavailableError

MAX_MESSAGE: Final = 32 * 1024 * 1024
_LINGER_MS: Final = 2


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to publish; without a partition the key decides."""

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Publisher:
    """A producer that waits for all replicas; use as an async context manager."""

    def __init__(self, bootstrap: str, *, linger_ms: int = 0) -> None:
        self._bootstrap = bootstrap
        self._partitions: dict[str, list[int]] = {}
        self._partitioner = DefaultPartitioner()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            linger_ms=linger_ms,
            max_batch_size=131_072,
            max_request_size=MAX_MESSAGE,
            request_timeout_ms=30_000,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise UnavailableError(f"Kafka at {self._bootstrap} does not answer") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def send(self, record: Outgoing) -> "asyncio.Future[Any]":
        """Queue a record; the future ends with its delivery.

        Raises:
            UnavailableError: the broker takes nothing.
        """
        try:
            delivery: asyncio.Future[Any] = await self._producer.send(
                record.topic,
                record.value,
                key=record.key,
                partition=record.partition,
                headers=list(record.headers),
            )
        except KafkaError as error:
            raise _refused(record.topic, error) from error
        return delivery

    async def deliver(self, records: Iterable[Outgoing]) -> None:
        """Publish records and wait until the broker has all of them.

        Raises:
            UnavailableError: it does not take them; none or some are there, send all again.
        """
        groups: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        try:
            for record in records:
                groups[record.topic, await self._place(record)].append(record)
            pending = [
                delivery
                for (topic, partition), group in groups.items()
                for delivery in await self._send_all(topic, partition, group)
            ]
        except KafkaError as error:
            raise _refused("the outputs", error) from error
        try:
            await asyncio.gather(*pending)
        except KafkaError as error:
            for left in pending:
                left.cancel()
            raise _refused("the outputs", error) from error

    async def _place(self, record: Outgoing) -> int:
        """The partition of a record, by its key as every Kafka client chooses it."""
        if record.partition is not None:
            return record.partition
        if record.topic not in self._partitions:
            found = await self._producer.partitions_for(record.topic)
            self._partitions[record.topic] = sorted(found)
        numbers = self._partitions[record.topic]
        place: int = self._partitioner(record.key, numbers, numbers)
        return place

    async def _send_all(
        self, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> list["asyncio.Future[Any]"]:
        """Queue records of one partition in order: a future a batch, not one a record."""
        pending = []
        batch = self._producer.create_batch()
        for record in records:
            fields = {"key": record.key, "value": record.value, "headers": list(record.headers)}
            if batch.append(timestamp=None, **fields) is None:
                pending.append(await self._producer.send_batch(batch, topic, partition=partition))
                batch = self._producer.create_batch()
                batch.append(timestamp=None, **fields)
        pending.append(await self._producer.send_batch(batch, topic, partition=partition))
        return pending

    async def flush(self) -> None:
        """Wait until all that was sent is delivered."""
        await self._producer.flush()


def _refused(what: str, error: KafkaError) -> UnavailableError:
    reason = " ".join(str(error).split())
    return UnavailableError(f"Kafka does not take {what}: {reason}")
