"""Pages of a symbol's history over open, indexed and settled days, against a list in Python."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from pipeline.clock import today
from pipeline.errors import StateError
from pipeline.servers import Addresses
from pipeline.settings import StoreSettings
from pipeline.store import history
from pipeline.store.copy import HEADER, TRAILER, copy_columns, copy_pieces
from pipeline.store.migrate import ensure_days, leaf, migrate
from pipeline.store.pool import Pool, open_pool
from pipeline.store.reads import LAST, cursor_of
from pipeline.store.session import Step
from pipeline.store.statements import statement
from pipeline.store.upkeep import keep, summarise
from schemas.blocks import Rows, empty
from tests.fixtures.databases import bare_database

FOR_EVER = StoreSettings()
DAYS = 5  # two settled, two that upkeep leaves open to late writers, today
ROWS = 30_000  # a day: some 500 pages, more than are read at once
SYMBOLS = ("BUSY", "HALF", "RARE", "OTHER")
SHARES = (0.6, 0.3, 0.001, 0.099)
SECOND = 1_000_000_000
END = 2**62


@dataclass(frozen=True)
class Stored:
    """What lies in the tables: places and known-at times of every symbol, in order."""

    places: dict[str, list[tuple[int, int, int, int]]]
    known: dict[tuple[int, int, int, int], int]

    def expected(
        self, symbol: str, start: int, end: int, known: int = 2**63 - 1
    ) -> list[tuple[int, int, int, int]]:
        """The places of a range as the list has them."""
        return [
            place
            for place in self.places[symbol]
            if start <= place[0] < end and self.known[place] <= known
        ]


def made(day: int, rng: np.random.Generator, *, ordered: bool) -> Rows:
    """Ticks of a day: event times rise, a few are a day late, many share their time."""
    rows = empty("ticks", ROWS, SYMBOLS)
    times = day * ROWS + np.arange(ROWS) // 3 * 3
    late = rng.random(ROWS) < 0.01
    times = np.where(late, times - ROWS, times)
    if not ordered:
        times = rng.permutation(times)
    rows.columns["symbol"][:] = rng.choice(len(SYMBOLS), ROWS, p=SHARES)
    rows.columns["ts"][:] = times * SECOND
    rows.columns["known_at"][:] = (day * ROWS + np.arange(ROWS)) * SECOND
    rows.columns["partition"][:] = rng.integers(0, 3, ROWS)
    rows.columns["offset"][:] = day * ROWS + np.arange(ROWS)
    rows.columns["flag"][:] = 0
    return rows


async def copied(pool: Pool, rows: Rows, day: date) -> None:
    """Rows as if they had been stored on a day."""
    async with pool.acquire() as connection, connection.transaction():
        await ensure_days(connection, [day])
    names = ", ".join(f'"{name}"' for name in copy_columns(rows.stage))
    sql = f"COPY {leaf(rows.stage, day)} ({names}) FROM STDIN (FORMAT binary)"
    body = copy_pieces(rows, day, len(rows))
    await pool.transact([Step(sql, copied=[HEADER, *body, TRAILER])])


async def stored(pool: Pool, *, ordered: bool = True, ages: Sequence[int] = range(DAYS)) -> Stored:
    """Several days of ticks; upkeep has seen all but what came last."""
    rng = np.random.default_rng(8)
    known: dict[tuple[int, int, int, int], int] = {}
    places: dict[str, list[tuple[int, int, int, int]]] = {name: [] for name in SYMBOLS}
    for number, age in enumerate(sorted(ages, reverse=True)):
        rows = made(number, rng, ordered=ordered)
        await copied(pool, rows, today() - timedelta(days=age))
        columns = (rows[name].tolist() for name in ("ts", "partition", "offset", "index"))
        codes, seen = rows["symbol"].tolist(), rows["known_at"].tolist()
        for code, at, place in zip(codes, seen, zip(*columns, strict=True), strict=True):
            places[SYMBOLS[code]].append(place)
            known[place] = at
    await keep(pool, FOR_EVER, today())
    await summarise(pool, today())
    return Stored({name: sorted(found) for name, found in places.items()}, known)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(addresses: Addresses) -> AsyncIterator[tuple[str, Stored]]:
    """The DSN of a database with several days of ticks, for tests that only read."""
    async with bare_database(addresses.postgres) as dsn:
        pool = await open_pool(dsn, FOR_EVER)
        await migrate(pool)
        facts = await stored(pool)
        await pool.close()
        yield dsn, facts


@pytest.fixture
async def reading(filled: tuple[str, Stored]) -> AsyncIterator[Pool]:
    """Connections to it."""
    pool = await open_pool(filled[0], FOR_EVER)
    yield pool
    await pool.close()


@pytest.fixture
def facts(filled: tuple[str, Stored]) -> Stored:
    """What lies in it."""
    return filled[1]


async def pages(
    pool: Pool, symbol: str, limit: int, *, backward: bool, most: int = 5, **bounds: Any
) -> list[tuple[int, int, int, int]]:
    """The first pages of a walk from one end, in the order of time."""
    found: list[tuple[int, int, int, int]] = []
    edge = LAST if backward else None
    for _ in range(most):
        page = await history.read(
            pool, "ticks", symbol, bounds.get("start", 0), bounds.get("end", END), limit,
            after=None if backward else edge, before=edge if backward else None,
            known=bounds.get("known"),
        )  # fmt: skip
        places = [cursor_of(row) for row in page]
        found = places + found if backward else found + places
        if len(page) < limit:
            break
        edge = places[0] if backward else places[-1]
    return found


async def test_pages_are_those_of_a_list(reading: Pool, facts: Stored) -> None:
    """From both ends, in the middle, by symbols that are everywhere or almost nowhere."""
    await compare(reading, facts)


async def test_pages_of_days_in_disorder(pool: Pool) -> None:
    """The same where a day's rows lie in no order of time."""
    await compare(pool, await stored(pool, ordered=False))


