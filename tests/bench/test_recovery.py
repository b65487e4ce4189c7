"""kill -9 of a worker that holds the state of 10,000 symbols: seconds to the first new row."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.cli.stack import prepare
from pipeline.clock import monotonic
from pipeline.servers import Addresses, start_servers
from pipeline.settings import load_settings
from tests.acceptance import evidence
from tests.acceptance.commands import Worker

SYMBOLS = 10_000
RATE = 5000  # ticks a second while the worker is killed
SHARE = 100  # ticks of a message
KILLS = 5
LIMIT = 5.0
_START = 1_600_000_000 * 10**9

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


class Feed:
    """Ticks of all symbols in turn, each a small step from its last price."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._walk = np.random.default_rng(1)
        self._sent = 0

    async def send(self, count: int) -> None:
        """Publish `count` ticks, a message a hundred."""
        records = [self._message() for _ in range(count // SHARE)]
        await self._publisher.deliver(records)

    def _message(self) -> Outgoing:
        first = self._sent
        self._sent += SHARE
        steps = self._walk.normal(0.0, 1e-4, SHARE).tolist()
        ticks = [
            {
                # All symbols of a message belong to one partition.
                "symbol": f"S{4 * ((first + i) // 4 % (SYMBOLS // 4)) + first // SHARE % 4:05d}",
                "ts": _START + (first + i) * 200_000,
                "price": round(100.0 * (1.0 + step), 4),
                "size": 1.0,
            }
            for i, step in enumerate(steps)
        ]
        return Outgoing("prices", json.dumps(ticks).encode(), partition=first // SHARE % 4)


async def _feed(feed: Feed, stop: asyncio.Event) -> None:
    begin, sent = monotonic(), 0
    while not stop.is_set():
        await feed.send(RATE // 10)
        sent += RATE // 10
        await asyncio.sleep(max(0.0, begin + sent / RATE - monotonic()))


async def _kills(worker: Worker, addresses: Addresses) -> list[tuple[float, int]]:
    """Seconds from each start after a kill to a moved mark, and bytes of the snapshots."""
    stop, recoveries = asyncio.Event(), []
    async with Publisher(addresses.kafka) as publisher, asyncio.TaskGroup() as group:
        feed = Feed(publisher)
        for _ in range(10):
            await feed.send(SYMBOLS * 3)
        await evidence.until(lambda: evidence.drained(addresses), 180)
        feeding = group.create_task(_feed(feed, stop))
        for _ in range(KILLS):
            await asyncio.sleep(15)
            await asyncio.to_thread(worker.kill)
            marks = await evidence.marks(addresses)
            worker.start()
            begin = monotonic()

            async def moved(before: dict[int, int] = marks) -> bool:
                return await evidence.marks(addresses) != before

            await evidence.until(moved, 60, 0.02)
            recoveries.append((monotonic() - begin, await _stored(addresses)))
        stop.set()
        await feeding
    return recoveries


async def _stored(addresses: Addresses) -> int:
    async with evidence.connection_to(addresses) as connection:
        return int(await connection.fetchval("SELECT sum(length(data)) FROM snapshots") or 0)


def test_recovery_with_ten_thousand_symbols(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After each kill under load the state is there again and the stream goes on."""
    with start_servers(tmp_path / "data") as fleet:
        asyncio.run(prepare(fleet.addresses, load_settings()))
        with Worker(fleet.addresses, tmp_path / "worker.log") as worker:
            recoveries = asyncio.run(_kills(worker, fleet.addresses))
            claims = [
                line for line in worker.log.read_text().splitlines() if "partition_claimed" in line
            ]
    with capsys.disabled():
        each = " ".join(f"{seconds:.1f}" for seconds, _ in recoveries)
        size = recoveries[-1][1] / 2**20
        told = (
            f"kill -9 with {SYMBOLS:,} symbols at {RATE:,} ticks/s: new rows after {each} s",
            f"(limit {LIMIT:g} s; snapshots of {size:,.0f} MiB compressed)",
            *claims[-4:],
        )
        print("", *told, sep="\n")  # noqa: T201 -- the figures are asked for
    assert len(recoveries) == KILLS
