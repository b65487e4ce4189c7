"""The sustained rate of workers behind a topic that was filled before they started."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.clock import monotonic
from tests.acceptance import evidence
from tests.bench.live.feed import Framing, publish
from tests.bench.live.machine import Crew, Machine, busy_seconds, crew

_HEAD: Final = 0.1  # of the load: start-up is in it, the clock starts behind it
_LOOK: Final = 0.03
_PATIENCE: Final = 900.0
MARKS: Final = "SELECT coalesce(sum(mark + 1), 0) FROM progress WHERE service = $1 AND mark >= 0"


@dataclass(frozen=True, slots=True)
class Load:
    """What is published before a worker starts, and by which clock it is worked on."""

    framing: Framing
    clock: str
    messages: int

    @property
    def ticks(self) -> int:
        """Ticks of all messages."""
        return self.messages * self.framing.ticks


def load_of(framing: Framing, clock: str, rate: float, seconds: float) -> Load:
    """As much as lasts so many measured seconds at this rate."""
    return Load(framing, clock, int(rate * seconds / (1 - _HEAD)) // framing.ticks + 1)


@dataclass(frozen=True, slots=True)
class Sustained:
    """What one run showed between a tenth and all of its load."""

    ticks: int
    seconds: float
    worker_cpu: float
    servers_cpu: float
    busy_cpu: float  # of the whole machine, whoever it was

    @property
    def cores(self) -> float:
        """Cores at work on average; what is missing to all of them was spent waiting."""
        return self.busy_cpu / self.seconds

    @property
    def rate(self) -> float:
        """Ticks a second."""
        return self.ticks / self.seconds

    @property
    def worker_micros(self) -> float:
        """CPU microseconds of the workers per tick."""
        return self.worker_cpu / self.ticks * 1e6

    @property
    def servers_micros(self) -> float:
        """CPU microseconds of broker, database and cache per tick."""
        return self.servers_cpu / self.ticks * 1e6


def median(runs: Sequence[Sustained]) -> Sustained:
    """The run whose rate is the median."""
    middle = statistics.median_low(one.rate for one in runs)
    return next(one for one in runs if one.rate == middle)


def fill(ground: Machine, load: Load) -> None:
    """Publish all of a load."""
    asyncio.run(publish(ground.kafka, load.framing, ground.partitions, load.messages))


def run(
    ground: Machine, group: str, load: Load, count: int = 1, *, distinct: bool = False
) -> tuple[Sustained, list[int]]:
    """One run of so many fresh workers, nothing lost or twice; and what each of them claimed.

    With `distinct`, the identities of the stored ticks are compared too, not only their number.
    """
    with crew(ground, group, load.clock, count) as found:
        measured = asyncio.run(_sustained(ground, found, load))
        asyncio.run(assert_stored(found, load.ticks))
        if distinct:
            asyncio.run(assert_distinct(found, load.ticks))
        claims = found.claims()
        for worker in found.workers:
            assert worker.stop() == 0
    return measured, claims


async def _sustained(ground: Machine, found: Crew, load: Load) -> Sustained:
    async with evidence.connection_to(found.addresses) as connection:
        await _all_at_work(found)
        begin = await _beyond(connection, ground, found, int(load.messages * _HEAD))
        end = await _beyond(connection, ground, found, load.messages)
    stored, *spent = (late - early for early, late in zip(begin, end, strict=True))
    assert stored > 0, "all was stored before the last worker had started: publish more"
    return Sustained(round(stored) * load.framing.ticks, *spent)


async def _all_at_work(found: Crew) -> None:
    """The start of a second worker, and the rebalance that it brings, are not in the rate."""
    async with asyncio.timeout(_PATIENCE):
        while not all(found.claims()):
            _ = found.pids  # a dead worker ends the wait
            await asyncio.sleep(_LOOK)


async def _beyond(
    connection: Any, ground: Machine, found: Crew, messages: int
) -> tuple[float, ...]:
    """Messages stored, time and CPU seconds as soon as so many are stored."""
    async with asyncio.timeout(_PATIENCE):
        while (stored := int(await connection.fetchval(MARKS, found.group))) < messages:
            _ = found.pids  # a dead worker ends the wait
            await asyncio.sleep(_LOOK)
    return stored, monotonic(), found.cpu(), ground.cpu(), busy_seconds()


async def assert_stored(found: Crew, ticks: int) -> None:
    """Each published tick is in the table, none is rejected or in quarantine."""
    async with evidence.connection_to(found.addresses) as connection:
        row = await connection.fetchrow(
            "SELECT count(*) AS stored, count(*) FILTER (WHERE flag <> 'accepted') AS odd"
            " FROM ticks"
        )
        rejected = await connection.fetchval("SELECT count(*) FROM rejected")
    assert row is not None
    assert (row["stored"], row["odd"], rejected) == (ticks, 0, 0)


async def assert_distinct(found: Crew, ticks: int) -> None:
    """So many different ticks are in the table; takes a while."""
    async with evidence.connection_to(found.addresses) as connection:
        await connection.execute("SET work_mem = '256MB'")
        own = await connection.fetchval(
            'SELECT count(*) FROM (SELECT DISTINCT "partition", "offset", "index" FROM ticks) own'
        )
    assert own == ticks
