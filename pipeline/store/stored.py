"""The stored ticks as they once arrived, streamed by a cursor: what a replay of them needs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import numpy as np

from pipeline.store.pool import Connection, Pool
from pipeline.store.reads import rows_of
from pipeline.store.statements import stage_statement, statement
from schemas.arrivals import FACTORS, FLOATS, Arrivals, arrivals
from schemas.blocks import Array, Rows, empty

_TICKS: Final = "ticks"
SORTING: Final = 86_400.0  # seconds that a piece may take: the first one waits for the sorting
_ROWS: Final = 20_000
_AS_STORED: Final = ("offset", "index", "symbol", "ts", "side", "id", *FLOATS)


class StoredTicks:
    """Live ticks of one moment of the database; every partition is read in its own order."""

    def __init__(self, connection: Connection, start: int | None, end: int | None) -> None:
        self._connection = connection
        self._start = start
        self._end = end

    async def extents(self) -> Mapping[int, tuple[int, int, int]]:
        """First and last offset, and the number of ticks, by partition."""
        rows = await self._connection.fetch(
            statement("stored_extents"), self._start, self._end, timeout=SORTING
        )
        return {row["partition"]: (row["low"], row["high"], row["count"]) for row in rows}

    async def arrivals(self, partition: int, block: int) -> AsyncIterator[Arrivals]:
        """The ticks of a partition by offset and index, at most `block` at a time."""
        cursor = await self._connection.cursor(
            stage_statement("stored_ticks", _TICKS),
            partition,
            self._start,
            self._end,
            timeout=SORTING,
        )
        scales = _Scales(begins=self._start is None)
        while records := await cursor.fetch(block, timeout=SORTING):
            yield _arrived(partition, rows_of(_TICKS, records), scales)


@asynccontextmanager
async def stored_ticks(
    pool: Pool, start: int | None, end: int | None
) -> AsyncIterator[StoredTicks]:
    """Open the live ticks with start <= ts < end (ns, None for no bound).

    Raises:
        UnavailableError: Postgres does not answer or went away meanwhile.
    """
    async with reading(pool) as connection:
        yield StoredTicks(connection, start, end)


async def stored_rows(pool: Pool, stage: str, start: int | None, end: int | None) -> Rows:
    """All live rows of a stage with start <= ts < end (ns), by ts, partition, offset and index.

    Raises:
        UnavailableError: Postgres does not answer or went away meanwhile.
    """
    parts: list[Rows] = []
    async with reading(pool) as connection:
        cursor = await connection.cursor(
            stage_statement("stored_rows", stage), start, end, timeout=SORTING
        )
        while records := await cursor.fetch(_ROWS, timeout=SORTING):
            parts.append(rows_of(stage, records))  # columns: an eighth of what records take
    if not parts:
        return empty(stage)
    names = sorted({name for part in parts for name in part.symbols})
    codes = [np.searchsorted(names, part.symbols).astype(np.int32) for part in parts]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns}
    columns["symbol"] = np.concatenate(
        [code[part["symbol"]] for code, part in zip(codes, parts, strict=True)]
    )
    return Rows(stage, columns, names)


@asynccontextmanager
async def reading(pool: Pool) -> AsyncIterator[Connection]:
    """A connection that sees one moment of the database, however long it reads."""
    async with pool.moment() as connection:
        # Sorting may take long; a cursor is waited for at each piece of it.
        await connection.execute("SET LOCAL statement_timeout = 0")
        yield connection


class _Scales:
    """Corporate actions told from what is stored, the product of their factors up to each tick."""

    def __init__(self, *, begins: bool) -> None:
        self._begins = begins  # a stretch from the middle starts in the units of its first tick
        self._last: dict[tuple[str, str], float] = {}

    def factors(self, rows: Rows, name: str) -> Array:
        """The factor with which each tick changed its symbol's product, NaN where it did not."""
        found = np.full(len(rows), np.nan)
        values = rows[name]
        for code in np.unique(rows["symbol"]).tolist():
            at = np.flatnonzero(rows["symbol"] == code)
            key = (rows.symbols[code], name)
            first = 1.0 if self._begins else float(values[at[0]])
            before = np.concatenate([[self._last.get(key, first)], values[at[:-1]]])
            self._last[key] = float(values[at[-1]])
            for i in np.flatnonzero(before != values[at]).tolist():
                found[at[i]] = _factor(float(before[i]), float(values[at[i]]))
        return found


def _factor(before: float, after: float) -> float:
    """A factor that leads from one product to the next, to the last bit if any does."""
    ratio = after / before
    near = (ratio, float(np.nextafter(ratio, 0.0)), float(np.nextafter(ratio, np.inf)))
    return next((one for one in near if before * one == after), ratio)


def _arrived(partition: int, rows: Rows, scales: _Scales) -> Arrivals:
    columns: dict[str, Any] = {name: rows[name] for name in _AS_STORED}
    columns["recv_ts"] = rows["known_at"]
    for name, product in zip(FACTORS, ("scale", "volume_scale"), strict=True):
        columns[name] = scales.factors(rows, product)
    return arrivals(partition, columns, rows.symbols)
