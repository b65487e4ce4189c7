"""Scores of versions on the stream, by day, and how far they were taken."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from pipeline.store import places
from pipeline.store.places import Kept
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from pipeline.store.watches import Chunk, add_rows

Row = dict[str, Any]
# version, role, day, first and last ts, n, log loss, that of the base rate, Brier score
Scored = tuple[str, str, date, int, int, int, float, float, float]


async def partitions(pool: Pool, service: str) -> dict[int, datetime]:
    """When the first activation of each partition that has one was planned."""
    rows = await pool.fetch(statement("first_activations"), service)
    return {row["partition"]: row["planned_at"] for row in rows}


async def kept(pool: Pool, service: str, partition: int) -> Kept:
    """How far the outcomes of a partition were taken."""
    return await places.kept(pool, "score_state", service, partition)


async def keep(
    pool: Pool,
    service: str,
    partition: int,
    now: Kept,
    scored: Sequence[Scored],
    watched: Sequence[Chunk] = (),
) -> None:
    """Add to the scores of days and to what is watched, and store how far that went, together.

    Raises:
        ConflictError: another watcher was faster; nothing is stored.
        UnavailableError: Postgres is away; all is stored or nothing.
    """
    async with pool.acquire() as connection, connection.transaction():
        await places.move(connection, "keep_score_state", service, partition, now)
        # In this order everywhere: of two partitions that meet, one waits for the other.
        await connection.executemany(statement("add_day_scores"), sorted(scored))
        await add_rows(connection, service, watched)


async def by_day(pool: Pool, version: str, limit: int) -> list[Row]:
    """How a version did in training and on the newest days of the stream, in this order."""
    rows = await pool.fetch(statement("day_scores"), version, limit)
    return [dict(row) for row in rows]


async def of_all_days(pool: Pool, versions: Sequence[str]) -> dict[str, dict[str, Row]]:
    """How versions did on the stream, by version and role (live, shadow); those without are out."""
    found: dict[str, dict[str, Row]] = {version: {} for version in versions}
    for row in await pool.fetch(statement("stream_scores"), list(versions)):
        found[row["version"]][row["rows"]] = dict(row)
    return found
