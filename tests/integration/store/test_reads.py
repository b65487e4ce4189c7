"""What readers get from a real Postgres: the newest rows, pages in order, and every bit."""

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest

from pipeline.clock import today
from pipeline.errors import UnavailableError
from pipeline.replay.differences import first_difference
from pipeline.settings import StoreSettings
from pipeline.store import history, reads
from pipeline.store.live import LiveStore, PartitionBatch
from pipeline.store.pool import Pool, open_pool
from pipeline.store.statements import stage_statement
from schemas.blocks import STAGES, Rows
from tests.fixtures.rows import HARD, rows_of


async def store(pool: Pool, stage: str, *blocks: Rows) -> None:
    """Rows stored as the live loop stores them, one commit a block."""
    live = LiveStore(pool, "worker", "f")
    for rows in blocks:
        partition = int(rows["partition"][0])
        claim = await live.claim(partition)
        mark = int(rows["offset"].max())
        batch = PartitionBatch(partition, claim.epoch, mark, {stage: rows}, (), (), ())
        await live.commit([batch])


async def everything(pool: Pool, stage: str, partition: int, low: int, high: int) -> Rows:
    """The rows of a range of offsets."""
    async with pool.acquire() as connection:
        sql = stage_statement("range", stage)
        return reads.rows_of(stage, await connection.fetch(sql, partition, low, high))


@pytest.mark.parametrize("stage", STAGES)
async def test_every_bit_comes_back(pool: Pool, stage: str) -> None:
    """Nulls, denormals, minus zero and the ends of the integers survive COPY and SELECT."""
    rows = rows_of(stage, range(300))
    await store(pool, stage, rows.take(np.arange(100)), rows.take(np.arange(100, 300)))
    found = await everything(pool, stage, 0, 0, 300)
    assert len(found) == 300
    assert first_difference(found, rows) is None
    for column, values in rows.columns.items():
        if column != "symbol":
            assert found[column].dtype == values.dtype
            nulls = np.isnan(values) if values.dtype == np.float64 else np.zeros(300, np.bool_)
            assert found[column][~nulls].tobytes() == values[~nulls].tobytes(), column
    part = await everything(pool, stage, 0, 50, 60)
    assert part["offset"].tolist() == list(range(50, 60))
    assert len(await everything(pool, stage, 1, 0, 300)) == 0


async def test_infinity_would_not_be_hidden(pool: Pool) -> None:
    """The store changes no number: an infinity that a kernel let through would be seen."""
    rows = rows_of("bars", [1, 2])
    rows.columns["open"][:] = [math.inf, -math.inf]
    await store(pool, "bars", rows)
    assert (await everything(pool, "bars", 0, 0, 9))["open"].tolist() == [math.inf, -math.inf]
    assert math.inf not in HARD  # so the round trip above speaks of numbers that may occur


async def test_rows_come_in_the_order_of_identity(pool: Pool) -> None:
    """Whatever order they lie in, offset and then index decide."""
    one, two = rows_of("signals", [7, 7, 9]), rows_of("signals", [12, 10])
    one.columns["index"][:] = [10, 2, 0]
    await store(pool, "signals", one, two)
    found = await everything(pool, "signals", 0, 0, 100)
    pairs = list(zip(found["offset"].tolist(), found["index"].tolist(), strict=True))
    assert pairs == [(7, 2), (7, 10), (9, 0), (10, 0), (12, 0)]


async def test_latest_takes_the_highest_identity_of_a_symbol(pool: Pool) -> None:
    """By partition, offset and index, not by event time; unknown symbols are left out."""
    rows = rows_of("bars", [1, 2, 3, 3], symbols=["A", "B", "A", "A"])
    rows.columns["ts"][:] = [900, 800, 100, 50]
    rows.columns["index"][:] = [0, 0, 1, 2]
    await store(pool, "bars", rows)
    found = await reads.latest(pool, "bars", ["A", "B", "nobody"])
    places = {symbol: (row["offset"], row["index"], row["ts"]) for symbol, row in found.items()}
    assert places == {"A": (3, 2, 50), "B": (2, 0, 800)}
    assert found["A"]["time"] == "1970-01-01T00:00:00.000000050Z"


