"""How far a watcher of a live run came in its topics, with the state of it there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConflictError
from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import statement

Place = tuple[int, int, int]  # next offset of the topic; offset and index of the last row seen
START: Place = (0, -1, -1)


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a watcher of a partition stands; generation 0: it has not begun."""

    generation: int = 0
    places: Mapping[str, Place] | None = None
    data: bytes | None = None


async def kept(pool: Pool, of: str, service: str, partition: int) -> Kept:
    """How far it came, by the statement `of`."""
    row = await pool.fetchrow(statement(of), service, partition)
    if row is None:
        return Kept()
    places = {topic: tuple(place) for topic, place in json.loads(row["places"]).items()}
    return Kept(row["generation"], places, row["data"])


async def move(
    connection: Connection, by: str, service: str, partition: int, now: Kept, *more: Any
) -> None:
    """Store how far it came, by the statement `by`; `now` has the generation before it.

    Raises:
        ConflictError: another watcher was faster.
    """
    places = json.dumps({topic: list(place) for topic, place in (now.places or {}).items()})
    moved = await connection.fetchval(
        statement(by), service, partition, now.generation, places, now.data, *more
    )
    if moved is None:
        raise ConflictError(f"partition {partition}: another watcher went on with it")
