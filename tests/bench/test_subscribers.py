"""A thousand subscribers over WebSocket: from the publication in Valkey to the client."""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from pipeline.cache.latest import channel_of, encode, key_of, open_cache
from pipeline.clock import monotonic
from pipeline.settings import CacheSettings, child_environment
from tests.bench.live.knobs import knob
from tests.bench.live.telling import table, tell
from tests.bench.served.ground import Ground, ground

SUBSCRIBERS: Final = 1000
SYMBOLS: Final = 100
RATE: Final = 100  # signals a second
WARM: Final = 2.0  # seconds that are not counted
PATIENCE: Final = 30.0  # seconds: their buffers fill, then they have 20 until they are given up
STALLED: Final = 5
ROW: Final = {
    "partition": 0, "index": 0, "ts": 1_767_605_400_000_000_000,
    "known_at": 1_767_605_400_000_000_001, "action": "buy", "edge_bp": 1.5,
    "confidence": 0.25, "price": 101.25, "horizon": 5,
}  # fmt: skip

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Case:
    """Who follows what, at which rate."""

    name: str
    subscribers: int
    symbols: int  # 0: each follows all
    rate: int
    stalled: int = 0

    @property
    def each(self) -> int:
        """How many clients a signal goes to."""
        return self.subscribers // self.symbols if self.symbols else self.subscribers


CASES: Final = (
    Case("one symbol each", SUBSCRIBERS, SYMBOLS, RATE),
    Case("and some do not read", SUBSCRIBERS, SYMBOLS, RATE, STALLED),
    Case("all symbols, 10 signals/s", SUBSCRIBERS, 0, 10),
    Case("all symbols", SUBSCRIBERS, 0, RATE),
)


async def publish(here: Ground, case: Case, seconds: float, first: int) -> tuple[int, float, float]:
    """Signals at their rate; how many after the warm-up, and the moments they lie between."""
    cache = open_cache(here.valkey.address, CacheSettings())
    began = monotonic()
    sent, start = 0, began + WARM
    count = round((WARM + seconds) * case.rate)
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / case.rate - monotonic()))
        symbol, offset = f"S{number % SYMBOLS}", first + number
        now = monotonic()
        sent += now >= start
        text = encode({**ROW, "symbol": symbol, "offset": offset, "p_up": now})
        await cache.put([(key_of("signals", symbol), text, channel_of("signals"))])
    await cache.close()
    return sent, start, monotonic()


def measured(
    here: Ground, repository: Path, api: psutil.Process, port: int, case: Case, first: int
) -> dict[str, Any]:
    """What the subscribers of a case found, and what the API took for them."""
    command = [sys.executable, "-m", "tests.bench.served.subscribers"]
    numbers = (port, case.subscribers, case.symbols, case.stalled)
    before = api.memory_info().rss
    clients = subprocess.Popen(
        [*command, *map(str, numbers)],
        cwd=repository,
        env=child_environment({"BENCH_KEY": here.key, "PYTHONPATH": str(repository)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert clients.stdout is not None
    assert clients.stdin is not None
    try:
        assert clients.stdout.readline() == "ready\n"
        time.sleep(0.5)
        memory = (api.memory_info().rss - before) / (case.subscribers + case.stalled)
        used = api.cpu_times().user + api.cpu_times().system
        seconds = max(knob("LATENCY_SECONDS"), PATIENCE if case.stalled else 0.0)
        sent, begin, end = asyncio.run(publish(here, case, seconds, first))
        used = api.cpu_times().user + api.cpu_times().system - used
        time.sleep(1)
        clients.stdin.write(f"{begin} {end}\n")
        clients.stdin.close()
        found: dict[str, Any] = json.loads(clients.stdout.readline())
    finally:
        clients.kill()
        clients.wait()
        clients.stdout.close()
    return {**found, "sent": sent, "memory": memory, "cpu": used / (WARM + seconds)}


def test_subscribers(repository: Path, tmp_path: Path) -> None:
    """Prints the time to the client, what did not come, memory of a subscriber, use of a core."""
    found: list[tuple[Case, dict[str, Any]]] = []
    with ground(tmp_path) as here:
        asyncio.run(here.prepare([], []))
        for case in CASES:  # each by an API of its own: memory once taken is not given back
            with here.api(repository, "api.sockets_max=2000") as (api, port):
                first = len(found) * 1_000_000
                found.append((case, measured(here, repository, api, port, case, first)))
    for case, one in found:
        assert one["lost"] == 0, case
        assert one["cut"] == case.stalled, case
        assert one["count"] == one["sent"] * case.each, case
    lines = [
        (
            case.name,
            f"{case.rate * case.each:,}",
            f"{one['p50']:.1f}",
            f"{one['p99']:.1f}",
            f"{one['worst']:.1f}",
            f"{one['memory'] / 1024:.0f}",
            f"{one['cpu']:.0%}",
            str(one["cut"]),
        )
        for case, one in found
    ]
    header = ("case", "messages/s", "p50 ms", "p99 ms", "worst ms", "KiB each", "core", "cut")
    tell(
        repository,
        "subscribers",
        [
            f"{SUBSCRIBERS:,} subscribers over WebSocket, {RATE} signals/s unless said otherwise",
            *table(header, lines),
            "from the publication in Valkey to the client, none missing; one process of the API,",
            "which shares the cores with the clients' process and the publisher",
        ],
    )
