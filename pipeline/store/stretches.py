"""Stored live rows of a partition in the order of identity, a piece at a time; kept states."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, Protocol

import asyncpg
import numpy as np

from pipeline.store.live import decompress
from pipeline.store.pool import Connection, Pool
from pipeline.store.reads import EARLIEST, LATEST, rows_of
from pipeline.store.statements import stage_statement, statement
from pipeline.store.stored import SORTING
from schemas.blocks import Rows, empty

Place = tuple[int, int]  # offset and index
BEHIND: Final = 2**31 - 1  # an index that no row has: the place behind all rows of a message
_ROWS: Final = 8_192
_EVER: Final = (EARLIEST, LATEST)


class StoredRows(Protocol):
    """Rows of one partition, asked for piece after piece."""

    async def between(self, after: Place, upto: Place, replayed: Rows) -> Rows:
        """Rows of the stage of `replayed` with after < (offset, index) <= upto, in this order.

        Where there are more than were replayed, some of them suffice: it is a difference then.
        """
        ...


class SortedRows:
    """Every row of a stretch, each stage sorted once by the server and read by a cursor.

    The connection is in a transaction, and each piece begins where the one before it ended.
    """

    def __init__(self, connection: Connection, partition: int, low: int, high: int) -> None:
        self._connection = connection
        self._stretch = (partition, low, high)
        self._tails: dict[str, _Tail] = {}

    async def between(self, _after: Place, upto: Place, replayed: Rows) -> Rows:
        """As `StoredRows`."""
        stage = replayed.stage
        if stage not in self._tails:
            cursor = await self._connection.cursor(
                stage_statement("range", stage), *self._stretch, timeout=SORTING
            )
            self._tails[stage] = _Tail(cursor)
        return rows_of(stage, await self._tails[stage].take(upto, len(replayed)))


class _Tail:
    """What a cursor has not given yet, and what it gave too early."""

    def __init__(self, cursor: "asyncpg.cursor.Cursor[asyncpg.Record]") -> None:
        self._cursor = cursor
        self._waiting: Sequence[asyncpg.Record] = ()
        self._at = 0

    async def take(self, upto: Place, most: int) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = []
        while len(found) <= most:
            if self._at == len(self._waiting):
                self._waiting = await self._cursor.fetch(_ROWS, timeout=SORTING)
                self._at = 0
                if not self._waiting:
                    break
            stop = bisect_right(self._waiting, upto, self._at, key=_place)
            found += self._waiting[self._at : stop]
            self._at = stop
            if stop < len(self._waiting):
                break
        return found


def _place(record: asyncpg.Record) -> Place:
    return record["offset"], record["index"]


class RecentRows:
    """Rows of a short stretch of large tables, found by the event times that the replay gives.

    An open day has no index on offsets. So a stored row too many is only found if its event time
    lies among those of the rows that were replayed with it; a missing or changed one always.
    """

    def __init__(self, pool: Pool, partition: int) -> None:
        self._pool = pool
        self._partition = partition

    async def between(self, after: Place, upto: Place, replayed: Rows) -> Rows:
        """As `StoredRows`."""
        stage = replayed.stage
        if not len(replayed):
            return empty(stage)
        times = int(np.min(replayed["ts"])), int(np.max(replayed["ts"]))
        records = await self._fetch(stage, after, upto, times, len(replayed) + 1)
        if len(records) < len(replayed):  # what is missing may be there with another time
            records = await self._fetch(stage, after, upto, _EVER, len(replayed) + 1)
        return rows_of(stage, records)

    async def _fetch(
        self, stage: str, after: Place, upto: Place, times: tuple[int, int], most: int
    ) -> Sequence[asyncpg.Record]:
        sql = stage_statement("window", stage)
        return await self._pool.fetch(sql, self._partition, *after, *upto, *times, most)


async def kept_state(
    pool: Pool, service: str, partition: int, low: int, high: int
) -> tuple[int, bytes] | None:
    """The oldest kept state behind an offset with low <= offset <= high: the offset, its bytes."""
    row = await pool.fetchrow(statement("kept_state"), service, partition, low, high)
    return None if row is None else (row["offset"], decompress(row["data"]))
