"""Replays of the peers' workload beside csp and Nautilus, on one core; memory of a long one."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import Range
from pipeline.bus.topics import offset_bounds
from pipeline.replay.engine import replay_file
from pipeline.replay.merging import merged
from pipeline.replay.messages import Stream, from_broker
from pipeline.servers import Addresses
from pipeline.settings import load_settings
from pipeline.sources.files import read_arrivals
from pipeline.stages.base import Block
from pipeline.stages.chain import Chain
from schemas.blocks import Array, Rows
from schemas.codec import table_bytes, tick_bytes
from tests.bench import peers
from tests.bench.live.telling import tell
from tests.bench.test_kernels import SYMBOLS, TICKS_1, interleaved, workload

BLOCK = 4096
LONG = 50_000_000
PIECE = 1_000_000  # ticks of the long input that are made at once
LIMIT_MB = 500
CSP = "csp, five features and a sink, from memory"
NAUTILUS = "Nautilus, the same five features, from memory"
EMPTY = "Nautilus, an empty handler, from memory"
NAUTILUS_RELEASE = "nautilus_trader==1.221.0"  # the faster one of those that were measured

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process, its threads and the peers on one core; the broker has the other one."""
    former, threads = os.sched_getaffinity(0), pa.cpu_count()
    os.sched_setaffinity(0, {min(former)})
    pa.set_cpu_count(1)
    yield
    os.sched_setaffinity(0, former)
    pa.set_cpu_count(threads)


def table_of(symbol: Array, ts: Array, price: Array) -> Any:
    """The workload as a table of ticks."""
    names = pa.array([f"S{i}" for i in range(SYMBOLS)])
    return pa.table({"symbol": names.take(pa.array(symbol)), "ts": ts, "price": price})


class Newest:
    """A sink that keeps the newest row of each symbol, as csp's does."""

    def __init__(self) -> None:
        self.ticks = 0
        self._last = np.zeros(SYMBOLS, np.int64)

    def take(self, ticks: Rows, rows: Rows) -> None:
        """Count the ticks, keep the offset of what is newest."""
        self.ticks += len(ticks)
        self._last[rows["symbol"]] = rows["offset"]


def from_file(path: Path, last: str) -> float:
    """Seconds from a Parquet file through the stages up to one, a row a tick at each."""
    begin = time.perf_counter()
    chain, sink = Chain(TICKS_1), Newest()
    names = [stage.name for stage in chain.stages]
    stages = chain.stages[: names.index(last) + 1]
    for came in read_arrivals(path, BLOCK):
        block = Block(came)
        for stage in stages:
            block = stage.step(block)
        sink.take(block.rows["ticks"], block.rows[last])
    assert sink.ticks == PIECE
    return time.perf_counter() - begin


def to_parquet(path: Path, out: Path, clock: str) -> float:
    """Seconds of the command's own work: every row of every stage into Parquet."""
    settings = load_settings([f"bars.clock={clock}"])
    begin = time.perf_counter()
    assert replay_file(path, out, settings)["rows"]["ticks"] == PIECE
    return time.perf_counter() - begin


async def from_topic(kafka: str, topic: str) -> float:
    """Seconds from a topic through the whole chain, partitions merged, a row a tick."""
    begin = time.perf_counter()
    spans: dict[int, Range] = await offset_bounds(kafka, topic)
    read = from_broker(kafka, topic)
    block = load_settings().replay.block // len(spans)
    streams = {n: Stream(read, n, span, block).portions() for n, span in spans.items()}
    sink = Newest()
    async for step in merged(streams, TICKS_1):
        if "ticks" in step.rows:
            sink.take(step.rows["ticks"], step.rows["predictions"])
    assert sink.ticks == PIECE
    return time.perf_counter() - begin


class Nautilus:
    """Backtests of NautilusTrader over objects that are made beforehand, which is not timed.

    A process runs all handlers: with the features of the workload in Python, the way it is written
    for, checked by their sum; and with none, which no handler can be faster than.
    """

    def __init__(self, python: Path, script: Path, data: Path, check: float) -> None:
        self._python, self._script, self._data, self._check = python, script, data, check
        self._seconds: dict[str, float] = {}

    def features(self) -> float:
        """Seconds of the five features, in a new process."""
        lines = peers.measured(self._python, self._script, self._data)
        self._seconds = {line["peer"]: line["seconds"] for line in lines}
        assert [line["check"] for line in lines if line["check"] is not None] == [self._check]
        return self._of("all features")

    def empty(self) -> float:
        """Seconds without any, in the same process."""
        return self._of("empty handler")

    def _of(self, words: str) -> float:
        (seconds,) = (seconds for title, seconds in self._seconds.items() if words in title)
        return float(seconds)


def peers_of(repository: Path, data: Path) -> dict[str, Callable[[], float]]:
    """What each peer takes for its features of the workload; Nautilus where it installs."""
    folder = peers.scripts(repository)
    csp = peers.environment("csp", ("csp", "numpy", "pandas"))

    def sink() -> dict[str, Any]:
        return peers.measured(csp, folder / "bench_csp.py", data)[1]

    found: dict[str, Callable[[], float]] = {CSP: lambda: float(sink()["seconds"])}
    python = peers.installed("nautilus", (NAUTILUS_RELEASE,))
    if python is not None:
        nautilus = Nautilus(python, folder / "bench_nautilus.py", data, sink()["check"])
        found |= {NAUTILUS: nautilus.features, EMPTY: nautilus.empty}
    return found


