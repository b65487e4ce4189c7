"""Rejected messages: looked at, read again as they came, and marked when they were replayed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pipeline.store.pool import Pool
from pipeline.store.statements import statement

Place = tuple[int, int, int]  # partition, offset, index


async def newest(
    pool: Pool, limit: int, partition: int | None, reason: str | None, shown: int
) -> list[dict[str, Any]]:
    """The newest ones, newest first, with the first `shown` bytes of each and its whole `size`."""
    rows = await pool.fetch(statement("newest_rejected"), limit, partition, reason, shown)
    return [dict(row) for row in rows]


@asynccontextmanager
async def replaying(
    pool: Pool, places: Sequence[Place], who: str, *, again: bool
) -> AsyncIterator[dict[Place, bytes]]:
    """The bytes of messages by their places, in order, to publish them within the block.

    They are marked as replayed when the block succeeds. Those that are not there are left out, and
    those that were replayed before unless `again`; who asks for the same ones meanwhile waits.
    """
    async with pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(statement("replay_rejected"), *_columns(places), who, again)
        found = {(row["partition"], row["offset"], row["index"]): row["value"] for row in rows}
        yield dict(sorted(found.items()))


async def extent(pool: Pool, places: Sequence[Place]) -> tuple[int, int]:
    """How many bytes they are together, and how many of the places there are."""
    row = await pool.fetchrow(statement("rejected_size"), *_columns(places))
    return (0, 0) if row is None else (row["size"], row["n"])


def _columns(places: Sequence[Place]) -> list[list[int]]:
    return [[place[part] for place in places] for part in range(3)]
