"""Latest rows for one request: one call to the cache per stage, however many symbols."""

import asyncio
from typing import Any

from api.services import Services
from pipeline.errors import UnavailableError

Row = dict[str, Any]


class LatestLoader:
    """Gathers what the resolvers of one turn of the loop ask for, then reads it at once."""

    def __init__(self, services: Services) -> None:
        self.cache_away = False
        """Whether the cache failed during this request."""
        self._services = services
        self._asked: dict[tuple[str, str], asyncio.Future[Row | None]] = {}
        self._waiting: dict[str, list[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def load(self, stage: str, symbol: str) -> "asyncio.Future[Row | None]":
        """The latest row of a symbol, None when there is none."""
        known = self._asked.get((stage, symbol))
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Row | None] = loop.create_future()
        self._asked[stage, symbol] = future
        if stage not in self._waiting:
            self._waiting[stage] = []
            loop.call_soon(self._begin, stage)
        self._waiting[stage].append(symbol)
        return future

    def _begin(self, stage: str) -> None:
        task = asyncio.create_task(self._read(stage, self._waiting.pop(stage)))
        self._tasks.add(task)  # the loop itself holds tasks weakly only
        task.add_done_callback(self._tasks.discard)

    async def _read(self, stage: str, names: list[str]) -> None:
        found = await self._from_cache(stage, names)
        missing = [name for name in names if name not in found]
        trouble: Exception | None = None
        if missing:
            try:
                found |= await self._services.stored(stage, missing)
            except Exception as error:  # noqa: BLE001 - raised again where the row is awaited
                trouble = error
        for name in names:
            future = self._asked[stage, name]
            if future.done():  # cancelled: a sibling field failed
                continue
            if trouble is None or name in found:
                future.set_result(found.get(name))
            else:
                future.set_exception(trouble)

    async def _from_cache(self, stage: str, names: list[str]) -> dict[str, Row | None]:
        try:
            return await self._services.cached(stage, names)
        except UnavailableError:
            self.cache_away = True
            return {}
