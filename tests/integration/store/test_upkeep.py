"""Upkeep on a real Postgres: days ahead, an index on what is closed, retention, all idempotent."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta

import asyncpg
import pytest

from pipeline.errors import TickstreamError
from pipeline.settings import StoreSettings
from pipeline.store import upkeep
from pipeline.store.migrate import ensure_days, leaf
from pipeline.store.pool import Pool, open_pool
from pipeline.store.upkeep import Round, keep
from schemas.blocks import COLUMNS, STAGES, Column

TODAY = date(2026, 11, 25)
FOR_EVER = StoreSettings()
TWO_DAYS = StoreSettings(retention_days=2)
TICKS = 20_000
DUMMIES = {"symbol": "'A'", "label": "NULL", "float64": "1.5", "int32": "0", "int64": "0"}


def ago(days: int) -> date:
    """A day before today."""
    return TODAY - timedelta(days=days)


async def make(pool: Pool, *days: date) -> None:
    """The tables of these days."""
    async with pool.acquire() as connection, connection.transaction():
        await ensure_days(connection, days)


async def leaves(pool: Pool, stage: str) -> list[str]:
    """The daily tables of a stage."""
    rows = await pool.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = $1::text::regclass ORDER BY 1",
        stage,
    )
    return [row["name"] for row in rows]


async def indexes(pool: Pool) -> dict[str, bool]:
    """The indexes that upkeep makes, by table, and whether each is valid."""
    rows = await pool.fetch(
        "SELECT indrelid::regclass::text AS name, indisvalid FROM pg_index"
        " WHERE indexrelid::regclass::text LIKE '%\\_symbol\\_ts'"
    )
    return {row["name"]: row["indisvalid"] for row in rows}


def _dummy(column: Column) -> str:
    return {"symbol": "'S' || n % 50", "ts": "n * 1000"}.get(column.name, DUMMIES[column.kind])


async def fill(pool: Pool, stage: str, day: date, rows: int) -> None:
    """Rows of fifty symbols, ts 1000 apart, written on a day."""
    names = ", ".join(f'"{column.name}"' for column in COLUMNS[stage])
    values = ", ".join(map(_dummy, COLUMNS[stage]))
    await pool.execute(
        f"INSERT INTO {stage} ({names}, written_on)"  # noqa: S608 -- a closed list
        f" SELECT {values}, $1 FROM generate_series(1, $2::bigint) n",
        day,
        rows,
    )


async def plan(pool: Pool, stage: str) -> str:
    """How Postgres would read an hour of a symbol."""
    rows = await pool.fetch(
        f"EXPLAIN SELECT * FROM {stage} WHERE symbol = 'S7' AND ts >= 5000000 AND ts < 6000000"  # noqa: S608 -- a closed list
    )
    return "\n".join(row[0] for row in rows)


async def brins(pool: Pool, table: str) -> list[str]:
    """The columns that a table has a BRIN index on."""
    rows = await pool.fetch(
        "SELECT pg_get_indexdef(indexrelid, 1, true) AS name FROM pg_index JOIN pg_class c"
        " ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam"
        " WHERE indrelid = $1::text::regclass AND a.amname = 'brin' ORDER BY 1",
        table,
    )
    return [row["name"].strip('"') for row in rows]


async def test_days_are_made_ahead(pool: Pool) -> None:
    """Today's, tomorrow's and the next day's tables are there, with the indexes of their stage."""
    done = await keep(pool, FOR_EVER, TODAY)
    for stage in STAGES:
        expected = [leaf(stage, ago(-n)) for n in range(3)]
        assert await leaves(pool, stage) == expected
        assert set(expected) <= set(done.made)
        await fill(pool, stage, ago(-2), 1)
        assert await pool.fetchval(f"SELECT count(*) FROM {expected[2]}") == 1  # noqa: S608 -- ours
        assert await brins(pool, expected[2]) == ["ts"]
    assert not await indexes(pool)
    assert done.line() == f"made {3 * len(STAGES)} tables, ticks_20261125 first"


async def test_days_are_made_beside_readers_and_writers(pool: Pool) -> None:
    """A transaction that has read and written the stage neither waits nor makes anybody wait."""
    await make(pool, ago(1))
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE bars IN ROW EXCLUSIVE MODE")
        await other.fetch("SELECT count(*) FROM bars")
        async with asyncio.timeout(5):
            await make(pool, TODAY)
    assert await leaves(pool, "bars") == [leaf("bars", ago(1)), leaf("bars", TODAY)]


