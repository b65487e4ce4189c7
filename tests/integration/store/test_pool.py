"""The pool on a real Postgres: bounded waits, counts, reconnecting, nothing kept by a session."""

import asyncio

import pytest

from pipeline.errors import UnavailableError
from pipeline.settings import StoreSettings
from pipeline.store.pool import Pool, open_pool


async def test_what_was_asked_is_counted(pool: Pool) -> None:
    """Each statement and each connection lent, and how long they were waited for."""
    assert await pool.fetchval("SELECT 1") == 1
    assert (await pool.fetch("SELECT generate_series(1, 3)"))[2][0] == 3
    assert (await pool.fetchrow("SELECT 1 AS a, 2 AS b"))["b"] == 2  # type: ignore[index]  # there is one
    assert await pool.execute("SET work_mem = '4MB'") == "SET"
    async with pool.acquire() as connection:
        await connection.fetchval("SELECT 1")
        assert pool.figures.idle == pool.figures.size - 1
    figures = pool.figures
    assert (figures.statements, figures.acquired) == (4, 5)
    assert (figures.refused, figures.failed) == (0, 0)
    assert 0 <= figures.longest <= figures.waited
    assert figures.idle == figures.size == 1


@pytest.mark.parametrize(
    "dsn",
    [
        "nonsense",
        "postgresql//u:hunter2@h/x",
        "postgresql://u:hunter/2@h/x",
        "postgres://u:p@h:hunter",
    ],
)
async def test_an_address_that_cannot_be_read_is_said_so(dsn: str) -> None:
    """The setting is named, and nothing of what may be a password."""
    with pytest.raises(UnavailableError, match="TICKSTREAM_POSTGRES cannot be read") as said:
        await open_pool(dsn, StoreSettings())
    assert said.value.__cause__ is None
    assert not any(part in str(said.value) for part in ("hunter", "nonsense"))


async def test_waiting_is_counted_and_bounded(postgres: str) -> None:
    """A connection that does not come free in time is refused; the wait shows."""
    small = await open_pool(postgres, StoreSettings(pool_max=1, acquire_timeout=0.2))
    try:
        async with small.acquire():
            with pytest.raises(UnavailableError, match="in time"):
                await small.fetchval("SELECT 1")
        figures = small.figures
        assert (figures.refused, figures.acquired, figures.statements) == (1, 1, 0)
        assert figures.longest >= 0.2
    finally:
        await small.close()


@pytest.mark.parametrize("pooler", [False, True])
async def test_a_statement_that_takes_too_long_is_ended(postgres: str, pooler: bool) -> None:
    """By the server, in the time of the setting; the connection lives on."""
    quick = await open_pool(
        postgres, StoreSettings(pool_max=1, statement_timeout=0.3, pooler=pooler)
    )
    try:
        with pytest.raises(UnavailableError, match="statement timeout"):  # the server's own words
            await quick.fetchval("SELECT pg_sleep(100)")
        assert quick.figures.failed == 1
        assert await quick.fetchval("SELECT 1") == 1
    finally:
        await quick.close()


async def test_a_line_that_was_cut_is_opened_again(pool: Pool, postgres: str) -> None:
    """Each session is ended by the server: one call may fail, the pool works on by itself."""
    async with pool.acquire() as one, pool.acquire() as two:
        pids = [await c.fetchval("SELECT pg_backend_pid()") for c in (one, two)]
    other = await open_pool(postgres, StoreSettings())
    try:
        for pid in pids:
            await other.execute("SELECT pg_terminate_backend($1)", pid)
    finally:
        await other.close()
    await asyncio.sleep(0.2)
    assert await pool.fetchval("SELECT pg_backend_pid()") not in pids
    async with pool.acquire() as connection:
        own = await connection.fetchval("SELECT pg_backend_pid()")
        await pool.execute("SELECT pg_terminate_backend($1)", own)
        await asyncio.sleep(0.2)
    assert await pool.fetchval("SELECT 1") == 1


async def test_a_session_is_cleared_where_something_was_set(pool: Pool, postgres: str) -> None:
    """A query leaves nothing behind, and its connection comes back without another round trip."""
    other = await open_pool(postgres, StoreSettings())
    last = "SELECT query FROM pg_stat_activity WHERE pid = $1"
    try:
        own = await pool.fetchval("SELECT pg_backend_pid()")
        assert await other.fetchval(last, own) == "SELECT pg_backend_pid()"
        default = await pool.fetchval("SHOW work_mem")
        await pool.execute("SET work_mem = '77MB'")
        assert "RESET ALL" in await other.fetchval(last, own)
        assert await pool.fetchval("SHOW work_mem") == default
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == own
        assert "RESET ALL" in await other.fetchval(last, own)
    finally:
        await other.close()


async def test_behind_a_pooler_a_session_keeps_nothing(postgres: str) -> None:
    """No statement stays prepared, none runs outside a transaction, no setting is of a session."""
    plain = await open_pool(postgres, StoreSettings(pool_max=1))
    behind = await open_pool(postgres, StoreSettings(pool_max=1, pooler=True))
    prepared = "SELECT count(*) FROM pg_prepared_statements WHERE $1::int = 1"
    try:
        for _ in range(3):
            assert await behind.fetchval(prepared, 1) == 0
        assert await plain.fetchval(prepared, 1) == 1
        # SET LOCAL outside a transaction has no effect: the value shows that there is one.
        limit = (
            "SELECT setting::int, reset_val::int FROM pg_settings WHERE name = 'statement_timeout'"
        )
        assert tuple(await behind.fetchrow(limit) or ()) == (30_000, 0)
        assert tuple(await plain.fetchrow(limit) or ()) == (30_000, 30_000)
    finally:
        await plain.close()
        await behind.close()
