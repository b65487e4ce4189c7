"""A symbol's history by pages, read day by day and always by an index.

A settled day says in `extents` what it holds of the symbol, so that only the days a page needs are
opened; its btree gives rows in order. An open day has BRIN only, which finds ranges of pages but
gives no order: there the page is read by windows of event time that begin at the near end and grow
until it is full. Where to begin is told by the times of a few pages, taken evenly; a wrong guess
costs time and never a row, since the last window reaches to the end of what was asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from pipeline.errors import StateError, UnavailableError
from pipeline.store.pool import Connection, Pool
from pipeline.store.reads import EARLIEST, FIRST, LAST, LATEST, Cursor, cursor_of, document
from pipeline.store.statements import leaf_statement, statement

_SMALL: Final = 256  # pages that are read at once
_SAMPLES: Final = 64  # pages whose times are looked at
_WINDOW: Final = 128.0  # pages of the first window: two ranges of the index
_GROWTH: Final = 16.0  # from a window to the next at most
_MARGIN: Final = 1.2  # of a window that should fill the page
_ATTEMPTS: Final = 3
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked of a history; all bounds count themselves in, but for the cursor.

    Args:
        low, high: event time (ns).
        limit: rows at most.
        edge: the rows come behind this place, or before it when `backward`.
        backward: the last rows of the span and not the first ones.
        known: only rows whose known-at time (ns) is not after this.
    """

    low: int
    high: int
    limit: int
    edge: Cursor
    backward: bool = False
    known: int = LATEST

    def without(self, found: Sequence[Row]) -> "Span":
        """The part that can still hold better rows than these, which are sorted and enough."""
        if len(found) < self.limit:
            return self
        worst = found[self.limit - 1]["ts"]
        if self.backward:
            return replace(self, low=max(self.low, worst))
        return replace(self, high=min(self.high, worst))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What every statement of a page shares."""

    connection: Connection
    stage: str
    symbol: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Day:
    """A table with rows of the symbol: the times it may hold, and how it can be read."""

    name: str
    low: int = EARLIEST
    high: int = LATEST
    pages: int = 0  # to be read by windows; 0: it has a btree


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
    was known by then. All of it is of one moment of the database. `columns` says which ones, those
    of a cursor among them; without it a row is the document that the topics carry.

    Raises:
        UnavailableError: Postgres does not answer or went away meanwhile.
        StateError: the database has not the tables of this version.
    """
    backward = before is not None
    edge = (before or LAST) if backward else (after or FIRST)
    span = Span(
        start if backward else max(start, edge[0]),
        min(end - 1, edge[0]) if backward else end - 1,
        limit,
        edge,
        backward,
        LATEST if known is None else known,
    )
    if limit <= 0 or span.low > span.high:
        return []
    for _ in range(_ATTEMPTS):
        try:
            async with pool.moment() as connection:
                found = await _page(_Asked(connection, stage, symbol, columns), span)
        except StateError:
            if await pool.fetchval(statement("is_migrated"), stage):
                continue  # a day was dropped since it was listed
            raise
        return found[::-1] if backward else found
    raise UnavailableError("the tables change too fast to be read")


async def _page(asked: _Asked, span: Span) -> list[Row]:
    days = await days_of(asked.connection, asked.stage, asked.symbol, span)
    # The tables of today have no statistics, without which the planner would read all of them.
    await asked.connection.execute(statement("plan_by_index"))
    found: list[Row] = []
    for day in days:
        part = span.without(found)
        part = replace(part, low=max(part.low, day.low), high=min(part.high, day.high))
        if part.low <= part.high:
            found += await _read_day(asked, part, day)
            found = sorted(found, key=cursor_of, reverse=span.backward)[: span.limit]
    return found


