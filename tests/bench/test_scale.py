"""One worker against two over the same published load of 8 partitions."""

from pathlib import Path

import pytest

from tests.bench.live.feed import Framing
from tests.bench.live.knobs import knob
from tests.bench.live.machine import machine
from tests.bench.live.rate import Sustained, fill, load_of, median, run
from tests.bench.live.telling import table, tell

PARTITIONS = 8
TARGET = 300_000

pytestmark = pytest.mark.timeout(3600)


def test_two_workers(repository: Path, tmp_path: Path) -> None:
    """Each tick once, whoever works on it; prints the rates and the CPU a tick of both."""
    runs = int(knob("RUNS"))
    load = load_of(Framing(100), "time:1s", TARGET, knob("SECONDS"))
    found: dict[int, list[Sustained]] = {1: [], 2: []}
    claims: dict[int, list[str]] = {1: [], 2: []}
    with machine(tmp_path, PARTITIONS) as ground:
        fill(ground, load)
        for turn in range(runs):
            for count, values in found.items():
                group = f"scale{turn}x{count}"
                measured, claimed = run(ground, group, load, count, distinct=True)
                values.append(measured)
                claims[count].append("+".join(map(str, claimed)))
    middles = {count: median(values) for count, values in found.items()}
    rows = [
        (
            str(count),
            f"{middle.rate:,.0f}",
            f"{middle.seconds:.1f}",
            f"{middle.worker_micros:.2f}",
            f"{middle.servers_micros:.2f}",
            f"{middle.cores:.2f}",
            " ".join(claims[count]),
        )
        for count, middle in middles.items()
    ]
    header = (
        "workers",
        "ticks/s",
        "seconds",
        "worker us/tick",
        "servers us/tick",
        "cores busy",
        "claims",
    )
    ratio = middles[2].rate / middles[1].rate
    cpu = middles[2].worker_micros / middles[1].worker_micros
    lines = [
        f"{load.ticks:,} ticks, JSON arrays of 100, time:1s, {PARTITIONS} partitions, each once",
        *table(header, rows),
        f"two workers: {ratio:.2f} x the rate of one, {cpu:.2f} x its CPU a tick; median of {runs}",
    ]
    tell(repository, "scale", lines)
