"""kill -9 of the worker at random moments, ten times at work: nothing lost, nothing twice."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.bus.publisher import Publisher
from pipeline.cli.stack import prepare
from pipeline.clock import monotonic
from pipeline.replay.parity import compare
from pipeline.servers import Addresses, start_servers
from pipeline.settings import load_settings
from pipeline.sources.feed import publish_file
from schemas.blocks import STAGES
from tests.acceptance import evidence
from tests.acceptance.commands import Worker
from tests.acceptance.feeding import SYMBOLS, UntilTold, three_symbols

TICKS = 120_000
SEED = 20130901
KILLS = 10
EARLY = 3  # further kills, of workers that are not at work again yet
RATE = 1000.0  # the feed outlasts all kills also where a restart takes five seconds

pytestmark = pytest.mark.timeout(280)


@dataclass(slots=True)
class Told:
    """What the run saw on its way."""

    recoveries: list[float] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    backwards: list[str] = field(default_factory=list)
    looks: int = 0


async def _watch_cache(addresses: Addresses, told: Told, stop: asyncio.Event) -> None:
    """Look at every latest value again and again: its identity may never decrease."""
    seen: dict[bytes | str, str] = {}
    async with evidence.redis_of(addresses) as client:
        while not stop.is_set():
            found = [key async for key in client.scan_iter(count=1000)]
            keys = sorted(key for key in found if not key.startswith(b"known:"))
            for key, value in zip(keys, await client.mget(keys) if keys else [], strict=True):
                at = evidence.identity_of(value)
                if at < seen.get(key, ""):
                    told.backwards.append(f"{key!r}: {at!r} after {seen[key]!r}")
                seen[key] = at
            told.looks += 1
            await asyncio.sleep(0.01)


async def _check_commits(addresses: Addresses, told: Told) -> dict[int, int]:
    """Kafka's committed offset, the next one to read, is not past the stored mark; the marks."""
    read_next = await evidence.committed(addresses)
    marks = await evidence.marks(addresses)
    for partition, offset in read_next.items():
        if offset > marks.get(partition, -1) + 1:
            told.ahead.append(f"partition {partition}: {offset} committed, {marks} stored")
    return marks


async def _kill_and_see(worker: Worker, addresses: Addresses, told: Told, chance: Any) -> None:
    """Ten kills at work, three of them followed by another one before it is at work again."""
    early = set(chance.sample(range(KILLS), EARLY))
    for number in range(KILLS):
        await asyncio.sleep(chance.uniform(0.0, 1.5))
        await asyncio.to_thread(worker.kill)
        marks = await _check_commits(addresses, told)
        worker.start()
        if number in early:
            await asyncio.sleep(chance.uniform(0.0, 2.5))
            await asyncio.to_thread(worker.kill)
            marks = await _check_commits(addresses, told)
            worker.start()
        begin = monotonic()
        while await evidence.marks(addresses) == marks:
            assert monotonic() - begin < 60, (
                f"never at work again: {worker.log.read_text()[-3000:]}"
            )
            await asyncio.sleep(0.02)
        told.recoveries.append(monotonic() - begin)


async def _any_mark(addresses: Addresses) -> bool:
    return bool(await evidence.marks(addresses))


async def _run(worker: Worker, addresses: Addresses, ticks: Path) -> Told:
    told, stop, pace = Told(), asyncio.Event(), UntilTold(rate=RATE)
    async with Publisher(addresses.kafka) as publisher, asyncio.TaskGroup() as group:
        watching = group.create_task(_watch_cache(addresses, told, stop))
        feeding = group.create_task(publish_file(ticks, publisher, pace=pace, frame=10))
        await evidence.until(lambda: _any_mark(addresses), 60)
        await _kill_and_see(worker, addresses, told, random.Random(SEED))  # noqa: S311 -- moments of kills
        pace.hurry.append(True)
        assert await feeding == TICKS
        await evidence.until(lambda: evidence.drained(addresses), 60)
        stop.set()
        await watching
    return told


@dataclass(frozen=True, slots=True)
class Survived:
    """The stores after the run."""

    addresses: Addresses
    told: Told
    stopped: int
    log: str


