"""Ten minutes at half the maximal rate: the lag stays bounded and the worker's memory flat.

Needs about 25 GB of disk for the topic and the tables at 150,000 ticks/s. `BENCH_SOAK_SECONDS`
shortens it, `BENCH_SOAK_RATE` names the rate instead of half of what is measured first.
"""

import asyncio
import csv
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from pipeline.clock import monotonic
from schemas.topics import PRICES
from tests.acceptance import evidence
from tests.acceptance.commands import environment, wait_until
from tests.bench.live.feed import Framing
from tests.bench.live.knobs import knob
from tests.bench.live.machine import Crew, Machine, crew, machine
from tests.bench.live.plot import plot
from tests.bench.live.rate import MARKS, fill, load_of, run
from tests.bench.live.sustain import FRAMING
from tests.bench.live.telling import results, tell

PARTITIONS = 4
CLOCK = "time:1s"
_EXPECTED = 300_000  # ticks a second; decides how much is published to find the maximum
_MINUTE = 60.0
_LAG = 3.0  # seconds of load that may wait in the end
_GROWTH = 0.05
_START = 60.0
_DRAIN = 120.0

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one second."""

    second: float
    lag: float  # ticks
    rss: float  # MiB


def _maximum(home: Path) -> float:
    load = load_of(Framing(FRAMING.ticks), CLOCK, _EXPECTED, knob("SECONDS"))
    with machine(home, PARTITIONS) as ground:
        fill(ground, load)
        return run(ground, "maximum", load)[0].rate


async def _samples(found: Crew, feed: "subprocess.Popen[bytes]") -> list[Sample]:
    """One a second while the feed runs."""
    begin, samples = monotonic(), []
    async with (
        AIOKafkaConsumer(
            bootstrap_servers=found.addresses.kafka, enable_auto_commit=False
        ) as consumer,
        evidence.connection_to(found.addresses) as connection,
    ):
        while feed.poll() is None:
            stored = int(await connection.fetchval(MARKS, found.group))
            ends = sum((await evidence.end_offsets(consumer, PRICES)).values())
            lag = float((ends - stored) * FRAMING.ticks)
            samples.append(Sample(monotonic() - begin, lag, found.rss() / 2**20))
            await asyncio.sleep(max(0.0, begin + len(samples) - monotonic()))
    return samples


async def _stored(found: Crew) -> tuple[int, int]:
    """Ticks in the table and in the topic."""
    ends = await evidence.ends_of(found.addresses, PRICES)
    async with evidence.connection_to(found.addresses) as connection:
        stored = int(await connection.fetchval("SELECT count(*) FROM ticks"))
    return stored, sum(ends.values()) * FRAMING.ticks


async def _drained(found: Crew) -> None:
    ends = sum((await evidence.ends_of(found.addresses, PRICES)).values())
    async with evidence.connection_to(found.addresses) as connection:

        async def all_stored() -> bool:
            return int(await connection.fetchval(MARKS, found.group)) == ends

        await evidence.until(all_stored, _DRAIN)


def _soaked(repository: Path, ground: Machine, rate: float) -> list[Sample]:
    seconds = knob("SOAK_SECONDS")
    with crew(ground, "soak", CLOCK) as found:
        log = found.workers[0].log
        wait_until(lambda: "worker_started" in log.read_text(), _START, "the worker's start")
        feed = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bench.live.sustain", ground.kafka),
                *(str(PARTITIONS), str(rate), str(seconds)),
            ],
            cwd=repository,
            env=environment(),
        )
        try:
            samples = asyncio.run(_samples(found, feed))
        finally:
            feed.kill()
        assert feed.wait() == 0, "the feed failed"
        asyncio.run(_drained(found))
        stored, published = asyncio.run(_stored(found))
        assert stored == published
        assert found.workers[0].stop() == 0
    return samples


def _around(samples: Sequence[Sample], second: float, width: float) -> list[Sample]:
    return [one for one in samples if second <= one.second < second + width]


def test_soak(repository: Path, tmp_path: Path) -> None:
    """Bounded lag, memory that grows by less than 5 % after the first minute, and a plot."""
    rate = knob("SOAK_RATE") or _maximum(tmp_path / "maximum") / 2
    with machine(tmp_path / "soak", PARTITIONS) as ground:
        samples = _soaked(repository, ground, rate)
    last = samples[-1].second
    early = min(_MINUTE, last / 2)
    width = min(10.0, last / 4)
    before = statistics.fmean(one.rss for one in _around(samples, early, width))
    after = statistics.fmean(one.rss for one in _around(samples, last - width, width + 1))
    end_lag = statistics.fmean(one.lag for one in _around(samples, last - width, width + 1))
    growth = after / before - 1.0
    directory = results(repository)
    with (directory / "soak.csv").open("w", newline="") as sink:
        csv.writer(sink).writerows([("second", "lag", "rss_mib"), *map(astuple, samples)])
    drawn = plot(
        directory / "soak",
        [one.second for one in samples],
        {
            f"lag, ticks ({rate:,.0f} ticks/s)": [one.lag for one in samples],
            "memory of the worker, MiB": [one.rss for one in samples],
        },
    )
    worst = max(one.lag for one in samples)
    lines = [
        f"{last:.0f} s at {rate:,.0f} ticks/s, JSON arrays of {FRAMING.ticks}, {CLOCK}",
        f"lag: worst {worst / rate:.2f} s of load, at the end {end_lag / rate:.2f} s",
        f"memory: {before:.0f} MiB after {early:.0f} s, {after:.0f} MiB at the end: {growth:+.1%}",
        f"highest memory: {max(one.rss for one in samples):.0f} MiB",
        f"plot: {drawn}",
    ]
    tell(repository, "soak", lines)
    assert end_lag < _LAG * rate
    assert growth < _GROWTH
