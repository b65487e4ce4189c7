"""The four doors of the live loop: where messages come from, and where rows go."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.bus.publisher import Outgoing
from pipeline.cache.latest import Entry
from pipeline.store.live import Claim, PartitionBatch
from schemas.arrivals import Message


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message with its partition and its key, as the source delivered it."""

    partition: int
    key: bytes | None
    message: Message


class Source(Protocol):
    """`prices`, at least once and in order within a partition."""

    def batches(self) -> AsyncIterator[Sequence[Arrived]]:
        """Messages as they come; asking for the next batch does not acknowledge the last."""
        ...

    async def ack(self) -> None:
        """The batch last given is stored: it need not be delivered again."""
        ...

    def reread(self, partition: int, low: int, high: int) -> AsyncIterator[Sequence[Arrived]]:
        """The messages with low <= offset < high again, for catching up."""
        ...


class Store(Protocol):
    """Postgres: claims, batches in one transaction, snapshots."""

    async def claim(self, partition: int) -> Claim:
        """Make a partition ours by a higher epoch."""
        ...

    async def commit(self, batches: Sequence[PartitionBatch]) -> None:
        """Store batches with their marks, all or nothing."""
        ...

    async def save_snapshot(self, partition: int, epoch: int, offset: int, data: bytes) -> None:
        """Keep a compressed copy of a state."""
        ...

    async def latest(self, stage: str, symbols: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """The newest stored row of each symbol."""
        ...


class Publish(Protocol):
    """The output topics."""

    async def deliver(self, records: Iterable[Outgoing]) -> None:
        """Publish and wait for delivery."""
        ...


class Latest(Protocol):
    """The cache of latest rows; it may be away."""

    async def put(self, found: Sequence[Entry]) -> int:
        """Write entries where they are newer."""
        ...
