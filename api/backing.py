"""What stands behind every way in: the servers, who is let in, and how much of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.access import Access
from api.rates import Rates
from api.services import Services
from pipeline.cache.buckets import Buckets
from pipeline.settings import Settings
from pipeline.store.keys import KeyRecord, valid_keys
from pipeline.waiting import ended


@dataclass(frozen=True, slots=True)
class Backing:
    """One for all of a process: GraphQL and gRPC share rows, keys and rates."""

    services: Services
    access: Access
    rates: Rates

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For the length of a block it connects, and keeps trying when servers are away."""
        await self.services.start()
        watching = asyncio.create_task(self.access.run())
        try:
            yield
        finally:
            await ended(watching)
            await self.rates.close()
            await self.services.stop()


def create_backing(settings: Settings) -> Backing:
    """What the settings name; nothing is opened yet.

    Raises:
        MisuseError: the address of a server is not set, or a key for tokens cannot be used.
        UnavailableError: the address of Redis cannot be read.
    """
    services = Services(settings)
    rates = Rates(settings.api, Buckets(services.cache).lease)
    return Backing(services, create_access(services), rates)


def create_access(services: Services) -> Access:
    """Who is let in, by the keys of Postgres.

    Raises:
        MisuseError: a key for tokens cannot be used.
    """

    async def read() -> Mapping[str, KeyRecord]:
        await services.reached()
        async with services.postgres() as pool:
            return await valid_keys(pool)

    return Access(services.settings.api, read)