async def compare(pool: Pool, known: Stored) -> None:
    """Pages of many ranges with the list."""
    middle = 2 * ROWS * SECOND
    for symbol in SYMBOLS:
        for start, end in ((0, END), (0, middle), (middle, END), (middle, middle + 90 * SECOND)):
            wanted = known.expected(symbol, start, end)
            for backward in (False, True):
                found = await pages(pool, symbol, 40, backward=backward, start=start, end=end)
                size = min(len(wanted), 200)
                assert found == (wanted[len(wanted) - size :] if backward else wanted[:size])


@pytest.mark.parametrize("symbol", SYMBOLS)
async def test_what_was_known_then(reading: Pool, facts: Stored, symbol: str) -> None:
    """Rows that came late are not seen as of a moment before they came."""
    for share in (0.1, 1.5, 2.4, 3.5, 4.5, 9.0):
        moment = int(share * ROWS) * SECOND
        wanted = facts.expected(symbol, 0, END, moment)
        for backward in (False, True):
            found = await pages(reading, symbol, 40, backward=backward, known=moment)
            size = min(len(wanted), 200)
            assert found == (wanted[len(wanted) - size :] if backward else wanted[:size])


async def test_a_walk_meets_every_row_once(reading: Pool, facts: Stored) -> None:
    """All pages of a symbol, over all days, whatever their length."""
    for symbol, limit in (("RARE", 7), ("OTHER", 500)):
        for backward in (False, True):
            found = await pages(reading, symbol, limit, backward=backward, most=1000)
            assert found == facts.expected(symbol, 0, END)


async def test_rows_of_one_time_are_found_on_all_days(pool: Pool) -> None:
    """Where days meet in one event time, a page ends between rows of the same time."""
    rng = np.random.default_rng(1)
    for number, age in enumerate((4, 3, 1, 0)):
        rows = made(number, rng, ordered=True).take(np.arange(8))
        rows.columns["symbol"][:] = 0
        rows.columns["ts"][:] = 7
        await copied(pool, rows, today() - timedelta(days=age))
    await keep(pool, FOR_EVER, today())
    walks = [await pages(pool, "BUSY", 3, backward=way, most=20) for way in (False, True)]
    assert walks[0] == walks[1] == sorted(walks[0])
    assert len(set(walks[0])) == 32


EXPLAINED = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_nested_statements = on;
SET auto_explain.log_level = notice
"""


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How Postgres reads a day's table, for each statement that reads one."""
    found: list[str] = []
    fetch = asyncpg.Connection.fetch

    def heard(_connection: Any, message: Any) -> None:
        if "ticks_2" in message.message:
            found.append(message.message)

    async def explained(connection: Any, sql: str, *args: Any, **options: Any) -> Any:
        await connection.execute(EXPLAINED)
        connection.add_log_listener(heard)
        rows = await fetch(connection, sql, *args, **options)
        await asyncio.sleep(0)  # the listener is called by the loop
        connection.remove_log_listener(heard)
        return rows

    monkeypatch.setattr(asyncpg.Connection, "fetch", explained)
    return found


@pytest.mark.parametrize("analysed", [False, True])
async def test_no_page_is_read_by_a_sequential_scan(
    pool: Pool, plans: list[str], *, analysed: bool
) -> None:
    """Neither of a day that is open, nor indexed, nor settled, with and without statistics."""
    await stored(pool)
    if analysed:
        await pool.execute("ANALYZE ticks")
    for symbol in ("BUSY", "RARE"):
        for number in range(DAYS + 1):
            edge = (number * ROWS * SECOND, 0, 0, 0)
            for after, before in ((edge, None), (None, edge)):
                await history.read(pool, "ticks", symbol, 0, END, 101, after, before)
                await history.read(pool, "ticks", symbol, 0, END, 101, after, before, known=END)
    text = "\n".join(plans)
    assert all(leaf("ticks", day) in text for day in days())
    assert len(plans) > 50
    for plan in plans:
        assert "Seq Scan" not in plan
        assert "Index Scan" in plan or "Tid Scan" in plan