async def test_a_closed_day_gets_its_index(pool: Pool) -> None:
    """Yesterday is indexed, today is not, and the planner reads a symbol's range by the index."""
    await make(pool, ago(1), TODAY)
    await fill(pool, "ticks", ago(1), TICKS)
    assert "_symbol_ts" not in await plan(pool, "ticks")
    done = await keep(pool, FOR_EVER, TODAY)
    assert set(done.indexed) == {leaf(stage, ago(1)) for stage in STAGES}
    assert await indexes(pool) == dict.fromkeys(done.indexed, True)
    assert await brins(pool, leaf("ticks", ago(1))) == ["offset", "ts"]
    assert f"{leaf('ticks', ago(1))}_symbol_ts" in await plan(pool, "ticks")


async def test_a_late_writer_is_not_held_up(pool: Pool) -> None:
    """While the index is built a batch of the closed day is stored; its rows are in the index."""
    await make(pool, ago(1))
    await fill(pool, "bars", ago(1), 100)
    async with pool.acquire() as other:
        begun = other.transaction()
        await begun.start()
        await other.execute(f"LOCK TABLE {leaf('bars', ago(1))} IN ROW EXCLUSIVE MODE")
        keeping = asyncio.create_task(keep(pool, FOR_EVER, TODAY))
        await asyncio.sleep(0.5)
        assert not keeping.done()  # it waits for the transaction; nobody waits for it
        async with asyncio.timeout(5):
            await fill(pool, "bars", ago(1), 100)
        await begun.commit()
    assert leaf("bars", ago(1)) in (await keeping).indexed
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        sql = "SELECT count(*) FROM bars WHERE symbol = 'S7' AND ts >= 0"
        assert await connection.fetchval(sql) == 4


async def _invalid(pool: Pool, day: date) -> str:
    """An index left behind by a build that failed."""
    table = leaf("ticks", day)
    await fill(pool, "ticks", day, 2)
    name = f"{table}_symbol_ts"
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} (life)")
    assert await indexes(pool) == {table: False}
    return table


async def test_an_index_left_half_built_is_built_anew(pool: Pool) -> None:
    """What a killed build left is dropped and made again."""
    await make(pool, ago(1))
    table = await _invalid(pool, ago(1))
    done = await keep(pool, FOR_EVER, TODAY)
    assert table in done.indexed
    assert (await indexes(pool))[table]
    definition = "SELECT indexdef FROM pg_indexes WHERE indexname = $1"
    assert (await pool.fetchval(definition, f"{table}_symbol_ts")).endswith("btree (symbol, ts)")


async def test_a_cancelled_round_is_finished_by_the_next(pool: Pool) -> None:
    """Ctrl-C in the middle of a build: the lock is free again, and the index is made whole."""
    await make(pool, ago(1))
    async with pool.acquire() as other, other.transaction():
        await other.execute(f"LOCK TABLE {leaf('bars', ago(1))} IN ROW EXCLUSIVE MODE")
        keeping = asyncio.create_task(keep(pool, FOR_EVER, TODAY))
        await asyncio.sleep(0.5)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await keeping
    assert not (await indexes(pool)).get(leaf("bars", ago(1)))
    done = await keep(pool, FOR_EVER, TODAY)
    assert done.ours
    assert leaf("bars", ago(1)) in done.indexed
    assert all((await indexes(pool)).values())


async def test_retention_drops_what_is_older_and_only_that(pool: Pool) -> None:
    """Days before the last two go; those two, today, the future and others' partitions stay."""
    days = [ago(n) for n in (9, 4, 3, 2, 1, 0)]
    await make(pool, *days)
    await pool.execute(
        "CREATE TABLE bars_by_hand PARTITION OF bars"
        " FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')"
    )
    for day in days:
        await fill(pool, "bars", day, 3)
    done = await keep(pool, TWO_DAYS, TODAY)
    assert set(done.dropped) == {leaf(stage, ago(n)) for stage in STAGES for n in (9, 4, 3)}
    kept = [leaf("bars", ago(n)) for n in (2, 1, 0, -1, -2)]
    assert await leaves(pool, "bars") == [*kept, "bars_by_hand"]
    assert await leaves(pool, "ticks") == [leaf("ticks", ago(n)) for n in (2, 1, 0, -1, -2)]
    assert await pool.fetchval("SELECT count(*) FROM bars") == 9
    assert await pool.fetchval("SELECT to_regclass($1)", leaf("bars", ago(3))) is None
    assert not set(done.dropped) & set(done.indexed)