@pytest.fixture(scope="module")
def survived(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survived]:
    """Three symbols of the sample published while the worker is killed and restarted."""
    home = tmp_path_factory.mktemp("kill")
    ticks = three_symbols(sample, home / "ticks.csv")
    with start_servers(home / "data") as fleet:
        asyncio.run(prepare(fleet.addresses, load_settings()))
        with Worker(fleet.addresses, home / "worker.log") as worker:
            told = asyncio.run(_run(worker, fleet.addresses, ticks))
            stopped = worker.stop()
        yield Survived(fleet.addresses, told, stopped, worker.log.read_text())


def test_it_is_at_work_again_soon(survived: Survived, capsys: pytest.CaptureFixture[str]) -> None:
    """After each restart something new is committed; `make bench` says how soon when quiet."""
    recoveries = survived.told.recoveries
    with capsys.disabled():
        figures = " ".join(f"{seconds:.1f}" for seconds in recoveries)
        print(f"\nkill -9, seed {SEED}: at work again after {figures} s")  # noqa: T201 -- the figures are asked for
    assert len(recoveries) == KILLS


def test_nothing_is_lost_and_nothing_twice(survived: Survived) -> None:
    """Each of the 120,000 ticks is stored once, each row of each table has its own identity."""
    tables = asyncio.run(evidence.counts(survived.addresses))
    assert tables["ticks"] == (TICKS, TICKS)
    for stage in STAGES:
        rows, own = tables[stage]
        assert rows == own > 0, stage
    assert asyncio.run(_rejected(survived.addresses)) == 0


async def _rejected(addresses: Addresses) -> int:
    async with evidence.connection_to(addresses) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM rejected"))


def test_every_row_equals_a_clean_replay(survived: Survived) -> None:
    """Every stage of every partition, bit by bit."""

    async def look() -> None:
        ends = await evidence.ends_of(survived.addresses, "prices")
        ranges = {partition: (0, end) for partition, end in ends.items()}
        async with evidence.pool_of(survived.addresses) as pool:
            report = await compare(survived.addresses.kafka, pool, load_settings(), ranges)
        assert report.difference is None
        tables = await evidence.counts(survived.addresses)
        assert report.rows == {stage: rows for stage, (rows, _) in tables.items()}
        assert len([end for end in ends.values() if end]) > 1, "one partition proves too little"

    asyncio.run(look())


def test_topics_hold_the_same_rows(survived: Survived) -> None:
    """Repeats dropped by identity, each topic carries the rows of its table; repeats are equal."""

    async def look(stage: str) -> None:
        stored = await evidence.stored_rows(survived.addresses, stage)
        seen: dict[int, tuple[int, int, int]] = {}
        taken = []
        for row in await evidence.published_rows(survived.addresses, stage):
            identity = (row["partition"], row["offset"], row["index"])
            if stage == "signals":
                assert row == evidence.document_of(stored[identity])
            else:
                assert evidence.same_bits(row, stored[identity]), f"{stage}: {row}"
            # What a reader does: one mark per source partition.
            if identity > seen.get(identity[0], (-1, -1, -1)):
                seen[identity[0]] = identity
                taken.append(identity)
        assert sorted(taken) == sorted(stored), stage

    for stage in STAGES[1:]:
        asyncio.run(look(stage))


def test_kafka_is_never_ahead_of_postgres(survived: Survived) -> None:
    """At each death and in the end, the committed offset is not past the stored mark."""
    assert survived.stopped == 0, survived.log[-3000:]
    asyncio.run(_check_commits(survived.addresses, survived.told))
    assert not survived.told.ahead
    assert set(asyncio.run(evidence.committed(survived.addresses)))


def test_the_cache_never_went_back(survived: Survived) -> None:
    """No latest value was ever replaced by an older one, and in the end each is the stored one."""
    assert survived.told.looks > 100
    assert not survived.told.backwards

    async def look(key: str, stage: str, symbol: str) -> None:
        async with evidence.redis_of(survived.addresses) as client:
            document = evidence.decoded(await client.get(f"{key}:{symbol}"))
        row = await evidence.latest_stored(survived.addresses, stage, symbol)
        assert document == evidence.document_of(row)

    for stage, key in (("ticks", "price"), ("features", "features"), ("signals", "signal")):
        for symbol in SYMBOLS:
            asyncio.run(look(key, stage, symbol))
