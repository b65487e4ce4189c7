"""Upkeep of the daily tables: made ahead of need, indexed when over, settled, dropped when old."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import asyncpg

from pipeline.errors import TickstreamError
from pipeline.settings import StoreSettings
from pipeline.store.migrate import ensure_days, leaf
from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import leaf_statement, statement
from schemas.blocks import STAGES

_LOCK: Final = 7_216_455_302  # any number, the same for all of us; migrations have their own
_AHEAD: Final = 3  # today, tomorrow and the day after
_LATE: Final = 2  # days until nobody writes into a day any more
_CHUNK: Final = 5_000  # rows deleted in one transaction
_BUILD: Final = 3600.0  # seconds an index may take; a round that is cut is repaired by the next
# A queue forms behind whoever waits for a whole stage table: wait briefly, and then again.
_LOCK_MS: Final = 200
_ATTEMPTS: Final = 5
_PAUSE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did."""

    ours: bool = True  # False: another process was at it, and nothing was done
    made: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()  # too old but in use; a later round drops them
    forgotten: int = 0  # rejected messages
    indexed: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()

    def line(self) -> str:
        """For a log; empty when there was nothing to do."""
        parts = [
            f"{what} {names[0] if len(names) == 1 else f'{len(names)} tables, {names[0]} first'}"
            for what, names in (
                ("made", self.made),
                ("dropped", self.dropped),
                ("could not yet drop", self.busy),
                ("indexed", self.indexed),
                ("settled", self.settled),
            )
            if names
        ]
        if self.forgotten:
            parts.append(f"forgot {self.forgotten:,} rejected messages")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class _Leaf:
    stage: str
    name: str
    day: date
    indexed: bool | None  # None: no index, False: one that was left behind half built
    settled: bool


async def keep(pool: Pool, settings: StoreSettings, today: date) -> Round:
    """One round of upkeep, to be repeated now and then; it does only what is still missing.

    Any number of processes may call it: one does the work, the others come back at once.

    Raises:
        UnavailableError: Postgres does not answer.
        TickstreamError: Postgres refuses a step; what was done before it stays done.
    """
    try:
        async with pool.acquire() as connection:
            # Held by the session; the pool lets go of it when the connection is given back.
            if not await connection.fetchval(statement("try_lock"), _LOCK):
                return Round(ours=False)
            return await _round(connection, settings, today)
    except asyncpg.PostgresError as error:
        raise TickstreamError(f"upkeep of the tables: {' '.join(str(error).split())}") from error


async def _round(connection: Connection, settings: StoreSettings, today: date) -> Round:
    async with connection.transaction():
        made = await ensure_days(connection, [today + timedelta(days=n) for n in range(_AHEAD)])
    leaves = [one for stage in STAGES for one in await _leaves(connection, stage)]
    dropped: list[str] = []
    busy: list[str] = []
    forgotten = 0
    if settings.retention_days is not None:
        first = today - timedelta(days=settings.retention_days)
        for one in [one for one in leaves if one.day < first]:
            (dropped if await _drop(connection, one.name) else busy).append(one.name)
        forgotten = await _forget(connection, first)
    gone = {*dropped, *busy}
    closed = [one for one in leaves if one.day < today and one.name not in gone]
    indexed = await _index(connection, [one for one in closed if not one.indexed])
    quiet = today - timedelta(days=_LATE)
    over = [one for one in closed if one.day <= quiet and not one.settled]
    settled = [one.name for one in over if await _settle(connection, one)]
    return Round(
        True, tuple(made), tuple(dropped), tuple(busy), forgotten, tuple(indexed), tuple(settled)
    )


async def summarise(pool: Pool, today: date) -> int:
    """Take the newest pages of today's tables into their indexes; returns how many ranges.

    Until then every reader of history reads all of them.

    Raises:
        UnavailableError: Postgres does not answer.
    """
    count = 0
    async with pool.acquire() as connection:
        for stage in STAGES:
            async with connection.transaction():
                # A vacuum that holds the lock does the same; who waits longer has it cancelled.
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                with suppress(asyncpg.LockNotAvailableError):
                    count += await _summarised(connection, leaf(stage, today))
    return count


