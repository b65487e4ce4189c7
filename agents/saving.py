"""Copies of the state in the store, taken between batches and stored in the background."""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from agents.marks import Marks
from agents.ports import Owned, Store
from agents.retries import FAILURES, now
from pipeline.store.live import compress

LOG: Final = structlog.get_logger()
_SHARE: Final = 0.05  # of the worker's time
_LOOK: Final = 0.25


class Saver:
    """Saves each partition that moved, as often as costs little of the worker's time."""

    def __init__(self, store: Store, seconds: float, marks: Marks, stepping: asyncio.Lock) -> None:
        self._store = store
        self._stepping = stepping  # held while a state is moved in a thread
        self._seconds = seconds
        self._marks = marks

    async def run(self, partitions: Callable[[], Collection[Owned]]) -> None:
        """Until cancelled, over whatever is owned."""
        due = now() + self._seconds
        while True:
            await asyncio.sleep(_LOOK)
            if now() < due:
                continue
            start = now()
            for owned in list(partitions()):
                await self.save(owned)
            due = now() + max(self._seconds, (now() - start) / _SHARE)

    async def save(self, owned: Owned) -> None:
        """Copy the state as it is now, wait until its mark is committed, store the copy."""
        async with self._stepping:
            offset = owned.next_offset - 1
            if offset <= owned.snapshot_offset:
                return
            pack = owned.copied()
        await self._marks.reached(owned.partition, offset)
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(None, lambda: compress(pack()))
        try:
            await self._store.save_snapshot(owned.partition, owned.epoch, offset, data)
            owned.snapshot_offset = offset
        except FAILURES as error:
            LOG.warning("snapshot_failed", partition=owned.partition, error=str(error))
