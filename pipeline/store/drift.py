"""What watchers of drift keep: alarms, and how far they came with which state."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConflictError
from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import statement

Row = dict[str, Any]
Place = tuple[int, int, int]  # next offset of the topic; offset and index of the last row seen
START: Place = (0, -1, -1)
_COLUMNS = (
    "partition", "offset", "index", "symbol", "ts", "kind", "name", "change", "since", "evidence",
    "looked", "stride",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a watcher of a partition stands; generation 0: it has not begun."""

    generation: int = 0
    places: Mapping[str, Place] | None = None
    data: bytes | None = None


async def kept(pool: Pool, service: str, partition: int) -> Kept:
    """How far it came."""
    row = await pool.fetchrow(statement("drift_state"), service, partition)
    if row is None:
        return Kept()
    places = {topic: tuple(place) for topic, place in json.loads(row["places"]).items()}
    return Kept(row["generation"], places, row["data"])


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
    places = json.dumps({topic: list(place) for topic, place in (now.places or {}).items()})
    async with pool.acquire() as connection, connection.transaction():
        moved = await connection.fetchval(
            statement("keep_drift_state"),
            service,
            partition,
            now.generation,
            places,
            now.data,
            json.dumps(series),
        )
        if moved is None:
            raise ConflictError(f"partition {partition}: another watcher of drift went on with it")
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