async def _summarised(connection: Connection, name: str) -> int:
    async with connection.transaction():
        return int(await connection.fetchval(statement("summarise"), name))


async def _leaves(connection: Connection, stage: str) -> list[_Leaf]:
    """The daily tables of a stage; a partition that somebody made under another name is theirs."""
    found = []
    for row in await connection.fetch(statement("leaves"), stage):
        day = _day_of(stage, row["name"])
        if day is not None:
            found.append(_Leaf(stage, row["name"], day, row["indexed"], row["settled"]))
    return found


def _day_of(stage: str, name: str) -> date | None:
    """The day in a name as `migrate.leaf` makes it."""
    match = re.fullmatch(rf"{stage}_(\d{{8}})", name)
    if match is None:
        return None
    try:
        return date.fromisoformat(match[1])
    except ValueError:
        return None


async def _drop(connection: Connection, name: str) -> bool:
    """Drop a table, unless its stage stays in use; whether it is gone."""
    await connection.execute(statement("unsettle"), name)  # before readers are sent to it in vain
    return await _briefly(connection, f"DROP TABLE IF EXISTS {name}")


async def _settle(connection: Connection, one: _Leaf) -> bool:
    """Have a table refuse rows, then count what it holds; whether it was done."""
    rule = f"{one.name}_settled"
    if not await connection.fetchval(statement("refuses_rows"), one.name, rule):
        # Who computed its day two days ago and slept since is refused, and begins anew.
        sql = f"ALTER TABLE {one.name} ADD CONSTRAINT {rule} CHECK (false) NOT VALID"
        if not await _briefly(connection, sql):
            return False
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = {int(_BUILD * 1000)}")
        await connection.execute(statement("settle"), one.name, one.stage)
        sql = leaf_statement("count_extents", one.stage, one.name)
        await connection.execute(sql, one.name, one.stage, timeout=_BUILD + 5)
    return True


async def _briefly(connection: Connection, sql: str) -> bool:
    """Do what needs a table alone, without a queue forming behind it; whether it was done."""
    await connection.execute(f"SET lock_timeout = {_LOCK_MS}")
    try:
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE)
            try:
                await connection.execute(sql)
            except asyncpg.LockNotAvailableError:
                continue
            return True
        return False
    finally:
        await connection.execute("RESET lock_timeout")


async def _forget(connection: Connection, first: date) -> int:
    """Delete the messages that were rejected before a day, a chunk a transaction."""
    total = 0
    while True:
        status = await connection.execute(statement("forget_rejected"), first, _CHUNK)
        count = int(status.split()[-1])
        total += count
        if count < _CHUNK:
            return total


async def _index(connection: Connection, leaves: Sequence[_Leaf]) -> list[str]:
    """Build the index of closed days while late writers and readers go on."""
    if leaves:
        # It may take long, and leaves the other core to the workers.
        await connection.execute(f"SET statement_timeout = {int(_BUILD * 1000)}")
        await connection.execute("SET max_parallel_maintenance_workers = 0")
    for one in leaves:
        index, by_offset = f"{one.name}_symbol_ts", f"{one.name}_at_offset"
        if one.indexed is not None:
            await connection.execute(f"DROP INDEX CONCURRENTLY {index}", timeout=_BUILD + 5)
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {by_offset}")
        await connection.execute(
            f'CREATE INDEX CONCURRENTLY {by_offset} ON {one.name} USING brin ("offset")'
            " WITH (pages_per_range = 32)",
            timeout=_BUILD + 5,
        )
        # First, as the valid index is the sign that the day is done. Readers of pages that are
        # marked as seen by all do not look at each row's transaction, nor write what they found.
        await connection.execute(f"VACUUM (FREEZE, ANALYZE) {one.name}", timeout=_BUILD + 5)
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {index} ON {one.name} (symbol, ts)", timeout=_BUILD + 5
        )
    return [one.name for one in leaves]
