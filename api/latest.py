"""Latest rows for one request: from this process, or by one call to the cache per stage."""

import asyncio
from typing import Any

from api.batches import Batch
from api.mirror import MISSING, newest
from api.services import Services
from pipeline.errors import UnavailableError

Row = dict[str, Any]


class LatestLoader:
    """What the mirror does not have is gathered for one turn of the loop, then read at once."""

    def __init__(self, services: Services) -> None:
        self.cache_away = False
        """Whether the cache failed during this request."""
        self._services = services
        self._batches: dict[str, Batch[str, Row | None]] = {}

    def load(self, stage: str, symbol: str) -> "Row | asyncio.Future[Row | None] | None":
        """The latest row of a symbol, None when there is none; at once if it is here."""
        found: Row | None = self._services.mirror.get(stage, symbol)
        if found is not MISSING:
            return found
        batch = self._batches.get(stage)
        if batch is None:

            async def read(names: list[str]) -> dict[str, Row | Exception | None]:
                return await self._read(stage, names)

            batch = self._batches[stage] = Batch(read)
        return batch.load(symbol)

    async def wait(self, stage: str, symbol: str) -> Row | None:
        """The same, for who cannot take it at once."""
        found = self.load(stage, symbol)
        return await found if isinstance(found, asyncio.Future) else found

    async def _read(self, stage: str, names: list[str]) -> dict[str, Row | Exception | None]:
        """What the cache has, and where it has nothing, or less than was known, what is stored."""
        mirror = self._services.mirror
        ticket = mirror.begin(stage)
        found = await self._from_cache(stage, names)
        behind = mirror.behind(stage, found)
        missing = [name for name in names if name not in found or name in behind]
        failed: dict[str, Row | Exception | None] = {}
        if missing:
            try:
                stored = await self._services.stored(stage, missing)
            except Exception as error:  # noqa: BLE001 - raised again where the row is awaited
                # What the cache has stands, or what was known if that is more.
                failed = {name: error for name in missing if name not in found}
                behind = {}
            else:
                found |= {name: newest(found.get(name), stored.get(name)) for name in missing}
        return {**failed, **mirror.keep(stage, found, ticket, behind)}

    async def _from_cache(self, stage: str, names: list[str]) -> dict[str, Row | None]:
        try:
            return await self._services.cached(stage, names)
        except UnavailableError:
            self.cache_away = True
            return {}
