"""Candles of any interval, made by the server from stored bars or ticks."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final, Literal

import asyncpg

from pipeline.errors import UnavailableError
from pipeline.store import history
from pipeline.store.pool import Connection, Pool
from pipeline.store.reads import EARLIEST, FIRST, LAST, LATEST, Cursor, cursor_of
from pipeline.store.statements import statement

Source = Literal["bars", "ticks"]
_PLACE: Final = ("partition", "offset", "index", "ts")
_GROWTH: Final = 2  # of the stretch that is made at once, where most intervals are empty
_SLOW: Final = 10.0  # seconds that all of a page may take
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What candles are made of, and how long each is.

    Args:
        source: `bars` are finer than the interval and end at a multiple of it, `ticks` always fit.
        interval: ns; candles begin at its multiples since 1970 UTC.
        known: only rows whose known-at time (ns) is not after this.
    """

    source: Source
    interval: int
    known: int | None = None

    @property
    def shift(self) -> int:
        """A bar bears the time of its end, and belongs to the interval in which it ended."""
        return 1 if self.source == "bars" else 0

    def start_of(self, ts: int) -> int:
        """The beginning of the interval of a row."""
        return (ts - self.shift) // self.interval * self.interval


async def read(
    pool: Pool,
    kind: Kind,
    symbol: str,
    start: int,
    end: int,
    limit: int,
    after: Cursor | None = None,
    before: Cursor | None = None,
) -> list[Row]:
    """Up to `limit` candles that begin at start <= ts < end (ns), in order, without empty ones.

    Prices and volumes are in the units of the last row of their candle. Where another instrument
    takes the symbol over, each has a candle of its own: `life` tells them apart. The place of a
    candle is (ts, 0, life, 0).

    Raises:
        UnavailableError: Postgres does not answer, or it takes too long.
        StateError: the database has not the tables of this version.
    """
    walk = _Walk(pool, kind, symbol, limit, after or FIRST, before or LAST, before is not None)
    try:
        async with asyncio.timeout(_SLOW):
            return await walk.over(start, end)
    except TimeoutError as error:
        raise UnavailableError("Postgres: the candles take too long") from error


@dataclass(frozen=True, slots=True)
class _Walk:
    """A walk from the near end to the other, over stretches of time that hold rows."""

    pool: Pool
    kind: Kind
    symbol: str
    limit: int
    after: Cursor
    before: Cursor
    backward: bool

    async def over(self, start: int, end: int) -> list[Row]:
        width = self.kind.interval
        low = max(-(-start // width) * width, self.kind.start_of(self.after[0] + self.kind.shift))
        high = -(-min(end, self.before[0] + 1) // width) * width  # behind the last interval
        found: list[Row] = []
        stretch = self.limit * width
        while len(found) < self.limit and low < high:
            place = await self._nearest(low, high)
            if place is None:
                break
            if self.backward:
                part = max(low, place + width - stretch), min(high, place + width)
                high = part[0]
            else:
                part = max(low, place), min(high, place + stretch)
                low = part[1]
            rows = await self._made(*part)
            found = rows + found if self.backward else found + rows
            stretch *= _GROWTH
        return found[-self.limit :] if self.backward else found[: self.limit]

    async def _nearest(self, low: int, high: int) -> int | None:
        """The beginning of the first interval that has a row, or of the last one."""
        rows = await history.read(
            self.pool,
            self.kind.source,
            self.symbol,
            max(low + self.kind.shift, EARLIEST),
            min(high + self.kind.shift, LATEST),
            1,
            before=LAST if self.backward else None,
            known=self.kind.known,
            columns=_PLACE,
        )
        return self.kind.start_of(rows[0]["ts"]) if rows else None

    async def _made(self, low: int, high: int) -> list[Row]:
        known = LATEST if self.kind.known is None else self.kind.known
        shift = self.kind.shift
        async with self.pool.moment() as connection:
            rows = await self._aggregated(connection, low + shift, high + shift - 1, known)
        candles = [{**row, "partition": 0, "offset": row["life"], "index": 0} for row in rows]
        return [one for one in candles if self.after < cursor_of(one) < self.before]

    async def _aggregated(
        self, connection: Connection, low: int, high: int, known: int
    ) -> list[asyncpg.Record]:
        source = self.kind.source
        days = await connection.fetch(
            statement("history_days"), source, self.symbol, low, high, known
        )
        if not days:
            return []
        part = statement(f"rows_of_{source}")
        parts = " UNION ALL ".join(part.replace("{leaf}", f'"{day["name"]}"') for day in days)
        await connection.execute(statement("plan_by_index"))
        return await connection.fetch(
            statement("candles").replace("{rows}", parts),
            self.symbol, low, high, known, self.kind.interval, self.kind.shift,
        )  # fmt: skip
