"""The asyncpg pool with bounded waits and one-line errors."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from pipeline.errors import UnavailableError
from pipeline.settings import StoreSettings

# What a caller may retry: the server is away, cut the line, or is starting or stopping.
RETRYABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a line that was cut in the middle of an operation
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Pool:
    """Connections of one database; acquiring waits at most `acquire_timeout` seconds."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: StoreSettings) -> None:
        self._pool = pool
        self._settings = settings

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection for the length of a block.

        Raises:
            UnavailableError: none came free in time, the server is away or went away meanwhile.
        """
        try:
            connection = await self._pool.acquire(timeout=self._settings.acquire_timeout)
        except TimeoutError as error:
            raise UnavailableError("Postgres: no connection came free in time") from error
        except RETRYABLE as error:
            raise _away(error) from error
        try:
            yield connection
        except RETRYABLE as error:
            raise _away(error) from error
        finally:
            await self._pool.release(connection)

    async def fetch(self, sql: str, *args: Any) -> Sequence[asyncpg.Record]:
        """All rows of a query."""
        async with self.acquire() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> asyncpg.Record | None:
        """The first row of a query."""
        async with self.acquire() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """The first column of the first row of a query."""
        async with self.acquire() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        """Run a statement; returns its status."""
        async with self.acquire() as connection:
            return await connection.execute(sql, *args)

    async def close(self) -> None:
        """Close all connections; a hanging one is cut after five seconds."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()


def _away(error: BaseException) -> UnavailableError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnavailableError(f"Postgres does not answer: {reason}")


async def open_pool(dsn: str, settings: StoreSettings) -> Pool:
    """Connect.

    Raises:
        UnavailableError: the server does not answer or refuses us.
    """
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=settings.pool_min,
            max_size=settings.pool_max,
            timeout=settings.acquire_timeout,
            command_timeout=settings.statement_timeout + 5,
            server_settings={
                "application_name": "tickstream",
                "statement_timeout": str(int(settings.statement_timeout * 1000)),
                "timezone": "UTC",
            },
        )
    except (*RETRYABLE, asyncpg.PostgresError, ValueError) as error:
        raise _away(error) from error
    return Pool(pool, settings)
