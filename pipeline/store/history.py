"""A symbol's history by pages, each in one round trip and of one moment of the database.

The functions that read it are in `migrations/0018_history_page.sql`: day by day and always by an
index. Settled days say what they hold of the symbol, so that only those a page needs are opened;
open days are read by windows of event time.
"""

from typing import Any, Final

from pipeline.errors import StateError, UnavailableError
from pipeline.store.pool import Pool
from pipeline.store.reads import FIRST, LAST, LATEST, Cursor
from pipeline.store.statements import stage_statement, statement

_ATTEMPTS: Final = 3
Row = dict[str, Any]


async def read(
    pool: Pool,
    stage: str,
    symbol: str,
    start: int,
    end: int,
    limit: int,
    after: Cursor | None = None,
    before: Cursor | None = None,
    known: int | None = None,
    columns: tuple[str, ...] = (),
) -> list[Row]:
    """Up to `limit` live rows of a symbol with start <= ts < end (ns), in the order of time.

    After `after`, or, when `before` is given, the last ones before it. With `known` (ns) only what
    was known by then. All of it is of one moment of the database. `columns` says which ones;
    without it a row has all of them.

    Raises:
        UnavailableError: Postgres does not answer or went away meanwhile.
        StateError: the database has not the tables of this version.
    """
    backward = before is not None
    edge = (before or LAST) if backward else (after or FIRST)
    low = start if backward else max(start, edge[0])
    high = min(end - 1, edge[0]) if backward else end - 1
    if limit <= 0 or low > high:
        return []
    sql = stage_statement("history", stage, columns)
    bounds = (low, high, LATEST if known is None else known, *edge, limit, backward)
    for _ in range(_ATTEMPTS):
        try:
            records = await pool.fetch(sql, symbol, *bounds)
        except StateError:
            if await pool.fetchval(statement("is_migrated"), stage):
                continue  # a day was dropped since it was listed
            raise
        found = [dict(one) for one in records]
        return found[::-1] if backward else found
    raise UnavailableError("the tables change too fast to be read")
