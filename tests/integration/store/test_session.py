"""A whole transaction in one go on a real Postgres: all or nothing, whatever breaks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date

import asyncpg
import pytest

from pipeline.errors import UnavailableError
from pipeline.store import parameters
from pipeline.store.pool import Pool
from pipeline.store.session import Session, Step, open_session
from tests.acceptance.evidence import until

_INSERT = "INSERT INTO kept SELECT * FROM unnest($1::bigint[], $2::text[])"
_COPY = "COPY kept FROM STDIN"


@pytest.fixture
async def session(pool: Pool, postgres: str) -> AsyncIterator[Session]:
    """A session on a database with one table."""
    await pool.execute("CREATE TABLE kept (number bigint CHECK (number < 100), name text)")
    opened = await open_session(postgres)
    yield opened
    opened.close()


def insert(*numbers: int) -> Step:
    """Rows by parameters."""
    names = [f"name {number}" for number in numbers]
    return Step(_INSERT, (parameters.bigints(numbers), parameters.texts(names)))


def copy(*lines: bytes) -> Step:
    """Rows by COPY, in parts that need not be rows."""
    return Step(_COPY, copied=lines)


async def kept(pool: Pool) -> list[int]:
    """The numbers that are stored."""
    return [row["number"] for row in await pool.fetch("SELECT number FROM kept ORDER BY 1")]


async def test_statements_and_copies_are_one_transaction(pool: Pool, session: Session) -> None:
    """In their order, and again on the same session."""
    for first in (0, 10):
        steps = [
            insert(first),
            copy(b"%d\ta\n%d" % (first + 1, first + 2), b"\tb\n"),
            Step("UPDATE kept SET number = number + 5 WHERE number = $1", (bigint(first + 2),)),
            insert(first + 3),
        ]
        await session.transact(steps, 10)
    assert await kept(pool) == [0, 1, 3, 7, 10, 11, 13, 17]
    ids = await pool.fetch("SELECT DISTINCT xmin::text FROM kept")
    assert len(ids) == 2


def bigint(value: int) -> bytes:
    """A `bigint`."""
    return value.to_bytes(8, "big", signed=True)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (insert(100), "23514"),
        (copy(b"1\ta\n100\tb\n"), "23514"),
        (copy(b"no number\ta\n", b"more that nobody reads\n" * 100_000), "22P02"),
        (Step("SELECT no_such_function()"), "42883"),
        (Step("COPY no_such_table FROM STDIN", copied=[b"1\n" * 100_000]), "42P01"),
    ],
    ids=["check", "check-in-copy", "text-in-copy", "name", "copy-to-nowhere"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_the_first_error_takes_all_back(
    pool: Pool, session: Session, bad: Step, code: str, place: int
) -> None:
    """Wherever it stands; it is told as asyncpg tells it, and the session is closed."""
    steps = [insert(1), copy(b"2\ta\n")]
    steps.insert(place, bad)
    with pytest.raises(asyncpg.PostgresError) as caught:
        await session.transact(steps, 10)
    assert caught.value.sqlstate == code
    assert await kept(pool) == []
    assert session.closed
    with pytest.raises(ConnectionError):
        await session.transact([insert(3)], 10)


async def test_a_body_larger_than_any_buffer(pool: Pool, session: Session) -> None:
    """The line takes what it can and the rest later."""
    lines = b"".join(b"%d\t%s\n" % (number % 100, b"x" * 1000) for number in range(20_000))
    await session.transact([insert(1), copy(lines), insert(2)], 60)
    assert len(await kept(pool)) == 20_002


async def test_no_answer_in_time(pool: Pool, session: Session) -> None:
    """The server has all it needs and may still commit: then all of it, or nothing."""
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE kept IN SHARE ROW EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            await session.transact([Step("CREATE TABLE made ()"), insert(1)], 0.2)
        assert session.closed

    async def ended() -> bool:
        return not await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query = $1", _INSERT
        )

    await until(ended, 10)
    made = await pool.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'made'")
    assert len(await kept(pool)) == made


async def test_cancelled_in_the_middle(pool: Pool, session: Session) -> None:
    """The session is not used again; that the server ends it as well takes its rows back."""
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE kept IN SHARE ROW EXCLUSIVE MODE")
        waiting = asyncio.ensure_future(session.transact([insert(1)], 10))
        await blocked(pool)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert session.closed
        await gone(pool)
    assert await kept(pool) == []


async def blocked(pool: Pool) -> int:
    """The process id of the session that waits for a lock, as soon as one does."""
    sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    async def one_does() -> bool:
        return await pool.fetchval(sql) is not None

    await until(one_does, 10)
    return int(await pool.fetchval(sql))


async def gone(pool: Pool) -> None:
    """End the session that waits; its client has left already."""
    await pool.execute("SELECT pg_terminate_backend($1)", await blocked(pool))


async def test_ended_by_the_server_in_the_middle(pool: Pool) -> None:
    """The pool says that Postgres does not answer, which callers retry, and connects anew."""
    await pool.execute("CREATE TABLE kept (number bigint, name text)")

    async def locked() -> None:
        async with pool.acquire() as other, other.transaction():
            await other.execute("LOCK TABLE kept IN SHARE ROW EXCLUSIVE MODE")
            waiting = asyncio.ensure_future(pool.transact([insert(1)]))
            await gone(pool)
            with pytest.raises(UnavailableError, match="terminating connection"):
                await waiting

    await locked()
    assert await kept(pool) == []
    await pool.transact([insert(2)])
    assert await kept(pool) == [2]


async def test_ended_by_the_server_while_idle(pool: Pool) -> None:
    """The next transaction connects anew: nobody is told of a line that nobody used."""
    await pool.execute("CREATE TABLE kept (number bigint, name text)")
    await pool.transact([insert(1)])
    (idle,) = pool._sessions
    ended = await pool.fetchval(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        " AND query LIKE 'INSERT INTO kept%'"
    )
    assert ended == 1

    async def noticed() -> bool:
        return idle.closed

    await until(noticed, 10)
    await pool.transact([insert(2)])
    assert await kept(pool) == [1, 2]


async def test_transactions_at_the_same_time_have_a_session_each(pool: Pool) -> None:
    """And the sessions are kept for the next ones."""
    await pool.execute("CREATE TABLE kept (number bigint, name text)")
    for _ in range(3):
        await asyncio.gather(*(pool.transact([insert(number)]) for number in range(4)))
        assert 1 <= len(pool._sessions) <= 4
    assert await kept(pool) == sorted([*range(4)] * 3)


async def test_parameters_arrive_as_they_are(pool: Pool) -> None:
    """Every kind in binary, with the limits of each, read back by asyncpg."""
    await pool.execute("CREATE TABLE p (t text, d date, i int[], b bigint[], s text[], y bytea[])")
    rows = [
        ("é\u2028'\"\\", date(1969, 7, 20), [-(2**31), 0, 2**31 - 1], [-(2**63), 2**63 - 1]),
        ("", date(2026, 11, 25), [], []),
    ]
    words, raw = ["", "NULL", "{a,b}", "語\n"], [b"", b"\x00\xff\\", bytes(range(256))]
    for word, day, small, large in rows:
        values = (
            *(parameters.text(word), parameters.day(day), parameters.ints(small)),
            *(parameters.bigints(large), parameters.texts(words), parameters.byteas(raw)),
        )
        await pool.transact([Step("INSERT INTO p VALUES ($1, $2, $3, $4, $5, $6)", values)])
    stored = await pool.fetch("SELECT * FROM p")
    assert [tuple(row) for row in stored] == [(*row, words, raw) for row in rows]
