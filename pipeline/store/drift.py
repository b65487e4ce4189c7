"""What watchers of drift keep: alarms, and how far they came with which state."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.store import places
from pipeline.store.places import Kept
from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import statement

Row = dict[str, Any]
_COLUMNS = (
    "partition", "offset", "index", "symbol", "ts", "kind", "name", "change", "since", "evidence",
    "looked", "stride",
)  # fmt: skip


async def kept(pool: Pool, service: str, partition: int) -> Kept:
    """How far it came."""
    return await places.kept(pool, "drift_state", service, partition)


async def keep(
    pool: Pool,
    service: str,
    partition: int,
    now: Kept,
    alarms: Sequence[Mapping[str, Any]],
    series: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Store alarms and the state behind them, together; `now` has the generation before it.

    `series` tell how it stands with each series in that state.

    Raises:
        ConflictError: another watcher was faster; nothing is stored.
        UnavailableError: Postgres is away; all is stored or nothing.
    """
    told = json.dumps(series)
    async with pool.acquire() as connection, connection.transaction():
        await places.move(connection, "keep_drift_state", service, partition, now, told)
        await connection.executemany(
            statement("add_drift"), [[alarm[name] for name in _COLUMNS] for alarm in alarms]
        )


async def unannounced(connection: Connection, most: int) -> list[Row]:
    """The oldest alarms that were not told yet, locked, each with its `id`."""
    return [dict(row) for row in await connection.fetch(statement("unannounced_drift"), most)]


async def set_announced(connection: Connection, ids: Sequence[int]) -> None:
    """Note that they were told."""
    await connection.execute(statement("set_drift_announced"), list(ids))


async def series(
    pool: Pool, service: str, limit: int, symbol: str | None = None, state: str | None = None
) -> list[Row]:
    """How it stands with each series that is watched, by symbol, kind and name."""
    rows = await pool.fetch(statement("drift_series"), service, symbol, state, limit)
    return [dict(row) for row in rows]


async def newest(pool: Pool, limit: int, symbol: str | None) -> list[Row]:
    """The newest alarms, newest first."""
    return [dict(row) for row in await pool.fetch(statement("newest_drift"), limit, symbol)]
