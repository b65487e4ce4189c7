"""What readers ask of the stage tables: latest rows, counts, offsets."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
import numpy as np

from pipeline.errors import StateError
from pipeline.store.pool import Pool
from pipeline.store.statements import stage_statement, statement
from schemas.blocks import COLUMNS, Array, Rows, dtype_of
from schemas.times import format_rfc3339

Cursor = tuple[int, int, int, int]  # ts, partition, offset, index
EARLIEST: Final = -(2**63)  # event times (ns)
LATEST: Final = 2**63 - 1
FIRST: Final[Cursor] = (EARLIEST, -1, -1, -1)
LAST: Final[Cursor] = (LATEST, 2**31 - 1, 2**63 - 1, 2**31 - 1)


def document(record: asyncpg.Record) -> dict[str, Any]:
    """A stored row as the JSON document that the cache and the topics carry for it."""
    row = dict(record)
    row["time"] = format_rfc3339(row["ts"])
    return row


def cursor_of(row: Mapping[str, Any]) -> Cursor:
    """The place of a row in its symbol's history."""
    return row["ts"], row["partition"], row["offset"], row["index"]


async def symbols(pool: Pool) -> list[str]:
    """Every symbol seen live, sorted."""
    return sorted({row["symbol"] for row in await pool.fetch(statement("symbols"))})


async def latest(pool: Pool, stage: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The live row of highest identity of each symbol, by symbol; those without are left out."""
    rows = await pool.fetch(stage_statement("latest", stage), list(names))
    return {row["symbol"]: document(row) for row in rows}


async def quality(pool: Pool, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What the guard counted of each symbol: by partition and reason; times in ns."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for row in await pool.fetch(statement("quality"), list(names)):
        found[row["symbol"]].append(dict(row))
    return found


async def runs(pool: Pool) -> list[dict[str, Any]]:
    """How far each service's stored rows reach, by partition; times in ns."""
    return [dict(row) for row in await pool.fetch(statement("runs"))]


async def count(pool: Pool, stage: str) -> int:
    """The number of live rows."""
    return int(await pool.fetchval(stage_statement("counts", stage)))


async def offset_bounds(
    pool: Pool, stage: str, start: int | None, end: int | None
) -> dict[int, tuple[int, int]]:
    """Lowest and highest offset by partition of the live rows with start <= ts < end (ns)."""
    rows = await pool.fetch(stage_statement("offset_bounds", stage), start, end)
    return {row["partition"]: (row["low"], row["high"]) for row in rows}


def rows_of(stage: str, records: Sequence[asyncpg.Record]) -> Rows:
    """Stored rows in columns, bit for bit; the symbols are those found, sorted.

    Raises:
        StateError: a label is none of its column's: somebody else wrote it.
    """
    names = sorted({record["symbol"] for record in records})
    places = {name: code for code, name in enumerate(names)}
    columns: dict[str, Array] = {}
    for column in COLUMNS[stage]:
        values = [record[column.name] for record in records]
        if column.kind == "symbol":
            values = [places[value] for value in values]
        elif column.kind == "label":
            codes: dict[str | None, int] = {None: -1}
            codes.update((label, code) for code, label in enumerate(column.labels))
            try:
                values = [codes[value] for value in values]
            except KeyError as error:
                raise StateError(f"table {stage}: {error} is no value of {column.name}") from None
        columns[column.name] = np.array(values, dtype_of(column))
    return Rows(stage, columns, names)
