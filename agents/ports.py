"""The doors of the live loop: where messages come from, where rows go, what makes rows of them."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.bus.publisher import Outgoing
from pipeline.cache.latest import Entry
from pipeline.models.following import Offer
from pipeline.stages.boosted import Activated
from pipeline.store.live import Claim, PartitionBatch
from schemas.arrivals import Message
from schemas.models import Activation


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message with its partition and its key, as the source delivered it."""

    partition: int
    key: bytes | None
    message: Message


@dataclass(frozen=True, slots=True)
class Stepped:
    """What new messages of a partition made: a batch for the store, records for the topics."""

    batch: PartitionBatch
    records: Sequence[Outgoing]


class Source(Protocol):
    """`prices`, at least once and in order within a partition."""

    def batches(self) -> AsyncIterator[Sequence[Arrived]]:
        """Messages as they come; asking for more does not acknowledge anything."""
        ...

    async def ack(self, count: int) -> None:
        """So many of the oldest messages not acknowledged yet need not be delivered again."""
        ...

    def reread(self, partition: int, low: int, high: int) -> AsyncIterator[Sequence[Arrived]]:
        """The messages with low <= offset < high again, for catching up."""
        ...

    def dealt(self) -> set[int]:
        """Partitions that were taken away or given since the last call."""
        ...

    async def end(self, partition: int) -> int:
        """The offset of the next message that will come to the topic."""
        ...


class Models(Protocol):
    """Versions of the engine gbdt that may speak."""

    @property
    def newest(self) -> Offer | None:
        """The newest that are ready, if there are any."""
        ...

    async def activated(self, planned: Sequence[Activation]) -> Sequence[Activated]:
        """Activations that were stored, with their versions.

        Raises:
            StateError: a version cannot be used any more.
        """
        ...


class Store(Protocol):
    """Postgres: claims, activations, batches in one transaction, snapshots."""

    async def claim(self, partition: int) -> Claim:
        """Make a partition ours by a higher epoch."""
        ...

    async def holds(self, partition: int, epoch: int) -> bool:
        """Whether this epoch of a partition is still the newest."""
        ...

    async def plan(self, batches: Sequence[PartitionBatch]) -> None:
        """Store the activations that batches begin with, all or nothing; twice the same is once.

        Raises:
            FencedError: a partition has a newer owner.
        """
        ...

    async def commit(self, batches: Sequence[PartitionBatch]) -> None:
        """Store batches with their marks, all or nothing; what is stored already is skipped.

        Raises:
            FencedError: a partition has a newer owner.
        """
        ...

    async def save_snapshot(self, partition: int, epoch: int, offset: int, data: bytes) -> None:
        """Keep a compressed copy of a state whose mark is stored."""
        ...

    async def latest(self, stage: str, symbols: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """The newest stored row of each symbol."""
        ...


class Publish(Protocol):
    """The output topics."""

    async def deliver(self, records: Iterable[Outgoing]) -> None:
        """Publish and wait for delivery; a record may be there after a failure."""
        ...


class Latest(Protocol):
    """The cache of latest rows; it may be away, slow, or come back empty."""

    async def put(self, found: Sequence[Entry]) -> int:
        """Write entries where they are newer."""
        ...

    async def is_new(self, name: str) -> bool:
        """Whether the cache was emptied since it was last asked under this name."""
        ...


class Owned(Protocol):
    """A partition in our hands; messages below `next_offset` are in its state already.

    Of those below `published` rows of an older owner may be out: no versions are swapped there.
    """

    partition: int
    epoch: int
    next_offset: int
    snapshot_offset: int
    published: int

    @property
    def symbols(self) -> Sequence[str]:
        """Symbols seen on this partition."""
        ...

    def restore(self, offset: int, data: bytes) -> None:
        """Continue from a snapshot taken after `offset`.

        Raises:
            StateError: the snapshot is damaged or of other settings.
        """
        ...

    def reset(self) -> None:
        """Start from nothing."""
        ...

    @property
    def activation(self) -> Activation | None:
        """The last one that is planned or applied."""
        ...

    def plan(self, activated: Sequence[Activated]) -> None:
        """Apply these where they were planned, or will be; those that are in the state are not."""
        ...

    def catch_up(self, arrived: Sequence[Arrived]) -> None:
        """Step messages whose rows are stored already: only the state moves."""
        ...

    def settled(self) -> None:
        """What is in the state now was stored: count facts from here on."""
        ...

    def step(self, arrived: Sequence[Arrived], offer: Offer | None = None) -> Stepped | None:
        """Run new messages through the chain, by these versions from the first of them on.

        None if all of them were known.
        """
        ...

    def copied(self) -> Callable[[], bytes]:
        """A copy of the state; what is returned packs it and may run in a thread."""
        ...


Own = Callable[[int, int], Owned]  # of a partition and an epoch
