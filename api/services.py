"""The servers behind the API: opened at startup, opened again when they went away."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog

from api.errors import ApiError, Code, masked
from api.hub import Hubs
from api.instruments import Instruments
from api.mirror import Mirror
from api.renderings import Renderings
from api.topics import NO_BROKER, Topics
from pipeline.cache.documents import symbol_of
from pipeline.cache.following import Feed
from pipeline.cache.latest import KEYS, open_cache
from pipeline.cache.manager import CacheManager
from pipeline.errors import MisuseError, StateError, UnavailableError
from pipeline.settings import Settings
from pipeline.store import reads
from pipeline.store.pool import RETRYABLE, Pool, PoolFigures, open_pool
from pipeline.waiting import ended

SIGNALS: Final = "signals"
TICKS: Final = "ticks"
_POSTGRES_AWAY: Final = "Postgres is away; try again in a moment"
_PAUSES: Final = (0.1, 0.25, 0.5, 1.0)  # seconds between attempts to open; the last one repeats
_log: Final = structlog.get_logger("api")


class Services:
    """Postgres, the cache and its feed, for all requests of one process."""

    def __init__(self, settings: Settings) -> None:
        if not settings.postgres or not settings.redis:
            raise MisuseError("the API needs TICKSTREAM_POSTGRES and TICKSTREAM_REDIS")
        self.settings = settings
        self.cache = open_cache(settings.redis, settings.cache)
        self.manager = CacheManager(self.cache)
        self.feed = Feed(self.cache, self, always=[SIGNALS])
        self.hubs = Hubs(self.feed.holding)
        self.topics = Topics(settings.kafka)
        self.renderings = Renderings()
        self.mirror = Mirror(self.feed, settings.api.copied_symbols)
        self.instruments = Instruments(self.feed)
        self._dsn = settings.postgres
        self._pool: Pool | None = None
        self._reached = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # The client's pool refuses, instead of waiting, when all its connections are in use; the
        # half that is left is for the feed and for readiness.
        self._cache_calls = asyncio.Semaphore(max(1, settings.cache.pool_max // 2))

    async def start(self) -> None:
        """Begin to open; returns at once, also when everything is away."""
        self._tasks = [asyncio.create_task(self._open()), asyncio.create_task(self.feed.run())]

    async def stop(self) -> None:
        """Close all connections."""
        await ended(*self._tasks)
        await self.topics.close()
        if self._pool is not None:
            await self._pool.close()
        with suppress(UnavailableError, OSError):
            await self.cache.close()

    @asynccontextmanager
    async def postgres(self) -> AsyncIterator[Pool]:
        """The pool for the length of a block.

        Raises:
            ApiError: Postgres is away, or has no tables yet.
        """
        if self._pool is None:  # why, the log has from who tries to open it
            raise ApiError(Code.UNAVAILABLE, _POSTGRES_AWAY)
        try:
            with masked("postgres_failed", _POSTGRES_AWAY, *RETRYABLE):
                yield self._pool
        except StateError as error:
            message = "the database has no tables yet: run `tickstream migrate`"
            raise ApiError(Code.UNAVAILABLE, message) from error

    async def reached(self) -> None:
        """Wait until Postgres answers for the first time."""
        await self._reached.wait()

    @property
    def kafka(self) -> str:
        """The address of the broker.

        Raises:
            ApiError: this server has none.
        """
        if self.settings.kafka is None:
            raise ApiError(Code.UNAVAILABLE, NO_BROKER)
        return self.settings.kafka

    @property
    def pool_figures(self) -> PoolFigures | None:
        """What the pool was asked so far; None before Postgres was reached."""
        return None if self._pool is None else self._pool.figures

    def take(self, stage: str, text: bytes) -> None:
        """A row that has become the latest of its symbol."""
        if stage == TICKS:
            self.instruments.meet(symbol_of(text))
        self.hubs.publish(stage, text)
        self.mirror.take(stage, text)

    def forget(self, keys: Collection[str]) -> None:
        """Keys that were dropped from the cache."""
        self.mirror.forget(keys)

    def known_symbols(self, names: Collection[str] | None = None) -> list[str] | None:
        """The same as `symbols`, without asking; None: it has to be asked for."""
        return self.instruments.all() if names is None else self.instruments.named(names)

    async def symbols(self, names: Collection[str] | None = None) -> list[str]:
        """Every symbol seen live, or those of them that are named; sorted."""
        found = self.known_symbols(names)
        if found is None:
            found = await self.read_symbols()
            found = found if names is None else sorted(set(names).intersection(found))
        return found

    async def read_symbols(self) -> list[str]:
        """Every symbol seen live, sorted, as Postgres has them now."""
        ticket = self.instruments.begin()
        async with self.postgres() as pool:
            found = await reads.symbols(pool)
        self.instruments.keep(found, ticket)
        return found

    async def cached(self, stage: str, names: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        """The cached latest rows by symbol; None where it is known that there is none.

        Raises:
            UnavailableError: the cache is away, or was a moment ago.
        """
        if self.manager.away:
            raise UnavailableError("the cache was away a moment ago")
        try:
            async with self._cache_calls:
                return await self.manager.get_many(KEYS[stage], names)
        except UnavailableError as error:
            _log.warning("cache_failed", error=str(error))
            raise

    async def stored(self, stage: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The stored latest rows by symbol, kept in the cache for who asks next."""
        async with self.postgres() as pool:
            found = await reads.latest(pool, stage, names)
        with suppress(UnavailableError):
            async with self._cache_calls:
                await self.manager.set_many(KEYS[stage], found)
                missing = [name for name in names if name not in found]
                await self.manager.set_absent(KEYS[stage], missing)
        return found

    async def _open(self) -> None:
        attempt = 0
        while True:
            try:
                self._pool = await open_pool(self._dsn, self.settings.store)
            except UnavailableError as error:
                if attempt == 0:
                    _log.warning("postgres_awaited", error=str(error))
                await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1
            else:
                self._reached.set()
                return
