"""The asyncpg pool with bounded waits, one-line errors and counts of what was asked."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import asyncpg

from pipeline.clock import monotonic
from pipeline.errors import StateError, UnavailableError
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
_NOT_MIGRATED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
)
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
# It tells each vain attempt to reopen an idle line with its traceback; who needs one tells a line.
logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
_MARGIN: Final = 5.0  # seconds that an answer may take beyond what the server was given


if TYPE_CHECKING:
    _Base: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    _Base = asyncpg.Connection  # generic in its stubs only


class _Connection(_Base):
    """One that is given back without a round trip when its session was left as it was."""

    unchanged = False

    def leave_as_it_was(self) -> None:
        """Who had it set nothing that lasts, and holds nothing."""
        self.unchanged = True

    def get_reset_query(self) -> str:
        """What asyncpg clears a session by; empty: there is nothing to clear."""
        if self.unchanged:
            self.unchanged = False
            return ""
        return super().get_reset_query()


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """Counts since the pool was opened, and how it stands now."""

    acquired: int
    """Connections lent."""
    waited: float
    """Seconds that borrowers waited for them, in all."""
    longest: float
    """Seconds of the longest of these waits."""
    refused: int
    """Times that no connection came free in time."""
    failed: int
    """Times that the server was away or went away meanwhile."""
    statements: int
    """Statements by `fetch`, `fetchrow`, `fetchval` and `execute`; transactions by `transact`."""
    size: int
    """Connections open now."""
    idle: int
    """Of these, the ones that nobody uses."""


class Pool:
    """Connections of one database; acquiring waits at most `acquire_timeout` seconds.

    A line that was cut is opened again by the next one who needs it.
    """

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
        self._acquired = self._refused = self._failed = self._statements = 0
        self._waited = self._longest = 0.0

    @property
    def figures(self) -> PoolFigures:
        """What was asked of it so far."""
        return PoolFigures(
            self._acquired,
            self._waited,
            self._longest,
            self._refused,
            self._failed,
            self._statements,
            self._pool.get_size(),
            self._pool.get_idle_size(),
        )

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection for the length of a block.

        Raises:
            UnavailableError: none came free in time, the server is away or went away meanwhile.
            StateError: the database has not the tables or columns of this version.
        """
        connection = await self._borrow()
        try:
            yield connection
        except _NOT_MIGRATED as error:
            raise StateError(f"Postgres: {error}: run `tickstream migrate`") from error
        except RETRYABLE as error:
            self._failed += 1
            raise _away(error) from error
        finally:
            await self._pool.release(connection)

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[Connection]:
        """As `acquire`, and for the length of the block the database stands still."""
        async with (
            self.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def _borrow(self) -> Connection:
        began = monotonic()
        try:
            connection = await self._pool.acquire(timeout=self._settings.acquire_timeout)
        except TimeoutError as error:
            self._refused += 1
            raise UnavailableError("Postgres: no connection came free in time") from error
        except RETRYABLE as error:
            self._failed += 1
            raise _away(error) from error
        finally:
            waited = monotonic() - began
            self._waited += waited
            self._longest = max(self._longest, waited)
        self._acquired += 1
        return connection

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[Connection]:
        """A connection for one statement."""
        async with self.acquire() as connection:
            self._statements += 1
            if not self._settings.pooler:
                yield connection
                return
            # Parsing and running are two turns of the protocol: without a transaction around them
            # the pooler may give each to another server.
            async with connection.transaction():
                limit = int(self._settings.statement_timeout * 1000)
                await connection.execute(f"SET LOCAL statement_timeout = {limit}")
                yield connection

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[Connection]:
        """The same for a query, which changes nothing of its session."""
        async with self._one() as connection:
            yield connection
            cast("Any", connection).leave_as_it_was()  # the proxy passes it on

    async def fetch(self, sql: str, *args: Any) -> Sequence[asyncpg.Record]:
        """All rows of a query; here and below: of one that sets and locks nothing that lasts."""
        async with self._read() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> asyncpg.Record | None:
        """The first row of a query."""
        async with self._read() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """The first column of the first row of a query."""
        async with self._read() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        """Run a statement; returns its status. Behind a pooler it runs inside a transaction."""
        async with self._one() as connection:
            return await connection.execute(sql, *args)

    async def transact(self, steps: Sequence[Step]) -> None:
        """Run statements as one transaction, sent in one go.

        Raises:
            UnavailableError: the server is away or went away meanwhile; it may be committed.
            asyncpg.PostgresError: what is wrong with a statement or its rows.
        """
        self._statements += 1
        try:
            session = self._idle() or await self._connect()
            await session.transact(steps, _patience(self._settings))
        except RETRYABLE as error:
            self._failed += 1
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
            async with asyncio.timeout(5):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


def _patience(settings: StoreSettings) -> float:
    """Seconds to wait for an answer: the server gives up first."""
    return settings.statement_timeout + min(_MARGIN, settings.statement_timeout)


def _away(error: BaseException) -> UnavailableError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnavailableError(f"Postgres does not answer: {reason}")


async def _left_as_it_is(_connection: Any) -> None:
    """Behind a pooler a session is nobody's: what it would be cleared of was never set."""


async def open_pool(dsn: str, settings: StoreSettings) -> Pool:
    """Connect.

    Raises:
        UnavailableError: the server does not answer or refuses us.
    """
    common = {"application_name": "tickstream", "timezone": "UTC"}
    own = {"statement_timeout": str(int(settings.statement_timeout * 1000))}
    # A pooler knows neither what a session has prepared nor most parameters of its start.
    behind: dict[str, Any] = {"statement_cache_size": 0} if settings.pooler else {}
    options: dict[str, Any] = {
        "timeout": settings.acquire_timeout,
        "server_settings": common if settings.pooler else {**common, **own},
        **behind,
    }
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=settings.pool_min,
            max_size=settings.pool_max,
            command_timeout=_patience(settings),
            reset=_left_as_it_is if settings.pooler else None,
            connection_class=_Connection,
            **options,
        )
    except ValueError:
        # Neither the address nor what the parser says of it: parts of a password may be in both.
        message = "TICKSTREAM_POSTGRES cannot be read: it is like postgresql://USER@HOST:5432/NAME"
        raise UnavailableError(message) from None
    except (*RETRYABLE, asyncpg.PostgresError) as error:
        raise _away(error) from error
    return Pool(pool, settings, partial(open_session, dsn, **options))


@asynccontextmanager
async def pooled(dsn: str, settings: StoreSettings) -> AsyncIterator[Pool]:
    """A pool for the length of a block; raises as `open_pool` does."""
    pool = await open_pool(dsn, settings)
    try:
        yield pool
    finally:
        await pool.close()
