"""What the live loop writes: one transaction a batch, fenced by epoch, with its marks."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any, Final

import asyncpg
import cramjam
import structlog

from pipeline.clock import today
from pipeline.errors import FencedError, StateError
from pipeline.store import parameters, reads
from pipeline.store.activations import Planned, activations, plan
from pipeline.store.copy import HEADER, TRAILER, copy_columns, copy_pieces
from pipeline.store.migrate import ensure_days, leaf
from pipeline.store.pool import Connection, Pool
from pipeline.store.session import Step
from pipeline.store.statements import statement
from schemas.arrivals import Reject
from schemas.blocks import Rows
from schemas.models import Activation

LOG: Final = structlog.get_logger()
_GRACE: Final = 1.0  # seconds that an older owner may take to finish its transaction
_MANY: Final = 5000  # rows whose packing would hold up the event loop
# COPY makes a slot for each of its first 1,000 rows and looks for each among all before it (the
# resource owner keeps them under one hash): 1.1 ms for 1,000, as much as twenty more COPY cost.
_PIECE: Final = 200  # rows of a COPY, of few
_WHOLE: Final = 2000  # rows of a stage that are many: one COPY
_NOT_OURS: Final = "TS001"  # what `move_marks` raises


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition that is ours: its epoch, its stored mark (-1 at first), a snapshot or none.

    `activations` are all that were planned of it, also behind the mark: rows by them may be out.
    """

    partition: int
    epoch: int
    mark: int
    snapshot_offset: int
    snapshot: bytes | None
    activations: Sequence[Activation] = ()


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """What one batch made of one partition: all of it becomes visible together, or nothing."""

    partition: int
    epoch: int
    mark: int  # offset of the last message in it
    rows: Mapping[str, Rows]
    rejects: Sequence[tuple[Reject, bytes]]
    symbols: Sequence[str]  # seen for the first time
    quality: Sequence[tuple[str, str, int]]  # symbol, reason, absolute count
    activation: Activation | None = None  # that begins with it


