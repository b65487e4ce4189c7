"""Parity: replay a stretch of the topic and hold every stored live row against it, bit by bit."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.bus.decoding import new_decoder
from pipeline.bus.ranges import Range, read_ranges
from pipeline.settings import Settings
from pipeline.stages.chain import Chain
from pipeline.store import reads
from pipeline.store.pool import Pool
from schemas.blocks import COLUMNS, STAGES, Array, Rows, spoken
from schemas.topics import PRICES


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where live and replay part."""

    stage: str
    partition: int
    offset: int
    index: int
    column: str
    live: Any
    replayed: Any

    def __str__(self) -> str:
        where = f"partition {self.partition} offset {self.offset} index {self.index}"
        return (
            f"{self.stage}, row at {where}, column {self.column}: "
            f"live {_spoken(self.live)}, replayed {_spoken(self.replayed)}"
        )


def _spoken(value: Any) -> str:
    return f"{value!r} ({value.hex()})" if isinstance(value, float) else repr(value)


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Rows compared by stage, and the first difference if there is one."""

    rows: Mapping[str, int]
    difference: Difference | None


def _bits(rows: Rows, name: str, kind: str) -> Array:
    values = rows[name]
    if kind == "float64":
        return np.ascontiguousarray(values).view(np.int64)
    if kind == "symbol":
        return np.array([*rows.symbols, ""])[values]
    return values


def _canonical(rows: Rows) -> Rows:
    """One NaN for every null: Postgres and Arrow keep no payload of a NaN."""
    columns = {
        name: np.where(values != values, np.nan, values) if values.dtype == np.float64 else values  # noqa: PLR0124 -- NaN is null
        for name, values in rows.columns.items()
    }
    return Rows(rows.stage, columns, rows.symbols)


def first_difference(live: Rows, replayed: Rows) -> Difference | None:
    """The first row, in order of identity, and its first column in which two runs differ."""
    live, replayed = _canonical(live), _canonical(replayed)
    n = min(len(live), len(replayed))
    first, where = n, ""
    for column in COLUMNS[live.stage]:
        ours = _bits(live, column.name, column.kind)[:n]
        theirs = _bits(replayed, column.name, column.kind)[:n]
        wrong = np.flatnonzero(ours != theirs)
        if wrong.size and wrong[0] < first:
            first, where = int(wrong[0]), column.name
    if where:
        column = next(c for c in COLUMNS[live.stage] if c.name == where)
        values = (spoken(live, column, first), spoken(replayed, column, first))
        return _difference(replayed, first, where, *values)
    if len(live) != len(replayed):
        longer = live if len(live) > len(replayed) else replayed
        missing = ("there", None) if longer is live else (None, "there")
        return _difference(longer, n, "(whole row)", *missing)
    return None


def _difference(rows: Rows, at: int, column: str, live: Any, replayed: Any) -> Difference:
    place = [int(rows[name][at]) for name in ("partition", "offset", "index")]
    return Difference(rows.stage, place[0], place[1], place[2], column, live, replayed)


async def compare(
    bootstrap: str,
    pool: Pool,
    settings: Settings,
    ranges: Mapping[int, Range],
    progress: Callable[[int], None] = lambda _: None,
) -> ParityReport:
    """Replay each partition from its first message and compare within its range of offsets.

    Ends at the first difference.
    """
    rows = dict.fromkeys(STAGES, 0)
    for partition, (low, high) in sorted(ranges.items()):
        async for start, end, replayed in _replayed(bootstrap, settings, partition, high):
            if end <= low:
                continue
            async with pool.acquire() as connection:
                for stage in STAGES:
                    live = await reads.offset_range(
                        connection, stage, partition, max(start, low), end
                    )
                    ours = replayed[stage]
                    found = first_difference(live, ours.take(ours["offset"] >= low))
                    rows[stage] += len(live)
                    if found is not None:
                        return ParityReport(rows, found)
            progress(rows["ticks"])
    return ParityReport(rows, None)


async def _replayed(
    bootstrap: str, settings: Settings, partition: int, high: int
) -> AsyncIterator[tuple[int, int, Mapping[str, Rows]]]:
    chain = Chain(settings.chain, partition)
    decoder = new_decoder(partition)
    start = 0
    async for _, messages in read_ranges(bootstrap, PRICES, {partition: (0, high)}):
        block = chain.step(*decoder.decode(messages))
        end = messages[-1].offset + 1
        yield start, end, block.rows
        start = end
    if start < high:  # the topic ends early: whatever is stored behind it must show
        nothing, _ = decoder.decode(())
        yield start, high, chain.step(nothing).rows
