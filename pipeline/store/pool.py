"""The asyncpg pool with bounded waits and one-line errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import asyncpg

from pipeline.errors import UnavailableError
from pipeline.settings import StoreSettings
from pipeline.store.session import Session, Step, open_session

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

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        settings: StoreSettings,
        connect: Callable[[], Awaitable[Session]],
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._connect = connect
        self._sessions: list[Session] = []  # that nobody uses

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

    async def transact(self, steps: Sequence[Step]) -> None:
        """Run statements as one transaction, sent in one go.

        Raises:
            UnavailableError: the server is away or went away meanwhile; it may be committed.
            asyncpg.PostgresError: what is wrong with a statement or its rows.
        """
        try:
            session = self._idle() or await self._connect()
            await session.transact(steps, _patience(self._settings))
        except RETRYABLE as error:
            raise _away(error) from error
        self._sessions.append(session)

    def _idle(self) -> Session | None:
        while self._sessions:
            session = self._sessions.pop()
            if not session.closed:  # by the server, while it was idle
                return session
        return None

    async def close(self) -> None:
        """Close all connections; a hanging one is cut after five seconds."""
        while (session := self._idle()) is not None:
            session.close()
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()


def _patience(settings: StoreSettings) -> float:
    """Seconds to wait for an answer: the server gives up first."""
    return settings.statement_timeout + 5


def _away(error: BaseException) -> UnavailableError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnavailableError(f"Postgres does not answer: {reason}")


async def open_pool(dsn: str, settings: StoreSettings) -> Pool:
    """Connect.

    Raises:
        UnavailableError: the server does not answer or refuses us.
    """
    options: dict[str, Any] = {
        "timeout": settings.acquire_timeout,
        "server_settings": {
            "application_name": "tickstream",
            "statement_timeout": str(int(settings.statement_timeout * 1000)),
            "timezone": "UTC",
        },
    }
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=settings.pool_min,
            max_size=settings.pool_max,
            command_timeout=_patience(settings),
            **options,
        )
    except (*RETRYABLE, asyncpg.PostgresError, ValueError) as error:
        raise _away(error) from error
    return Pool(pool, settings, partial(open_session, dsn, **options))
