"""How fast the bundled sample goes through: as a replay, and live with all sinks."""

import asyncio
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.stack import prepare
from pipeline.clock import monotonic
from pipeline.replay.engine import replay_file
from pipeline.servers import Fleet, start_servers
from pipeline.settings import load_settings
from tests.acceptance import evidence
from tests.acceptance.commands import Worker, naming, tickstream

TICKS = 120_000
RUNS = 5

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Fleet]:
    """Servers of its own, with topics and tables."""
    with start_servers(tmp_path / "data") as fleet:
        asyncio.run(prepare(fleet.addresses, load_settings()))
        yield fleet


def _replay_seconds(sample: Path, out: Path) -> list[float]:
    settings = load_settings()
    found = []
    for number in range(RUNS + 1):
        begin = monotonic()
        manifest = replay_file(sample, out / str(number), settings)
        found.append(monotonic() - begin)
        assert manifest["rows"]["ticks"] == TICKS
    return found[1:]  # the first one compiles


async def _live_seconds(fleet: Fleet) -> float:
    """From the first commit to the last one."""
    async with evidence.connection_to(fleet.addresses) as connection:
        seen: list[int] = []

        async def beyond(ticks: int) -> bool:
            seen.append(int(await connection.fetchval("SELECT count(*) FROM ticks")))
            return seen[-1] > ticks

        await evidence.until(lambda: beyond(0), 60, 0.01)
        begin, first = monotonic(), seen[-1]
        await evidence.until(lambda: beyond(TICKS - 1), 120, 0.01)
        seconds = monotonic() - begin
    return seconds * TICKS / (TICKS - first)


@pytest.mark.parametrize("frame", [100, 1000])
def test_rates(frame: int, sample: Path, running: Fleet, tmp_path: Path) -> None:
    """Prints ticks a second of a warm replay (median of five) and of a worker behind its topic."""
    replay = statistics.median(_replay_seconds(sample, tmp_path / "out"))
    values = naming(running.addresses)
    done = tickstream("publish", sample, "--frame", frame, values=values)
    assert done.returncode == 0, done.stderr
    with Worker(running.addresses, tmp_path / "worker.log") as worker:
        live = asyncio.run(_live_seconds(running))
        assert worker.stop() == 0
    lines = [
        f"{'ES sample, 120,000 ticks':40} {'seconds':>8} {'ticks/s':>10}",
        f"{'replay, file to Parquet, all stages':40} {replay:8.3f} {TICKS / replay:10,.0f}",
        f"{f'live, {frame} ticks a message, all sinks':40} {live:8.3f} {TICKS / live:10,.0f}",
    ]
    print("\n" + "\n".join(lines))  # noqa: T201 -- a benchmark is there to be read
