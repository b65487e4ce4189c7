"""The live store on a real Postgres: one transaction a batch, fenced, never twice."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from pipeline.clock import today
from pipeline.errors import FencedError, StateError, UnavailableError
from pipeline.store import reads
from pipeline.store.live import LiveStore, PartitionBatch, compress
from pipeline.store.migrate import ensure_days, leaf
from pipeline.store.pool import Pool
from schemas.arrivals import Reject
from schemas.blocks import STAGES, Rows
from schemas.ticks import Reason
from tests.fixtures.rows import rows_of

SERVICE, PRINT = "worker", "f" * 32


@pytest.fixture
def store(pool: Pool) -> LiveStore:
    """The store of one worker."""
    return LiveStore(pool, SERVICE, PRINT)


def batch(epoch: int, mark: int, *, partition: int = 0, **more: Any) -> PartitionBatch:
    """A batch with one row of every stage at the offset `mark`."""
    rows: dict[str, Rows] = {stage: rows_of(stage, [mark], partition=partition) for stage in STAGES}
    facts: dict[str, Any] = {"rejects": (), "symbols": (), "quality": (), "rows": rows, **more}
    return PartitionBatch(partition=partition, epoch=epoch, mark=mark, **facts)


async def counts(pool: Pool) -> list[int]:
    """Rows of each stage."""
    return [await reads.count(pool, stage) for stage in STAGES]


async def mark_of(pool: Pool, partition: int = 0) -> int:
    """The stored mark."""
    sql = "SELECT mark FROM progress WHERE service = $1 AND partition = $2"
    return int(await pool.fetchval(sql, SERVICE, partition))


async def test_a_commit_stores_rows_and_moves_the_mark(pool: Pool, store: LiveStore) -> None:
    """Rows of every stage, rejects, symbols and quality become visible with the mark."""
    claim = await store.claim(0)
    assert (claim.epoch, claim.mark, claim.snapshot, claim.snapshot_offset) == (1, -1, None, -1)
    reject = Reject(5, 2, Reason.LATE, "too late", "A")
    await store.commit(
        [
            batch(
                1, 5, rejects=[(reject, b"\x00raw")], symbols=["A", "B"], quality=[("A", "late", 3)]
            )
        ]
    )
    assert await counts(pool) == [1] * len(STAGES)
    assert await mark_of(pool) == 5
    stored = await pool.fetchrow("SELECT * FROM rejected")
    assert stored is not None
    assert (stored["offset"], stored["index"], stored["symbol"]) == (5, 2, "A")
    assert (stored["reason"], stored["detail"], stored["value"]) == ("late", "too late", b"\x00raw")
    assert stored["written_on"] == today()
    assert await reads.symbols(pool) == ["A", "B"]
    quality = await pool.fetchrow("SELECT partition, symbol, reason, count FROM data_quality")
    assert tuple(quality or ()) == (0, "A", "late", 3)


async def test_a_repeated_batch_is_skipped(pool: Pool, store: LiveStore) -> None:
    """At least once in, once stored: a batch at or below the mark writes nothing."""
    await store.claim(0)
    one = batch(1, 5, rejects=[(Reject(5, 0, Reason.LATE, "x"), b"x")])
    for mark in (5, 5, 4, 6):
        await store.commit([one if mark == 5 else batch(1, mark)])
    assert await counts(pool) == [2] * len(STAGES)
    assert await mark_of(pool) == 6
    assert await pool.fetchval("SELECT count(*) FROM rejected") == 1
    await store.commit([])
    assert await mark_of(pool) == 6


async def test_partitions_of_a_batch_are_judged_apart(pool: Pool, store: LiveStore) -> None:
    """One repeated and one new partition in the same transaction: only the new one is written."""
    for partition in (0, 1):
        await store.claim(partition)
    await store.commit([batch(1, 5)])
    await store.commit([batch(1, 5), batch(1, 9, partition=1)])
    assert await counts(pool) == [2] * len(STAGES)
    assert (await mark_of(pool), await mark_of(pool, 1)) == (5, 9)


async def test_quality_is_absolute(pool: Pool, store: LiveStore) -> None:
    """Counts replace each other, so that no repetition can add up."""
    await store.claim(0)
    for mark, count in ((1, 3), (2, 7)):
        await store.commit([batch(1, mark, quality=[("A", "late", count), ("", "malformed", 1)])])
    rows = await pool.fetch("SELECT symbol, count FROM data_quality ORDER BY symbol")
    assert [tuple(row) for row in rows] == [("", 1), ("A", 7)]


async def test_an_older_owner_is_fenced(pool: Pool, store: LiveStore) -> None:
    """After a new claim the older epoch writes nothing, not even for partitions it still owns."""
    await store.claim(0)
    await store.claim(1)
    await store.commit([batch(1, 5)])
    newer = LiveStore(pool, SERVICE, PRINT)
    assert (await newer.claim(0)).epoch == 2
    with pytest.raises(FencedError, match="partition 0"):
        await store.commit([batch(1, 6, partition=1), batch(1, 6)])
    assert await counts(pool) == [1] * len(STAGES)
    assert (await mark_of(pool), await mark_of(pool, 1)) == (5, -1)
    await newer.commit([batch(2, 6)])
    assert await mark_of(pool) == 6


async def test_a_partition_that_was_never_claimed_is_fenced(store: LiveStore) -> None:
    """Without a row of progress nothing may be written."""
    with pytest.raises(FencedError, match="partition 3"):
        await store.commit([batch(1, 5, partition=3)])


async def test_a_claim_waits_for_a_commit_and_then_fences_it(pool: Pool, store: LiveStore) -> None:
    """Claims and commits that race end with each batch stored once or refused."""
    await store.claim(0)

    async def write(mark: int) -> bool:
        try:
            await store.commit([batch(1, mark)])
        except FencedError:
            return False
        return True

    writes = [write(mark) for mark in range(8)]
    newer = LiveStore(pool, SERVICE, PRINT)
    claim, done = await asyncio.gather(newer.claim(0), asyncio.gather(*writes))
    assert claim.epoch == 2
    assert await reads.count(pool, "bars") <= sum(done)
    stored = await pool.fetch('SELECT "offset" FROM bars')
    assert len({row["offset"] for row in stored}) == len(stored)
    assert await mark_of(pool) == max([row["offset"] for row in stored], default=-1)
    assert not await write(99)


async def test_a_sleeping_owner_cannot_keep_its_partition(pool: Pool, store: LiveStore) -> None:
    """Paused in the middle of a transaction it holds the row; the next claim ends its session."""
    await store.claim(0)

    async def sleep_in_a_transaction() -> None:
        async with pool.acquire() as sleeping:
            await sleeping.execute("BEGIN")
            await sleeping.execute("UPDATE progress SET mark = 99 WHERE service = $1", SERVICE)
            async with asyncio.timeout(10):
                taken = await store.claim(0)
            assert (taken.epoch, taken.mark) == (2, -1)
            await sleeping.execute("COMMIT")

    with pytest.raises(UnavailableError):
        await sleep_in_a_transaction()
    assert await mark_of(pool) == -1


async def test_a_failing_stage_takes_the_whole_batch_back(pool: Pool, store: LiveStore) -> None:
    """The last table fails: no row of any stage, no reject, no mark."""
    await store.claim(0)
    await store.commit([batch(1, 1)])
    await pool.execute('ALTER TABLE signals ADD CONSTRAINT no CHECK ("offset" < 5)')
    reject = (Reject(5, 0, Reason.LATE, "x"), b"x")
    with pytest.raises(asyncpg.CheckViolationError):
        await store.commit([batch(1, 5, rejects=[reject], symbols=["Z"])])
    assert await counts(pool) == [1] * len(STAGES)
    assert await mark_of(pool) == 1
    assert await pool.fetchval("SELECT count(*) FROM rejected") == 0
    assert await reads.symbols(pool) == []
    await store.commit([batch(1, 4)])
    assert await mark_of(pool) == 4


async def test_a_strangers_text_never_stops_the_store(pool: Pool, store: LiveStore) -> None:
    """NUL, quotes and every other character in symbol and detail are stored, the bytes as came."""
    await store.claim(0)
    awkward = "A\x00B\\N'\"\n\t\U0001f600"
    reject = Reject(7, 0, Reason.BAD_SYMBOL, awkward, awkward * 10_000)
    await store.commit([batch(1, 7, rejects=[(reject, bytes(range(256)))])])
    stored = await pool.fetchrow("SELECT symbol, detail, value FROM rejected")
    assert stored is not None
    assert stored["detail"] == awkward.replace("\x00", "\ufffd")
    assert stored["value"] == bytes(range(256))


async def test_another_fingerprint_is_refused(pool: Pool, store: LiveStore) -> None:
    """Rows of other settings may not be mixed in; the refusal leaves epoch and mark alone."""
    await store.claim(0)
    await store.commit([batch(1, 5)])
    with pytest.raises(StateError, match="other settings"):
        await LiveStore(pool, SERVICE, "0" * 32).claim(0)
    await store.commit([batch(1, 6)])
    assert (await LiveStore(pool, "other", "0" * 32).claim(0)).mark == -1


async def test_snapshots_are_kept_loaded_and_limited_to_two(pool: Pool, store: LiveStore) -> None:
    """A claim gets the newest state at or below the mark; older ones than two are dropped."""
    await store.claim(0)
    for mark in (3, 5, 8):
        await store.commit([batch(1, mark)])
        await store.save_snapshot(0, 1, mark, compress(b"state %d" % mark * 1000))
    kept = await pool.fetch('SELECT "offset" FROM snapshots ORDER BY "offset"')
    assert [row["offset"] for row in kept] == [5, 8]
    claim = await store.claim(0)
    assert (claim.epoch, claim.mark, claim.snapshot_offset) == (2, 8, 8)
    assert claim.snapshot == b"state 8" * 1000
    await store.save_snapshot(0, 2, 8, compress(b"again"))
    await store.save_snapshot(0, 2, 99, compress(b"beyond the mark"))
    claim = await store.claim(0)
    assert (claim.snapshot_offset, claim.snapshot) == (8, b"again")


async def test_an_older_owner_saves_no_snapshot(pool: Pool, store: LiveStore) -> None:
    """A zombie's state is not stored over a newer owner's."""
    await store.claim(0)
    await store.commit([batch(1, 3)])
    await store.claim(0)
    await store.save_snapshot(0, 1, 3, compress(b"old"))
    assert await pool.fetchval("SELECT count(*) FROM snapshots") == 0
    await store.save_snapshot(0, 2, 3, compress(b"new"))
    await store.save_snapshot(0, 1, 3, compress(b"old"))
    assert (await store.claim(0)).snapshot == b"new"


async def test_rows_lie_in_the_table_of_the_day_of_writing(pool: Pool, store: LiveStore) -> None:
    """Partitions are days of writing, whatever the event time; today's and tomorrow's are made."""
    await store.claim(0)
    await store.commit([batch(1, 5)])
    for stage in STAGES:
        found = await pool.fetch(f"SELECT tableoid::regclass::text AS name FROM {stage}")  # noqa: S608 -- a closed list
        assert [row["name"] for row in found] == [leaf(stage, today())]
        tomorrow = leaf(stage, today() + timedelta(days=1))
        assert await pool.fetchval("SELECT to_regclass($1)", tomorrow) == tomorrow
    async with pool.acquire() as connection:
        await ensure_days(connection, [today(), today()])
    assert await counts(pool) == [1] * len(STAGES)


async def test_latest_is_the_row_of_highest_identity(store: LiveStore) -> None:
    """After a restart the cache is refilled with each symbol's newest row."""
    await store.claim(0)
    rows = {stage: rows_of(stage, [3, 4, 5]) for stage in STAGES}
    await store.commit([batch(1, 5, rows=rows)])
    found = await store.latest("bars", ["A", "B", "C"])
    assert {symbol: row["offset"] for symbol, row in found.items()} == {"A": 5, "B": 4}
