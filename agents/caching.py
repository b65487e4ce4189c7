"""Keeping the cache at the latest stored rows without ever waiting for it in the stream."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import structlog

from agents.ports import Latest, Store
from agents.retries import FAILURES, now
from pipeline.bus.encoding import row_bytes
from pipeline.cache.latest import Entry, entries, last_rows, row_entries
from pipeline.store.live import PartitionBatch
from pipeline.waiting import set_within
from schemas.blocks import STAGES, Rows

LOG: Final = structlog.get_logger()
# What is acted on: few rows, which do not wait until all that is only looked at is written.
_FIRST: Final = frozenset(("signals", "fills"))
_REST: Final = 1.0  # seconds that a failing cache is left alone, and a slow one at most
_LOOK: Final = 2.0  # seconds between looks whether it came back empty
_ASKED: Final = 500  # symbols of one query
_HELD: Final = 50_000  # rows that wait as they are; more are made one document a key
_PACE: Final = 0.005  # seconds between writes: only the last of a symbol's rows becomes a document
_TURN: Final = 150  # rows that are made documents in one turn of the loop: a millisecond
_START: Final = 5  # rows that take as long as a stage of a partition by itself
_IDLE: Final = 2.0  # and so much of the time that a write took: it shares the loop with the stream


class _Lane:
    """Rows of some stages on their way to the cache, in the order of their batches."""

    def __init__(self, cache: Latest, stages: frozenset[str]) -> None:
        self._cache = cache
        self._stages = stages
        self._fresh: dict[tuple[int, str], list[Rows]] = defaultdict(list)
        self._held = 0
        self._unsent: dict[str, Entry] = {}
        self._dirty = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._fresh or self._unsent)

    def remember(self, batches: Iterable[PartitionBatch]) -> None:
        """What was committed, oldest first."""
        for batch in batches:
            for stage, rows in batch.rows.items():
                if stage in self._stages and len(rows):
                    self._fresh[batch.partition, stage].append(rows)
                    self._held += len(rows)
                    self._dirty.set()
        if self._held > _HELD:
            for _ in self._conflate():
                pass

    async def run(self, failed: Callable[[], None]) -> None:
        """Write what comes until cancelled; `failed` is told of each failure."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            began = now()
            try:
                await self.put()
            except FAILURES as error:
                LOG.warning("cache_failed", error=str(error), kept=len(self._unsent))
                self._dirty.set()
                failed()
                await asyncio.sleep(_REST)
            else:
                await asyncio.sleep(min(max(_PACE, _IDLE * (now() - began)), _REST))

    async def put(self) -> None:
        """Write what waits, once."""
        spent = 0
        for rows in self._conflate():
            spent += _START + rows
            if spent > _TURN:
                await asyncio.sleep(0)  # what comes in is to be stepped meanwhile
                spent = 0
        sent = dict(self._unsent)
        if not sent:
            return
        await self._cache.put(list(sent.values()))
        for key, entry in sent.items():
            if self._unsent.get(key) is entry:  # not replaced meanwhile
                del self._unsent[key]

    def _conflate(self) -> Iterator[int]:
        """The last rows that wait as documents, one a key; a stage of a partition at a time.

        Yields how many it made.
        """
        for key in list(self._fresh):
            parts = self._fresh.pop(key, [])
            self._held -= sum(map(len, parts))
            made = 0
            for rows in last_rows(*parts):
                made += len(rows)
                for entry in row_entries(rows, row_bytes):
                    self._unsent[entry[0]] = entry
            yield made


class CacheKeeper:
    """Writes what was committed; conflates to one value a key while the cache is slow or away.

    The cache may lose everything at any time: then it is rebuilt from the store in the background,
    which cannot take it back in time, for only newer rows replace older ones.
    """

    def __init__(self, cache: Latest, store: Store, name: str) -> None:
        self._cache = cache
        self._store = store
        self._name = name
        self._lanes = (_Lane(cache, _FIRST), _Lane(cache, frozenset(STAGES) - _FIRST))
        self._rebuild: dict[str, None] = {}  # symbols, in order
        self._look_at = 0.0
        self._called = asyncio.Event()

    def remember(self, batches: Sequence[PartitionBatch]) -> None:
        """What was committed, oldest first."""
        for lane in self._lanes:
            lane.remember(batches)

    def refresh(self, symbols: Iterable[str]) -> None:
        """Have the latest rows of these symbols written from the store: who knows what is there."""
        for symbol in symbols:
            self._rebuild[symbol] = None
        self._called.set()

    async def run(self, symbols: Callable[[], Iterable[str]]) -> None:
        """Until cancelled; `symbols` tells which ones an emptied cache is to be given again."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run(self._look_soon))
            await self._watch(symbols)

    async def flush(self) -> None:
        """Write what is there, once, at the end."""
        try:
            for lane in self._lanes:
                while not lane.empty:
                    await lane.put()
            while self._rebuild:
                await self._restore_some()
        except FAILURES as error:
            LOG.warning("cache_failed", error=str(error), kept=len(self._rebuild))

    def _look_soon(self) -> None:
        self._look_at = now()  # it may have been restarted
        self._called.set()

    async def _watch(self, symbols: Callable[[], Iterable[str]]) -> None:
        unheard = False  # an answer was lost: it may have been yes, and will not be given twice
        while True:
            self._called.clear()
            try:
                if now() >= self._look_at:
                    before, unheard = unheard, True
                    if await self._cache.is_new(self._name) or before:
                        self.refresh(symbols())
                    unheard = False
                    self._look_at = now() + _LOOK
                while self._rebuild:
                    await self._restore_some()
            except FAILURES as error:
                LOG.warning("cache_failed", error=str(error), kept=len(self._rebuild))
                self._look_at = now()
                await asyncio.sleep(_REST)
            else:
                await set_within(self._called, max(self._look_at - now(), 0.0))

    async def _restore_some(self) -> None:
        symbols: Sequence[str] = list(self._rebuild)[:_ASKED]
        for stage in STAGES if symbols else ():
            latest = await self._store.latest(stage, symbols)
            await self._cache.put(entries(stage, latest.values()))
        for symbol in symbols:
            self._rebuild.pop(symbol, None)