class LiveStore:
    """The Postgres side of one service's workers."""

    def __init__(self, pool: Pool, service: str, fingerprint: str) -> None:
        self._pool = pool
        self._service = service
        self._fingerprint = fingerprint
        self._days: set[date] = set()

    async def claim(self, partition: int) -> Claim:
        """Make a partition ours: raise its epoch, so that an older owner can write no more.

        Raises:
            StateError: its rows were made with other settings.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            row = await self._raised(connection, partition)
            if row is None or row["fingerprint"] != self._fingerprint:
                raise StateError(
                    f"partition {partition} of service {self._service!r} was computed with other "
                    "settings or another version; use those, another worker.group, or new data"
                )
            found = await connection.fetchrow(
                statement("latest_snapshot"), self._service, partition, row["mark"]
            )
            planned = await activations(connection, self._service, partition)
        data = None if found is None else decompress(found["data"])
        offset = -1 if found is None else found["offset"]
        return Claim(partition, row["epoch"], row["mark"], offset, data, planned)

    async def _raised(self, connection: Connection, partition: int) -> asyncpg.Record | None:
        """The progress row with its epoch raised, whoever holds on to it.

        An owner that was paused in the middle of its transaction keeps the row locked for as long
        as it sleeps. It has lost the partition, so its session is ended: what it had not committed
        is ours to do.
        """
        pid = connection.get_server_pid()
        asked = asyncio.ensure_future(
            connection.fetchrow(statement("claim"), self._service, partition, self._fingerprint)
        )
        try:
            while not (await asyncio.wait([asked], timeout=_GRACE))[0]:
                ended = await self._pool.fetchval(statement("end_blockers"), pid)
                LOG.warning("older_owner_ended", partition=partition, sessions=ended)
            return await asked
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def holds(self, partition: int, epoch: int) -> bool:
        """Whether this epoch of a partition is still the newest."""
        found = await self._pool.fetchval(statement("epoch"), self._service, partition)
        return bool(found == epoch)

    async def plan(self, batches: Sequence[PartitionBatch]) -> None:
        """Store the activations that batches begin with, all or none; twice the same is once.

        Raises:
            FencedError: a partition has a newer owner.
        """
        planned = [
            Planned(batch.partition, batch.epoch, batch.activation)
            for batch in batches
            if batch.activation is not None
        ]
        async with self._pool.acquire() as connection, connection.transaction():
            await plan(connection, self._service, planned)

    async def commit(self, batches: Sequence[PartitionBatch]) -> None:
        """Store batches in one transaction; one whose mark is stored already is skipped.

        Those of one partition follow each other in the order of their marks.

        Raises:
            FencedError: a partition has a newer owner.
        """
        day = today()
        await self._ensure_days(day)
        fresh = list(batches)
        while fresh:
            packed = await _packed(fresh, day)
            steps = [self._move(fresh), *_copies(packed, day), *_facts(fresh, day)]
            try:
                await self._pool.transact(steps)
            except asyncpg.PostgresError as error:
                if error.sqlstate != _NOT_OURS:
                    raise
                fresh = await self._fresh(fresh)
            else:
                return

    async def save_snapshot(self, partition: int, epoch: int, offset: int, data: bytes) -> None:
        """Keep a compressed copy of a partition's state, unless a newer owner is there."""
        async with self._pool.acquire() as connection, connection.transaction():
            name = self._service
            await connection.execute(
                statement("save_snapshot"), name, partition, offset, epoch, data
            )
            await connection.execute(statement("drop_snapshots"), name, partition)

    async def forget_snapshots(self, partition: int) -> None:
        """Drop what is kept of a partition's state: it is of no use."""
        await self._pool.execute(statement("forget_snapshots"), self._service, partition)

    async def latest(self, stage: str, symbols: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """The newest stored row of each symbol, by symbol."""
        return await reads.latest(self._pool, stage, symbols)

    async def _ensure_days(self, day: date) -> None:
        if day not in self._days:
            async with self._pool.acquire() as connection, connection.transaction():
                await ensure_days(connection, (day, day + timedelta(days=1)))
            self._days.add(day)

    def _move(self, batches: Sequence[PartitionBatch]) -> Step:
        """First: it locks the partitions, and fails if they are not ours or have these rows."""
        first: dict[int, PartitionBatch] = {}
        for batch in batches:
            first.setdefault(batch.partition, batch)
        highs = {batch.partition: batch.mark for batch in batches}
        return Step(
            statement("move_marks"),
            (
                parameters.text(self._service),
                parameters.ints([*first]),
                parameters.bigints([batch.epoch for batch in first.values()]),
                parameters.bigints([batch.mark for batch in first.values()]),
                parameters.bigints([highs[partition] for partition in first]),
            ),
        )

    async def _fresh(self, batches: Sequence[PartitionBatch]) -> list[PartitionBatch]:
        """Those above the stored marks: an answer was lost, and its transaction committed."""
        rows = await self._pool.fetch(statement("progress"), self._service)
        stored = {row["partition"]: row for row in rows}
        for batch in batches:
            row = stored.get(batch.partition)
            if row is None or row["epoch"] != batch.epoch:
                raise FencedError(f"partition {batch.partition} has a newer owner")
        return [batch for batch in batches if batch.mark > stored[batch.partition]["mark"]]


def _copies(packed: Mapping[str, Sequence[Sequence[bytes]]], day: date) -> Iterator[Step]:
    for stage, bodies in packed.items():
        sql = _copy_statement(leaf(stage, day), stage)
        for body in bodies:
            yield Step(sql, copied=[HEADER, *body, TRAILER])


@cache
def _copy_statement(table: str, stage: str) -> str:
    """COPY with names from closed lists."""
    columns = ", ".join(f'"{name}"' for name in copy_columns(stage))
    return statement("copy").replace("{leaf}", table).replace("{columns}", columns)


def _facts(batches: Sequence[PartitionBatch], day: date) -> Iterator[Step]:
    rejected = [(batch.partition, *one) for batch in batches for one in batch.rejects]
    if rejected:
        partitions, rejects, values = zip(*rejected, strict=True)
        yield Step(
            statement("add_rejected"),
            (
                parameters.ints(partitions),
                parameters.bigints([reject.offset for reject in rejects]),
                parameters.ints([reject.index for reject in rejects]),
                parameters.texts([_storable(reject.symbol) for reject in rejects]),
                parameters.texts([reject.reason.value for reject in rejects]),
                parameters.texts([_storable(reject.detail) for reject in rejects]),
                parameters.byteas(values),
                parameters.day(day),
            ),
        )
    # Sorted: of two transactions that meet, one waits for the other, never both.
    seen = sorted((symbol, batch.partition) for batch in batches for symbol in batch.symbols)
    if seen:
        names, partitions = zip(*seen, strict=True)
        yield Step(statement("add_symbols"), (parameters.texts(names), parameters.ints(partitions)))
    counts = {
        (batch.partition, symbol, reason): count  # absolute: the last one holds
        for batch in batches
        for symbol, reason, count in batch.quality
    }
    if counts:
        facts = [(*place, count) for place, count in sorted(counts.items())]
        partitions, names, reasons, numbers = zip(*facts, strict=True)
        yield Step(
            statement("set_quality"),
            (
                parameters.ints(partitions),
                parameters.texts(names),
                parameters.texts(reasons),
                parameters.bigints(numbers),
            ),
        )


def _pack(batches: Sequence[PartitionBatch], day: date) -> dict[str, list[list[bytes]]]:
    """What is to be copied, by stage: a body for each COPY, in parts."""
    found: dict[str, list[Rows]] = defaultdict(list)
    for batch in batches:
        for stage, rows in batch.rows.items():
            if len(rows):
                found[stage].append(rows)
    packed: dict[str, list[list[bytes]]] = {}
    for stage, parts in found.items():
        count = sum(map(len, parts))
        piece = _PIECE if count < _WHOLE else count
        pieces = [one for part in parts for one in copy_pieces(part, day, piece)]
        packed[stage] = [[one] for one in pieces] if count < _WHOLE else [pieces]
    return packed


async def _packed(batches: Sequence[PartitionBatch], day: date) -> dict[str, list[list[bytes]]]:
    rows = sum(len(rows) for batch in batches for rows in batch.rows.values())
    return _pack(batches, day) if rows < _MANY else await asyncio.to_thread(_pack, batches, day)


def _storable(text: str) -> str:
    """A text of a stranger as Postgres takes it: no NUL; the value keeps what really came."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def compress(state: bytes) -> bytes:
    """A snapshot for `save_snapshot`; runs without the GIL."""
    return bytes(cramjam.zstd.compress(state, 1))


def decompress(data: bytes) -> bytes:
    """The snapshot that was compressed; a damaged one as it is, so that who restores it says so."""
    try:
        return bytes(cramjam.zstd.decompress(data))
    except cramjam.DecompressionError:
        return data
