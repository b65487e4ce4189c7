"""The world of a run: servers that can be killed, workers that are started again, a stream."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient

from pipeline.cli.stack import prepare
from pipeline.servers import Addresses, Fleet
from pipeline.servers.services import Service
from pipeline.settings import Settings, load_settings
from schemas.topics import TOPICS
from tests.acceptance import evidence
from tests.acceptance.chaos.oracle import Expected, Oracle
from tests.acceptance.chaos.outputs import OUTPUTS, ends_of
from tests.acceptance.chaos.prices import PARTITIONS, Market
from tests.acceptance.chaos.recovery import Recoveries
from tests.acceptance.chaos.services import ForkedService
from tests.acceptance.chaos.watching import Seen
from tests.acceptance.commands import environment, naming, wait_until

SESSION: Final = 3.0  # seconds until a dead or paused member is dropped
SETS: Final = (
    "bars.clock=ticks:5",
    f"topics.partitions={PARTITIONS}",
    f"worker.session_timeout={SESSION}",
    "worker.snapshot_seconds=1",
    "predictions.horizon=3",
)
_WATCH: Final = 0.1
_DRAIN: Final = 60.0
_REPOSITORY: Final = Path(__file__).resolve().parents[3]
_START: Final = 180.0


@dataclass(slots=True)
class Ground:
    """What outlives a world: the servers, the stream's memory, the measured times."""

    fleet: Fleet
    home: Path
    market: Market = field(default_factory=Market)
    recoveries: Recoveries = field(default_factory=Recoveries)
    worlds: int = 0


@dataclass(slots=True)
class World:
    """Workers of one group over a database of their own, from the first message of the topic."""

    ground: Ground
    name: str
    addresses: Addresses
    settings: Settings
    oracle: Oracle
    workers: Sequence[Service]  # the second one comes and goes
    seen: Seen = field(default_factory=Seen)
    read: dict[tuple[str, int], int] = field(default_factory=dict)  # of the output topics
    totals: Counter[str] = field(default_factory=Counter)  # rows that each table must have
    latest: dict[str, evidence.Row] = field(default_factory=dict)  # what the cache must end with
    before: Expected | None = None  # the run before: its rows may still be repeated
    running: set[int] = field(default_factory=lambda: {0})
    patience: float = _DRAIN
    spoilt: bool = False

    @property
    def group(self) -> str:
        """The consumer group, which is the service of the progress rows."""
        return self.settings.worker.group

    def pid(self, number: int = 0) -> int:
        """Process id of a worker that runs."""
        pid = self.workers[number].pid
        assert pid is not None, f"worker {number + 1} does not run: {self.log_tail(number)}"
        return pid

    def signal(self, number: int, what: signal.Signals) -> int:
        """Send a signal to a worker; the process that got it."""
        pid = self.pid(number)
        os.kill(pid, what)
        return pid

    def claims(self, number: int) -> int:
        """How many partitions a worker has claimed so far."""
        return self.log_tail(number, 0).count("partition_claimed")

    def log_tail(self, number: int = 0, size: int = 4000) -> str:
        """The end of a worker's log."""
        log = self.workers[number].log
        return log.read_text(errors="replace")[-size:] if log.exists() else ""

    async def supervise(self) -> None:
        """Until cancelled: start again what ended, as `tickstream up` does."""
        while True:
            for number in sorted(self.running):
                await asyncio.to_thread(self.workers[number].watch)
            await asyncio.sleep(_WATCH)


@contextmanager
def world(
    ground: Ground, module: str = "agents", *arguments: str, patience: float = _DRAIN
) -> Iterator[World]:
    """A world with one worker; its processes end with it, the servers stay."""
    ground.worlds += 1
    name = f"chaos{ground.worlds}"
    settings = load_settings((*SETS, f"worker.group={name}"))
    addresses = asyncio.run(fresh(ground.fleet.addresses, name, settings))
    sets = [part for one in (*SETS, f"worker.group={name}") for part in ("--set", one)]
    workers = [
        ForkedService(
            f"worker-{number}",
            module,
            (*arguments, *sets, "--set", f"worker.instance=worker-{number}"),
            environment({**naming(addresses), "PYTHONPATH": str(_REPOSITORY)}),
            ground.home / name,
        )
        for number in (1, 2)
    ]
    oracle = Oracle(settings.chain, PARTITIONS)
    made = World(ground, name, addresses, settings, oracle, workers, patience=patience)
    try:
        asyncio.run(_skip_outputs(made))
        workers[0].start()
        # The first start on a machine compiles.
        wait_until(lambda: "worker_started" in made.log_tail(), _START, "the start of the worker")
        yield made
    finally:
        for worker in workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGCONT)  # a paused one could not end
            worker.stop()


async def fresh(addresses: Addresses, name: str, settings: Settings) -> Addresses:
    """Empty topics, an empty database and an empty cache."""
    await _drop_topics(addresses.kafka)
    async with evidence.connection_to(addresses) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    async with evidence.redis_of(addresses) as client:
        await client.flushall()
    own = replace(addresses, postgres=addresses.postgres.replace("/tickstream?", f"/{name}?"))
    await prepare(own, settings)
    return own


async def _drop_topics(bootstrap: str) -> None:
    """What another world left would have to be read first."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    names = {topic.name for topic in TOPICS}

    async def gone() -> bool:
        return not names & {*await admin.list_topics()}

    try:
        await admin.delete_topics(sorted(names & {*await admin.list_topics()}))
        await evidence.until(gone, _DRAIN)
    finally:
        await admin.close()


async def _skip_outputs(made: World) -> None:
    """Rows that another world published are none of ours."""
    made.read.update(await ends_of(made.addresses.kafka, OUTPUTS))
