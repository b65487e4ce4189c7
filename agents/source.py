"""`prices` through Faust: events without automatic acknowledgement."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from agents.ports import Arrived
from pipeline.bus.ranges import read_ranges
from schemas.arrivals import Message
from schemas.topics import PRICES


class FaustSource:
    """The stream of an agent; messages are acknowledged in order and only when told."""

    # Faust's annotations say that noack_take yields values; it yields lists of events.
    def __init__(self, stream: Any, bootstrap: str, size: int, within: float) -> None:
        self._stream = stream
        self._bootstrap = bootstrap
        self._size = size
        self._within = within
        self._given: deque[Any] = deque()
        self._lost: set[int] = set()

    async def batches(self) -> AsyncIterator[Sequence[Arrived]]:
        """Messages as they come, up to `size` at once or what arrives within `within` seconds."""
        async for events in self._stream.noack_take(self._size, within=self._within):
            self._given.extend(events)
            yield [_arrived(event.message) for event in events]

    async def ack(self, count: int) -> None:
        """Acknowledge the oldest messages given, in order."""
        for _ in range(count):
            await self._stream.ack(self._given.popleft())

    def revoke(self, partitions: Iterable[int]) -> None:
        """Note that the group took partitions away."""
        self._lost.update(partitions)

    def lost(self) -> set[int]:
        """Partitions taken away since the last call."""
        lost, self._lost = self._lost, set()
        return lost

    async def reread(self, partition: int, low: int, high: int) -> AsyncIterator[Sequence[Arrived]]:
        """Messages again, by a consumer of no group."""
        async for _, messages in read_ranges(self._bootstrap, PRICES, {partition: (low, high)}):
            yield [Arrived(partition, None, message) for message in messages]


def _arrived(message: Any) -> Arrived:
    received = round(message.timestamp * 1000) * 1_000_000  # Faust turns milliseconds to seconds
    return Arrived(message.partition, message.key, Message(message.offset, received, message.value))
