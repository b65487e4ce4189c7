"""`prices` through Faust: bundles of records without automatic acknowledgement."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from agents.ports import Arrived
from pipeline.bus.ranges import read_ranges
from pipeline.bus.topics import offset_bounds
from schemas.arrivals import Message
from schemas.topics import PRICES

_TURNS: Final = 3  # of the loop, between the stream's queue and us


class FaustSource:
    """The stream of an agent; messages are acknowledged in order and only when told."""

    # Faust's annotations do not know what `enable_acks` does to a stream.
    def __init__(self, stream: Any, bootstrap: str, size: int) -> None:
        self._stream = stream
        self._bootstrap = bootstrap
        self._size = size
        self._waiting: deque[Any] = deque()  # events that nobody has taken yet
        self._given: deque[tuple[Any, int]] = deque()  # events in hand, messages of each
        self._acked = 0  # messages of the oldest event in hand
        self._moved = asyncio.Event()
        self._done = asyncio.Event()
        self._dealt: set[int] = set()

    async def batches(self) -> AsyncIterator[Sequence[Arrived]]:
        """All messages that have come meanwhile; about `size` of them may wait here."""
        self._stream.enable_acks = False
        pump = asyncio.ensure_future(self._pump())
        try:
            while True:
                while not self._waiting:
                    if pump.done():
                        pump.result()
                        return
                    await self._wait()
                await self._gather(pump)
                taken, self._waiting = list(self._waiting), deque()
                self._moved.set()
                self._given.extend((event, len(event.message.records)) for event in taken)
                yield [_arrived(one) for event in taken for one in event.message.records]
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump

    async def _pump(self) -> None:
        try:
            async for event in self._stream.events():
                self._waiting.append(event)
                self._moved.set()
                while self._is_full():
                    await self._wait()
        finally:
            self._moved.set()

    async def _gather(self, pump: "asyncio.Future[None]") -> None:
        """Wait for all partitions of a fetch: the stream takes turns of the loop for each."""
        queue, left = self._stream.channel.queue, _TURNS
        while left and not (self._is_full() or pump.done()):
            await asyncio.sleep(0)
            left = left - 1 if queue.empty() else _TURNS

    def _is_full(self) -> bool:
        return sum(len(one.message.records) for one in self._waiting) >= self._size

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def ack(self, count: int) -> None:
        """Acknowledge the oldest messages given, in order; whole events only."""
        self._acked += count
        while self._given and self._acked >= self._given[0][1]:
            event, size = self._given.popleft()
            self._acked -= size
            await self._stream.ack(event)
        self._done.set()

    async def settle(self, seconds: float) -> None:
        """Wait for what is in hand, so long; forget the rest: the group hands it out again."""
        self._waiting.clear()
        self._moved.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._given:
                    self._done.clear()
                    await self._done.wait()

    def deal(self, partitions: Iterable[int]) -> None:
        """Note that the group took partitions away, or gave them."""
        self._dealt.update(partitions)

    def dealt(self) -> set[int]:
        """Partitions taken away or given since the last call."""
        dealt, self._dealt = self._dealt, set()
        return dealt

    async def end(self, partition: int) -> int:
        """The offset of the next message that will come to the topic."""
        return (await offset_bounds(self._bootstrap, PRICES))[partition][1]

    async def reread(self, partition: int, low: int, high: int) -> AsyncIterator[Sequence[Arrived]]:
        """Messages again, by a consumer of no group."""
        async for _, messages in read_ranges(self._bootstrap, PRICES, {partition: (low, high)}):
            yield [Arrived(partition, None, message) for message in messages]


def _arrived(record: Any) -> Arrived:
    message = Message(record.offset, record.timestamp * 1_000_000, record.value)
    return Arrived(record.partition, record.key, message)
