"""`FaustSource` over a stream that the test feeds."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from agents.source import FaustSource


class Stream:
    """What the source asks of a stream of Faust."""

    def __init__(self) -> None:
        self.enable_acks = True
        self.acked: list[int] = []
        self.asked = 0
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.channel = SimpleNamespace(queue=self.queue)

    def feed(self, name: int, *offsets: int) -> None:
        """One bundle of partition 0."""
        records = [
            SimpleNamespace(partition=0, offset=offset, timestamp=1, key=b"k", value=b"v")
            for offset in offsets
        ]
        self.queue.put_nowait(SimpleNamespace(name=name, message=SimpleNamespace(records=records)))

    async def events(self) -> AsyncIterator[Any]:
        """Until an exception or None is fed."""
        while True:
            self.asked += 1
            event = await self.queue.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                return
            await asyncio.sleep(0)  # a stream of Faust takes some turns of the loop for each
            yield event

    async def ack(self, event: Any) -> None:
        """Note it."""
        self.acked.append(event.name)


@pytest.fixture
def stream() -> Stream:
    """An empty one."""
    return Stream()


def _offsets(batch: Any) -> list[int]:
    return [one.message.offset for one in batch]


async def test_what_a_fetch_brought_is_one_batch(stream: Stream) -> None:
    """However many turns of the loop the stream takes until it has given all bundles."""
    batches = FaustSource(stream, "", 100).batches()
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0.01)
    for name in range(5):
        stream.feed(name, 2 * name, 2 * name + 1)
    assert _offsets(await waiting) == list(range(10))
    await batches.aclose()  # type: ignore[attr-defined]


async def test_all_that_came_meanwhile_is_one_batch(stream: Stream) -> None:
    """Records in order, milliseconds as nanoseconds, Faust's own acknowledgements off."""
    stream.feed(1, 0, 1)
    batches = FaustSource(stream, "", 100).batches()
    first = await anext(batches)
    assert _offsets(first) == [0, 1]
    assert (first[0].key, first[0].message.received) == (b"k", 1_000_000)
    assert not stream.enable_acks
    stream.feed(2, 2)
    stream.feed(3, 3, 4)
    await asyncio.sleep(0.01)
    assert _offsets(await anext(batches)) == [2, 3, 4]
    await batches.aclose()  # type: ignore[attr-defined]


async def test_a_bundle_is_acknowledged_when_all_of_it_is(stream: Stream) -> None:
    """In order, whatever the portions in which the host is done with them."""
    source = FaustSource(stream, "", 100)
    batches = source.batches()
    stream.feed(1, 0, 1, 2)
    stream.feed(2, 3)
    await anext(batches)
    await source.ack(2)
    assert stream.acked == []
    await source.ack(2)
    assert stream.acked == [1, 2]
    await batches.aclose()  # type: ignore[attr-defined]


async def test_no_more_waits_than_may(stream: Stream) -> None:
    """The pump takes the next bundle only when there is room again."""
    batches = FaustSource(stream, "", 2).batches()
    stream.feed(1, 0)
    await anext(batches)
    for name in range(2, 6):
        stream.feed(name, 2 * name, 2 * name + 1)
    await asyncio.sleep(0.01)
    assert stream.queue.qsize() == 3
    assert _offsets(await anext(batches)) == [4, 5]
    await batches.aclose()  # type: ignore[attr-defined]


async def test_settle_forgets_what_waits_and_waits_for_what_is_in_hand(stream: Stream) -> None:
    """But not for ever: a batch that cannot be stored must not hold up the group."""
    source = FaustSource(stream, "", 100)
    batches = source.batches()
    stream.feed(1, 0)
    await anext(batches)
    stream.feed(2, 1)
    await asyncio.sleep(0.01)
    settling = asyncio.create_task(source.settle(5))
    await asyncio.sleep(0.01)
    assert not settling.done()
    await source.ack(1)
    async with asyncio.timeout(1):
        await settling
    stream.feed(3, 7)
    assert _offsets(await anext(batches)) == [7]
    async with asyncio.timeout(1):
        await source.settle(0.01)  # in hand, and nobody acknowledges
    await batches.aclose()  # type: ignore[attr-defined]


async def test_the_end_of_the_stream_is_the_end_of_the_batches(stream: Stream) -> None:
    """And its failure theirs."""
    stream.queue.put_nowait(None)
    assert [batch async for batch in FaustSource(stream, "", 100).batches()] == []
    stream.queue.put_nowait(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await anext(FaustSource(stream, "", 100).batches())