async def test_without_retention_everything_stays(pool: Pool) -> None:
    """The default keeps rows for ever."""
    await make(pool, ago(4000))
    assert not (await keep(pool, FOR_EVER, TODAY)).dropped
    assert leaf("bars", ago(4000)) in await leaves(pool, "bars")


async def test_a_table_in_use_is_dropped_later(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long reader keeps it; nobody queues for long, the rest of the round goes on."""
    monkeypatch.setattr(upkeep, "_PAUSE", 0.05)
    monkeypatch.setattr(upkeep, "_ATTEMPTS", 2)
    await make(pool, ago(5))
    old = leaf("bars", ago(5))
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE bars IN ACCESS SHARE MODE")
        done = await keep(pool, TWO_DAYS, TODAY)
        assert done.busy == (old,)
        assert leaf("signals", ago(5)) in done.dropped
        assert f"could not yet drop {old}" in done.line()
    assert (await keep(pool, TWO_DAYS, TODAY)).dropped == (old,)


async def test_old_rejects_are_forgotten(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the day of writing, in chunks."""
    monkeypatch.setattr(upkeep, "_CHUNK", 4)
    for n, count in ((3, 10), (2, 2), (0, 1)):
        await pool.execute(
            'INSERT INTO rejected (partition, "offset", "index", symbol, reason, detail, value,'
            " written_on) SELECT 0, n, 0, 'A', 'late', '', '', $1 FROM generate_series(1, $2) n",
            ago(n),
            count,
        )
    done = await keep(pool, TWO_DAYS, TODAY)
    assert done.forgotten == 10
    assert "forgot 10 rejected messages" in done.line()
    left = await pool.fetch("SELECT written_on FROM rejected ORDER BY 1")
    assert [row[0] for row in left] == [ago(2), ago(2), TODAY]


async def test_a_second_round_finds_nothing_to_do(pool: Pool) -> None:
    """Idempotent: the same day once more changes nothing and says nothing."""
    await make(pool, ago(5), ago(1))
    assert (await keep(pool, TWO_DAYS, TODAY)).line()
    before = await _oids(pool)
    again = await keep(pool, TWO_DAYS, TODAY)
    assert again == Round()
    assert not again.line()
    assert await _oids(pool) == before


async def _oids(pool: Pool) -> Sequence[asyncpg.Record]:
    return await pool.fetch("SELECT oid, relfilenode FROM pg_class WHERE relkind IN ('r', 'i') ")


async def test_rounds_at_once_are_safe(pool: Pool, postgres: str) -> None:
    """Of several processes one works, the others come back; together they do it once."""
    await make(pool, ago(5), ago(1))
    other = await open_pool(postgres, TWO_DAYS)
    try:
        done = await asyncio.gather(*(keep(p, TWO_DAYS, TODAY) for p in (pool, other) * 3))
    finally:
        await other.close()
    assert any(one.ours for one in done)
    indexed = [name for one in done for name in one.indexed]
    assert sorted(indexed) == sorted(leaf(stage, ago(1)) for stage in STAGES)
    dropped = [name for one in done for name in one.dropped]
    assert sorted(dropped) == sorted(leaf(stage, ago(5)) for stage in STAGES)
    assert all((await indexes(pool)).values())


async def test_while_one_works_another_leaves(pool: Pool) -> None:
    """The lock is tried, not waited for, and is free after the round."""
    async with pool.acquire() as other:
        await other.execute("SELECT pg_advisory_lock($1)", upkeep._LOCK)
        assert await keep(pool, FOR_EVER, TODAY) == Round(ours=False)
        assert await leaves(pool, "bars") == []
    assert (await keep(pool, FOR_EVER, TODAY)).ours


async def test_a_refusal_is_one_line(pool: Pool) -> None:
    """What Postgres says reaches the log as an error of ours."""
    await pool.execute("DROP TABLE rejected")
    with pytest.raises(TickstreamError, match=r'^Postgres: .*"rejected" does not exist: run'):
        await keep(pool, TWO_DAYS, TODAY)
