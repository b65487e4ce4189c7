"""Promotions that are watched: their rows, verdicts, and what was told of them."""

from collections.abc import Sequence
from typing import Any, Final

from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import statement

Row = dict[str, Any]
VERDICTS: Final = ("kept", "worse", "ended", "refused")
Chunk = tuple[str, int, int, bytes]  # model, generation, rows and what they are


async def add_rows(connection: Connection, service: str, chunks: Sequence[Chunk]) -> None:
    """Keep rows of promotions that are still watched, within a transaction; others are left."""
    await connection.executemany(
        statement("add_watched_rows"), [(service, *chunk) for chunk in chunks]
    )


async def unsettled(pool: Pool, service: str) -> list[Row]:
    """Promotions without a verdict, or whose rollback is still to be done or told.

    Each with the versions of the promotion, `generation_now` of its model, and the rows `kept`.
    """
    return [dict(row) for row in await pool.fetch(statement("unsettled_watches"), service)]


async def rows(pool: Pool, service: str, model: str, generation: int) -> list[bytes]:
    """The kept rows of a promotion."""
    found = await pool.fetch(statement("watched_rows"), service, model, generation)
    return [row["data"] for row in found]


async def settle(
    pool: Pool,
    model: str,
    generation: int,
    verdict: str,
    why: str,
    figures: tuple[int, float, float, float] | None = None,
) -> bool:
    """Give a verdict, if there is none, and drop the rows; whether it was this one that counts.

    Figures are the rows, both log losses (live, shadow) and the standard error.
    """
    told = (None, None, None, None) if figures is None else figures
    async with pool.acquire() as connection, connection.transaction():
        settled = await connection.fetchval(
            statement("settle_watch"), model, generation, verdict, why, *told
        )
        await connection.execute(statement("drop_watched_rows"), model, generation)
    return settled is not None


async def refuse(pool: Pool, model: str, generation: int) -> None:
    """Note that what was to be gone back to cannot speak any more."""
    await pool.execute(statement("refuse_watch"), model, generation)


async def end_overtaken(pool: Pool) -> None:
    """Of promotions that were worse, end those after which somebody else made another change."""
    await pool.execute(statement("end_overtaken_watches"))


async def untold(connection: Connection) -> list[Row]:
    """Rollbacks by a verdict of which `alerts` was not told, locked."""
    return [dict(row) for row in await connection.fetch(statement("untold_watches"))]


async def set_told(connection: Connection, model: str, generation: int) -> None:
    """Note that it was told."""
    await connection.execute(statement("set_watch_told"), model, generation)
