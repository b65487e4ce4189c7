"""Publishing with awaited delivery."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

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
        pending = [await self.send(record) for record in records]
        try:
            await asyncio.gather(*pending)
        except KafkaError as error:
            for left in pending:
                left.cancel()
            raise _refused("the outputs", error) from error

    async def flush(self) -> None:
        """Wait until all that was sent is delivered."""
        await self._producer.flush()


def _refused(what: str, error: KafkaError) -> UnavailableError:
    reason = " ".join(str(error).split())
    return UnavailableError(f"Kafka does not take {what}: {reason}")
