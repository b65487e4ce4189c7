"""Servers of a bench and workers on them, each group over a database of its own."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from pipeline.cli.stack import prepare
from pipeline.servers import Addresses, Fleet, start_servers
from pipeline.settings import load_settings
from tests.acceptance import evidence
from tests.acceptance.commands import Worker


@dataclass(frozen=True, slots=True)
class Machine:
    """A broker, a database and a cache."""

    fleet: Fleet
    home: Path
    partitions: int

    @property
    def kafka(self) -> str:
        """Address of the broker."""
        return self.fleet.addresses.kafka

    def cpu(self) -> float:
        """CPU seconds of the three servers so far."""
        return sum(cpu_of(pid) for pid in self.fleet.pids().values())


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers of one consumer group."""

    group: str
    addresses: Addresses
    workers: list[Worker]

    @property
    def pids(self) -> list[int]:
        """Process ids; all must be alive."""
        found = []
        for worker in self.workers:
            assert worker.alive, worker.log.read_text()[-3000:]
            assert worker._process is not None
            found.append(worker._process.pid)
        return found

    def cpu(self) -> float:
        """CPU seconds of the workers so far."""
        return sum(cpu_of(pid) for pid in self.pids)

    def rss(self) -> int:
        """Bytes of memory of the workers."""
        return sum(int(psutil.Process(pid).memory_info().rss) for pid in self.pids)

    def claims(self) -> list[int]:
        """How often each worker claimed a partition."""
        return [worker.log.read_text().count("partition_claimed") for worker in self.workers]


@contextmanager
def machine(home: Path, partitions: int) -> Iterator[Machine]:
    """Fresh servers with topics of so many partitions."""
    with start_servers(home / "data") as fleet:
        asyncio.run(prepare(fleet.addresses, load_settings((f"topics.partitions={partitions}",))))
        yield Machine(fleet, home, partitions)


@contextmanager
def crew(ground: Machine, group: str, clock: str, count: int = 1) -> Iterator[Crew]:
    """So many workers that begin with the first message of `prices`; their rows end with them."""
    settings = (
        f"bars.clock={clock}",
        f"worker.group={group}",
        f"topics.partitions={ground.partitions}",
    )
    addresses = asyncio.run(_own_database(ground.fleet.addresses, group, settings))
    workers = [
        Worker(
            addresses,
            ground.home / f"{group}-{number}.log",
            *settings,
            f"worker.instance=worker-{number}",
        )
        for number in range(1, count + 1)
    ]
    try:
        with ExitStack() as stack:
            for worker in workers:
                stack.enter_context(worker)
            yield Crew(group, addresses, workers)
    finally:
        asyncio.run(_execute(ground.fleet.addresses, f"DROP DATABASE {group} WITH (FORCE)"))


async def _own_database(addresses: Addresses, name: str, settings: tuple[str, ...]) -> Addresses:
    await _execute(addresses, f"CREATE DATABASE {name}")
    async with evidence.redis_of(addresses) as client:
        await client.flushall()
    own = replace(addresses, postgres=addresses.postgres.replace("/tickstream?", f"/{name}?"))
    await prepare(own, load_settings(settings))
    return own


async def _execute(addresses: Addresses, statement: str) -> None:
    async with evidence.connection_to(addresses) as connection:
        await connection.execute(statement)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, its descendants and those of them that have ended."""
    root = psutil.Process(pid)
    ended = root.cpu_times()
    total = float(ended.children_user + ended.children_system)
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def busy_seconds() -> float:
    """CPU seconds of the whole machine that were neither idle nor spent waiting for a disk."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