async def pages(pool: Pool, limit: int, *, backward: bool) -> list[list[int]]:
    """Offsets of all pages of A's bars, walked from one end to the other."""
    found: list[list[int]] = []
    edge = reads.LAST if backward else None
    while True:
        page = await history.read(
            pool, "bars", "A", 0, 2**62, limit,
            after=None if backward else edge, before=edge if backward else None,
        )  # fmt: skip
        if not page:
            return found
        found.append([row["offset"] for row in page])
        edge = reads.cursor_of(page[0] if backward else page[-1])


@pytest.mark.parametrize("limit", [1, 4, 5, 100])
async def test_pages_cover_all_rows_once(pool: Pool, limit: int) -> None:
    """Forward and backward, also where many rows have the same time."""
    rows = rows_of("bars", range(20), symbols=["A"])
    rows.columns["ts"][:] = np.arange(20) // 6 * 10
    await store(pool, "bars", rows, rows_of("bars", [5], partition=1, symbols=["B"]))
    forward = await pages(pool, limit, backward=False)
    assert list(chain.from_iterable(forward)) == list(range(20))
    assert all(len(page) == limit for page in forward[:-1])
    back = await pages(pool, limit, backward=True)
    assert list(chain.from_iterable(back[::-1])) == list(range(20))
    assert all(len(page) == limit for page in back[:-1])


async def test_history_holds_its_bounds(pool: Pool) -> None:
    """Start <= ts < end, of the one symbol."""
    await store(pool, "bars", rows_of("bars", range(10), symbols=["A", "B"]))

    async def offsets(start: int, end: int) -> Sequence[int]:
        page = await history.read(pool, "bars", "A", start, end, 100)
        return [row["offset"] for row in page]

    assert await offsets(2000, 6000) == [2, 4]
    assert await offsets(2001, 6001) == [4, 6]
    assert await offsets(6000, 6000) == []


async def test_counts_and_bounds(pool: Pool) -> None:
    """Rows by stage, offsets by partition within a time range."""
    await store(pool, "bars", rows_of("bars", range(3, 9)), rows_of("bars", [4], partition=2))
    assert await reads.count(pool, "bars") == 7
    assert await reads.count(pool, "ticks") == 0
    assert await reads.offset_bounds(pool, "bars", None, None) == {0: (3, 8), 2: (4, 4)}
    assert await reads.offset_bounds(pool, "bars", 5000, 7000) == {0: (5, 6)}
    assert await reads.offset_bounds(pool, "bars", 10**15, None) == {}


async def test_other_runs_are_not_live(pool: Pool) -> None:
    """A backfill is a run of its own: readers of the live rows do not see it."""
    await store(pool, "bars", rows_of("bars", range(4), symbols=["A"]))
    await pool.execute('UPDATE bars SET run = 7 WHERE "offset" = 3')
    assert await reads.count(pool, "bars") == 3
    assert (await everything(pool, "bars", 0, 0, 9))["offset"].tolist() == [0, 1, 2]
    assert (await reads.latest(pool, "bars", ["A"]))["A"]["offset"] == 2
    assert len(await history.read(pool, "bars", "A", 0, 2**62, 9)) == 3
    assert await reads.offset_bounds(pool, "bars", None, None) == {0: (0, 2)}


async def test_views_show_time_to_people(pool: Pool) -> None:
    """`bars_at` has the same rows with a timestamptz beside the nanoseconds."""
    rows = rows_of("bars", [1_700_000_000_000_000])
    await store(pool, "bars", rows)
    row = await pool.fetchrow("SELECT * FROM bars_at")
    assert row is not None
    assert row["time"].isoformat() == "2023-11-14T22:13:20+00:00"
    assert row["written_on"] == today()


async def test_a_database_that_is_away_is_said_so() -> None:
    """One line and no long wait."""
    with pytest.raises(UnavailableError, match="Postgres"):
        await open_pool("postgresql://nobody@127.0.0.1:1/none", StoreSettings(acquire_timeout=2))


async def test_a_pool_without_a_free_connection_gives_up_in_time(postgres: str) -> None:
    """Waiting is bounded: the caller is told, and the pool works again afterwards."""
    small = await open_pool(postgres, StoreSettings(pool_max=1, acquire_timeout=0.2))
    try:
        async with small.acquire():
            with pytest.raises(UnavailableError, match="in time"):
                await small.fetchval("SELECT 1")
        assert await small.fetchval("SELECT 1") == 1
    finally:
        await small.close()