def days() -> list[date]:
    """The days that `stored` fills."""
    return [today() - timedelta(days=age) for age in range(DAYS)]


async def test_settled_days_refuse_rows(pool: Pool) -> None:
    """Who comes two days late is refused; yesterday still takes rows, and they are read."""
    await stored(pool)
    late = made(9, np.random.default_rng(1), ordered=True).take(np.arange(10))
    with pytest.raises(Exception, match="_settled"):
        await copied(pool, late, today() - timedelta(days=2))
    before = len(await history.read(pool, "ticks", "BUSY", 9 * ROWS * SECOND, END, 100))
    await copied(pool, late, today() - timedelta(days=1))
    after = await history.read(pool, "ticks", "BUSY", 9 * ROWS * SECOND, END, 100)
    assert before == 0
    assert len(after) == int((late["symbol"] == 0).sum()) > 0


async def test_days_that_are_not_needed_are_not_opened(pool: Pool, plans: list[str]) -> None:
    """Of the settled days only those that hold the symbol at that time are read."""
    await stored(pool, ages=range(9))
    await history.read(pool, "ticks", "BUSY", 0, END, 50)
    names = [leaf("ticks", today() - timedelta(days=age)) for age in range(9)]
    opened = [name for name in names if name in "".join(plans)]
    assert names[8] in opened
    assert not set(opened) & set(names[2:7])


async def test_a_day_that_is_dropped_meanwhile(pool: Pool) -> None:
    """The page is read again without it."""
    facts = await stored(pool, ages=(2, 1, 0))
    held, dropped, _ = (leaf("ticks", today() - timedelta(days=age)) for age in (2, 1, 0))
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {held} IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(history.read(pool, "ticks", "RARE", 0, END, 500))
        await waits(pool, held)  # the days are listed, and this one is the first to be read
        await pool.execute(f"DROP TABLE {dropped}")
    before = pool.figures.statements
    expected = facts.expected("RARE", 0, END)
    left = [place for place in expected if not ROWS <= place[2] < 2 * ROWS]
    assert [cursor_of(row) for row in await reading] == left
    assert pool.figures.statements == before + 2


async def test_a_database_of_an_older_version_is_said_so(pool: Pool) -> None:
    """Before its tables are there, and before its functions are."""
    await pool.execute("DROP TABLE bars CASCADE")
    with pytest.raises(StateError, match="tickstream migrate"):
        await history.read(pool, "bars", "RARE", 0, END, 500)
    await pool.execute("DROP FUNCTION history_page")
    with pytest.raises(StateError, match="tickstream migrate"):
        await history.read(pool, "ticks", "RARE", 0, END, 500)


async def waits(pool: Pool, table: str) -> None:
    """Until somebody waits for a table."""
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass"
    while not await pool.fetchval(sql, table):  # noqa: ASYNC110 -- only the server knows
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("backward", [False, True])
async def test_a_page_is_of_one_moment(pool: Pool, *, backward: bool) -> None:
    """What is committed while it is read is not in it."""
    facts = await stored(pool, ages=(1, 0))
    late = made(9, np.random.default_rng(1), ordered=True).take(np.arange(10))
    before = LAST if backward else None
    async with pool.acquire() as connection, connection.transaction():
        held = leaf("ticks", today() - timedelta(days=1))
        await connection.execute(f"LOCK TABLE {held} IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(
            history.read(pool, "ticks", "BUSY", 0, END, 2 * ROWS, before=before)
        )
        await waits(pool, held)
        await copied(pool, late, today())
    assert [cursor_of(row) for row in await reading] == facts.expected("BUSY", 0, END)


@pytest.mark.parametrize(
    ("start", "step", "expected"),
    [
        (2**62, -10, 2800),
        (-(2**63), 150, 2000),
        (0, 150, 2000),
        (500, 25, 750),
        (2000, -50, 1000),
        (0, 201, None),
        (3000, -200, None),
    ],
)
async def test_a_window_is_about_as_large_as_was_asked(
    pool: Pool, start: int, step: float, expected: int | None
) -> None:
    """Where time goes on evenly, ten pages are the time of ten pages; but for the ends."""
    sql = "SELECT history_time(ARRAY[0, 1000, 3000], ARRAY[0, 100, 200], $1, $2)"
    assert await pool.fetchval(sql, start, step) == expected


async def test_summaries_wait_for_nobody(pool: Pool) -> None:
    """A table that is being vacuumed, or is not there, is left for the next time."""
    await copied(pool, made(0, np.random.default_rng(1), ordered=True), today())
    assert await summarise(pool, today() + timedelta(days=1)) == 0
    async with pool.acquire() as other, other.transaction():
        await other.execute(f"LOCK TABLE {leaf('ticks', today())} IN SHARE UPDATE EXCLUSIVE MODE")
        async with asyncio.timeout(10):
            assert await summarise(pool, today()) == 0
    assert await summarise(pool, today()) > 5
    assert await summarise(pool, today()) == 0
    assert await pool.fetchval(statement("summarise"), "nothing") == 0