async def days_of(connection: Connection, stage: str, symbol: str, span: Span) -> list[Day]:
    """The tables that may hold rows of the span, the likeliest first."""
    bounds = (span.low, span.high, span.known)
    settled = [
        Day(row["name"], row["first_ts"], min(row["last_ts"], _led(span.known, row["lead"])))
        for row in await connection.fetch(statement("extents"), stage, symbol, *bounds)
    ]
    settled.sort(key=lambda day: day.high if span.backward else day.low, reverse=span.backward)
    # Of a day that is not settled nothing is known: it is asked whatever the others gave. The
    # newest rows are there, so it comes first when they are wanted.
    rows = await connection.fetch(statement("unsettled"), stage)
    recent = [
        Day(row["name"], pages=0 if row["indexed"] and span.known == LATEST else row["pages"])
        for row in sorted(rows, key=lambda row: row["name"], reverse=span.backward)
        if row["pages"]
    ]
    return [*recent, *settled] if span.backward else [*settled, *recent]


def _led(known: int, lead: int) -> int:
    """The latest event time of what was known by then."""
    return LATEST if known == LATEST else min(known + lead, LATEST)


async def _read_day(asked: _Asked, span: Span, day: Day) -> list[Row]:
    if day.pages <= _SMALL:
        return await _fetch(asked, span, day.name)
    found: list[Row] = []
    spread = await _spread(asked, day)
    rest = span
    pages = _WINDOW
    while rest.low <= rest.high and len(found) < span.limit:
        near, rest = _cut(rest, spread, pages)
        part = replace(near, limit=span.limit - len(found))
        got = await _fetch(asked, part, day.name)
        found += got
        wanted = _MARGIN * (span.limit - len(found)) / max(len(got), 0.1)
        pages = max(_WINDOW, pages * min(wanted, _GROWTH))
    return found


async def _fetch(asked: _Asked, span: Span, name: str) -> list[Row]:
    sql = leaf_statement(
        "history_backward" if span.backward else "history_forward",
        asked.stage,
        f'"{name}"',
        asked.columns,
    )
    bounds = (span.low, span.high, span.known, *span.edge, span.limit)
    records = await asked.connection.fetch(sql, asked.symbol, *bounds)
    return [dict(one) if asked.columns else document(one) for one in records]


@dataclass(frozen=True, slots=True)
class _Spread:
    """How event time is spread over the pages of a table: so many pages lie before a time."""

    times: Sequence[int]
    pages: Sequence[int]

    def before(self, ts: int) -> float:
        """About how many pages lie before a time."""
        return float(np.interp(ts, self.times, self.pages))

    def at(self, page: float) -> int | None:
        """About the time before which so many pages lie; None beyond both ends."""
        if not self.pages[0] < page < self.pages[-1]:
            return None
        low = int(np.searchsorted(self.pages, page, "right")) - 1
        share = (page - self.pages[low]) / (self.pages[low + 1] - self.pages[low])
        return self.times[low] + int((self.times[low + 1] - self.times[low]) * share)


async def _spread(asked: _Asked, day: Day) -> _Spread:
    """The event times of some pages, by the first row of each; close to each other at the ends."""
    last = day.pages - 1
    near = 2 ** np.arange(last.bit_length())
    even = np.linspace(0, last, _SAMPLES).astype(int)
    at = np.unique(np.concatenate([[0, last], near, last - near, even]))
    sql = leaf_statement("page_times", asked.stage, f'"{day.name}"')
    rows = await asked.connection.fetch(sql, [f"({page},1)" for page in at])
    # In the order of time each: where the rows lie in another one, these are shares all the same.
    pages = sorted(row["page"] for row in rows)
    return _Spread(sorted(row["ts"] for row in rows), pages)


def _cut(span: Span, spread: _Spread, pages: float) -> tuple[Span, Span]:
    """The near end of a span, about so many pages of it, and what is left."""
    middle = None
    if spread.times:
        edge = span.high if span.backward else span.low
        middle = spread.at(spread.before(edge) + (-pages if span.backward else pages))
    if middle is None or not span.low < middle < span.high:
        return span, replace(span, low=1, high=0)
    if span.backward:
        return replace(span, low=middle), replace(span, high=middle - 1)
    return replace(span, high=middle), replace(span, low=middle + 1)
