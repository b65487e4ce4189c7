"""Rejected messages: looked at, and read again as they came."""

from collections.abc import Sequence
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


async def values(pool: Pool, places: Sequence[Place]) -> dict[Place, bytes]:
    """The bytes of messages by their places, in order; those that are not there are left out."""
    rows = await pool.fetch(statement("rejected_values"), *_columns(places))
    return {(row["partition"], row["offset"], row["index"]): row["value"] for row in rows}


async def size(pool: Pool, places: Sequence[Place]) -> int:
    """How many bytes they are together."""
    found: int = await pool.fetchval(statement("rejected_size"), *_columns(places))
    return found


def _columns(places: Sequence[Place]) -> list[list[int]]:
    return [[place[part] for place in places] for part in range(3)]
