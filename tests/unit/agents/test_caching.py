"""When the cache is written."""

import asyncio
from collections.abc import Collection, Sequence

import pytest

from agents import caching
from agents.caching import CacheKeeper
from pipeline.cache.latest import Entry
from pipeline.store.live import PartitionBatch
from pipeline.waiting import ended
from tests.fixtures.rows import rows_of


class _Cache:
    """Keeps what it was given; a write takes a minute of its own clock."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.keys: list[str] = []
        self.told = asyncio.Event()

    async def put(self, found: Sequence[Entry]) -> int:
        """Takes everything."""
        self.clock += 60.0
        self.keys += [key for key, _, _ in found]
        self.told.set()
        return len(found)

    async def is_new(self, name: str) -> bool:
        """Never."""
        assert name == "one"
        return False


class _Store:
    """Nobody asks it."""

    async def latest(self, stage: str, symbols: Collection[str]) -> dict[str, dict[str, object]]:
        """Nothing is rebuilt here."""
        raise AssertionError(stage, symbols)


async def test_after_a_slow_write_it_does_not_rest_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write that took a minute is followed by the next within a second or two."""
    cache = _Cache()
    monkeypatch.setattr(caching, "now", lambda: cache.clock)
    keeper = CacheKeeper(cache, _Store(), "one")  # type: ignore[arg-type]  # what is asked of them here
    keeping = asyncio.create_task(keeper.run(list))
    try:
        for offset in range(2):
            cache.told.clear()
            rows = {"signals": rows_of("signals", [offset])}
            keeper.remember([PartitionBatch(0, 1, offset, rows, [], [], [])])
            async with asyncio.timeout(10):
                await cache.told.wait()
    finally:
        await ended(keeping)
    assert len(cache.keys) == 2
