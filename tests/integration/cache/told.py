"""A follower that remembers what it was told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson

from pipeline.cache.following import Feed
from pipeline.cache.latest import Cache
from pipeline.waiting import ended


@dataclass
class Told:
    """What a feed has brought, as (stage, offset), and the keys that were dropped."""

    rows: list[tuple[str, int]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def take(self, stage: str, text: bytes) -> None:
        """A row."""
        self.rows.append((stage, orjson.loads(text)["offset"]))

    def forget(self, keys: Collection[str]) -> None:
        """Keys."""
        self.keys += keys

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for it; the time limit of the test ends it."""
        while not reached():  # noqa: ASYNC110 -- only the server knows
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[None]:
    """It follows for the length of a block."""
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        await ended(task)


@asynccontextmanager
async def followed(cache: Cache, stages: Collection[str]) -> AsyncIterator[Told]:
    """What is told of stages, from the beginning of the block on."""
    told = Told()
    feed = Feed(cache, told, stages)
    async with running(feed):
        await told.until(lambda: all(map(feed.life, stages)))
        yield told