@pytest.fixture
async def topics(addresses: Addresses, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The workload on topics: by framing and number of partitions, messages of one symbol."""
    symbol, ts, price = workload(tmp_path / "topics.npz")
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses.kafka)
    await admin.start()
    made: dict[str, str] = {}
    for title, partitions, frame in (
        ("JSON arrays of 100, 1 partition", 1, 100),
        ("JSON arrays of 100, 4 partitions", 4, 100),
        ("Arrow blocks of 1,000, 4 partitions", 4, 1000),
    ):
        name = made[title] = f"bench-{os.urandom(6).hex()}"
        await admin.create_topics([NewTopic(name, partitions, 1)])
        records: list[tuple[int, Outgoing]] = []
        for code in range(SYMBOLS):
            mine = np.flatnonzero(symbol == code)
            for at in range(0, len(mine), frame):
                rows = mine[at : at + frame]
                part = table_of(symbol[rows], ts[rows], price[rows])
                value = tick_bytes(part.to_pylist()) if frame == 100 else table_bytes(part)
                record = Outgoing(name, value, partition=code % partitions)
                records.append((int(ts[rows[-1]]), record))
        async with Publisher(addresses.kafka) as publisher:
            await publisher.deliver(one for _, one in sorted(records, key=lambda pair: pair[0]))
    yield made
    await admin.delete_topics(list(made.values()))
    await admin.close()


@pytest.mark.usefixtures("one_core")
async def test_replay_beside_csp(
    repository: Path, tmp_path: Path, addresses: Addresses, topics: dict[str, str]
) -> None:
    """Ticks a second, medians of five in turn, each as a ratio to the peers' five features."""
    data, path = tmp_path / "ticks.npz", tmp_path / "ticks.parquet"
    pq.write_table(table_of(*workload(data)), path, row_group_size=65_536)
    theirs = peers_of(repository, data)

    def topic(name: str) -> float:
        return asyncio.run(from_topic(addresses.kafka, name))

    ours = {
        "Parquet to features, rows dropped": lambda: from_file(path, "features"),
        "Parquet to equity, the whole chain, rows dropped": lambda: from_file(path, "equity"),
        "replay to Parquet, ticks:1": lambda: to_parquet(path, tmp_path / "out", "ticks:1"),
        "replay to Parquet, time:10s": lambda: to_parquet(path, tmp_path / "out", "time:10s"),
        **{
            f"Kafka, the whole chain: {title}": lambda name=name: topic(name)  # type: ignore[misc]  # a default binds it
            for title, name in topics.items()
        },
    }
    for job in ours.values():
        await asyncio.to_thread(job)  # compiled and read once
    seconds = await asyncio.to_thread(interleaved, {**theirs, **ours})
    middle = {title: statistics.median(found) for title, found in seconds.items()}
    lines = [f"{PIECE:,} ticks, {SYMBOLS} symbols, one core, medians of 5"]
    if NAUTILUS not in theirs:
        lines.append(peers.absent(NAUTILUS_RELEASE))
    for title, found in seconds.items():
        ratios = " ".join(
            f"{middle[peer] / middle[title]:6.2f} x {peer.partition(',')[0]}"
            for peer in (CSP, NAUTILUS)
            if peer in theirs
        )
        lines.append(
            f"{title:54} {PIECE / middle[title]:>12,.0f} ticks/s {ratios}"
            f"  (min {min(found):.2f} max {max(found):.2f} s)"
        )
    tell(repository, "replay-inputs", lines)


MEMORY = """
import json, re, sys, time
from pathlib import Path
from pipeline.replay.engine import replay_file
from pipeline.settings import load_settings
begin = time.perf_counter()
manifest = replay_file(Path(sys.argv[1]), Path(sys.argv[2]), load_settings())
# Not getrusage: it remembers what the process that started this one had.
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(json.dumps({
    "ticks": manifest["rows"]["ticks"],
    "bars": manifest["rows"]["bars"],
    "seconds": round(time.perf_counter() - begin, 1),
    "rss_mb": int(peak) // 1024,
}))
"""


def test_memory_of_a_long_replay(repository: Path, tmp_path: Path) -> None:
    """50,000,000 ticks from Parquet to Parquet under 500 MB."""
    symbol, ts, price = workload(tmp_path / "piece.npz")
    path = tmp_path / "long.parquet"
    span = int(ts[-1] - ts[0]) + 1_000_000
    with pq.ParquetWriter(path, table_of(symbol, ts, price).schema, compression="zstd") as file:
        for number in range(LONG // PIECE):
            file.write_table(table_of(symbol, ts + number * span, price), row_group_size=65_536)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "out")],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(done.stdout)
    tell(repository, "replay-memory", [json.dumps(figures)])
    assert figures["ticks"] == LONG
    assert figures["rss_mb"] < LIMIT_MB
