"""The stream of one run, published at its rate until enough happened."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.clock import monotonic
from pipeline.errors import UnavailableError
from schemas.topics import PRICES
from tests.acceptance.chaos.prices import Publication


@dataclass(slots=True)
class Feed:
    """The stream of one run: goes on until it is told that enough happened."""

    kafka: str
    rate: float
    ticks: int
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[Publication] = field(default_factory=list)

    async def run(self, messages: Iterable[Publication]) -> None:
        """Publish at the rate, the rest at once; a message that was refused is sent again."""
        start, count = monotonic(), 0
        pending: list[tuple[Publication, asyncio.Future[object]]] = []
        async with Publisher(self.kafka) as publisher:
            for one in messages:
                if self.enough.is_set() and count >= self.ticks:
                    break
                pending.append((one, await _send(publisher, one)))
                self.sent.append(one)
                count += len(one.places)
                due = 0.0 if self.enough.is_set() else start + count / self.rate
                await asyncio.sleep(max(0.0, due - monotonic()))
                if pending[0][1].done():
                    pending = await _again(publisher, pending)
            while pending:
                await asyncio.wait([pending[0][1]])
                pending = await _again(publisher, pending)


async def _send(publisher: Publisher, one: Publication) -> "asyncio.Future[object]":
    while True:
        try:
            return await publisher.send(Outgoing(PRICES, one.value, partition=one.partition))
        except UnavailableError:
            await asyncio.sleep(0.1)


async def _again(
    publisher: Publisher, pending: "list[tuple[Publication, asyncio.Future[object]]]"
) -> "list[tuple[Publication, asyncio.Future[object]]]":
    """What is not delivered yet; failed deliveries anew."""
    left = []
    for one, delivery in pending:
        if not delivery.done():
            left.append((one, delivery))
        elif delivery.exception() is not None:
            left.append((one, await _send(publisher, one)))
    return left
