"""The servers that the program needs, each embedded unless the user named their own."""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from pipeline.errors import MisuseError, TickstreamError, UnavailableError
from pipeline.servers import probe
from pipeline.servers.kafka import KafkaServer
from pipeline.servers.lock import DirectoryLock, is_locked
from pipeline.servers.postgres import PostgresServer
from pipeline.servers.server import Say, Server, silent
from pipeline.servers.valkey import ValkeyServer

RECORD = "addresses.json"


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the three servers are found."""

    kafka: str
    """Bootstrap address, host:port."""
    postgres: str
    """A postgresql:// address."""
    redis: str
    """A redis:// address."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one server is doing."""

    name: str
    embedded: bool
    alive: bool
    """Of an external one: it accepts a connection."""
    pid: int | None
    """Of an embedded one while it runs."""
    start_seconds: float | None
    """How long its last start took, of an embedded one."""


class Fleet:
    """The running servers and the lock of their data directory; a context manager that stops them.

    Made by `start_servers`. Everything is synchronous; call it from asyncio by `to_thread`.
    """

    def __init__(
        self,
        addresses: Addresses,
        servers: dict[str, Server],
        lock: DirectoryLock | None,
        record: Path,
    ) -> None:
        self.addresses = addresses
        self._servers = servers
        self._lock = lock
        self._record = record

    def stop(self) -> None:
        """Stop what is embedded, all at once and gracefully, and free the data directory."""
        try:
            _each([server.stop for server in self._servers.values()])
        finally:
            if self._lock is not None:
                self._record.unlink(missing_ok=True)
                self._lock.release()

    def restart(self, name: str) -> None:
        """Restart one embedded server, also a dead one; data and address stay."""
        server = self._server(name)
        before = server.address
        server.restart()
        if server.address != before:
            server.stop()
            raise UnavailableError(
                f"{before} of {name} was taken while it was down: start all servers again"
            )

    def kill(self, name: str) -> None:
        """End one embedded server by kill -9."""
        self._server(name).kill()

    def alive(self) -> dict[str, bool]:
        """Whether each embedded server runs."""
        return {name: server.alive for name, server in self._servers.items()}

    def pids(self) -> dict[str, int]:
        """Process ids of the embedded servers that run."""
        return {
            name: pid for name, server in self._servers.items() if (pid := server.pid) is not None
        }

    def logs(self) -> dict[str, Path]:
        """The log file of each embedded server."""
        return {name: server.log for name, server in self._servers.items()}

    def report(self) -> tuple[Report, ...]:
        """Every server, embedded or not."""
        return tuple(
            self._report(name, address) for name, address in asdict(self.addresses).items()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _report(self, name: str, address: str) -> Report:
        server = self._servers.get(name)
        if server is not None:
            return Report(
                name=name,
                embedded=True,
                alive=server.alive,
                pid=server.pid,
                start_seconds=server.start_seconds,
            )
        try:
            CHECKS[name](address)
            alive = True
        except TickstreamError:
            alive = False
        return Report(name=name, embedded=False, alive=alive, pid=None, start_seconds=None)

    def _server(self, name: str) -> Server:
        if name not in self._servers:
            raise MisuseError(f"{name} is not one of the embedded servers: {list(self._servers)}")
        return self._servers[name]


CHECKS: dict[str, Callable[[str], None]] = {
    "kafka": probe.check_kafka,
    "postgres": probe.check_postgres,
    "redis": probe.check_redis,
}


def start_servers(
    data_dir: Path,
    *,
    kafka: str | None = None,
    postgres: str | None = None,
    redis: str | None = None,
    kafka_port: int | None = None,
    redis_port: int | None = None,
    kafka_heap_mb: int = 512,
    redis_maxmemory_mb: int = 256,
    timeout: float = 60.0,
    say: Say = silent,
) -> Fleet:
    """Start the servers that are not given by an address, side by side; wait until all serve.

    Args:
        data_dir: Their data, made if missing; one process at a time may own it.
        kafka: Bootstrap address of an existing broker.
        postgres: Address of an existing database.
        redis: Address of an existing Redis or Valkey.
        kafka_port: A port to insist on.
        redis_port: A port to insist on.
        kafka_heap_mb: Largest heap of the broker.
        redis_maxmemory_mb: Where the cache begins to evict.
        timeout: Seconds until a start counts as failed.
        say: Takes lines about slow things, such as the first download; from several threads.

    Raises:
        UnavailableError: A server cannot be had; all others are stopped again.
        TickstreamError: Another process owns the data directory.
    """
    data_dir = data_dir.absolute()
    given = {"kafka": kafka, "postgres": postgres, "redis": redis}
    external = {name: address for name, address in given.items() if address}
    _each([_check(name, address) for name, address in external.items()])
    record = data_dir / RECORD
    if len(external) == len(given):
        return Fleet(Addresses(**external), {}, None, record)
    lock = DirectoryLock(data_dir)
    embedded: dict[str, Server] = {
        "kafka": KafkaServer(
            data_dir / "kafka", port=kafka_port, heap_mb=kafka_heap_mb, timeout=timeout, say=say
        ),
        "postgres": PostgresServer(data_dir / "postgres", timeout=timeout, say=say),
        "redis": ValkeyServer(
            data_dir / "redis",
            port=redis_port,
            maxmemory_mb=redis_maxmemory_mb,
            timeout=timeout,
            say=say,
        ),
    }
    servers = {name: server for name, server in embedded.items() if name not in external}
    try:
        _each([server.start for server in servers.values()])
        found = {name: server.address for name, server in servers.items()}
        _write(record, found)
    except BaseException:
        for server in servers.values():
            server.cancel()
        _each([server.stop for server in servers.values()])
        lock.release()
        raise
    return Fleet(Addresses(**(external | found)), servers, lock, record)


def running_addresses(data_dir: Path) -> dict[str, str]:
    """Addresses of the embedded servers that some process now runs on this directory.

    For a second command beside `up`. External addresses are not among them: they may hold
    passwords, which are never written down.
    """
    if not is_locked(data_dir):
        return {}
    try:
        found = json.loads((data_dir / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(address) for name, address in found.items()}


def _write(record: Path, found: dict[str, str]) -> None:
    fresh = record.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 - only this open takes a descriptor
        json.dump(found, file)
    fresh.replace(record)


def _check(name: str, address: str) -> Callable[[], None]:
    return lambda: CHECKS[name](address)


def _each(jobs: list[Callable[[], None]]) -> None:
    """Run the jobs side by side to the end of all; then raise the first trouble, if any."""
    troubles: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            troubles.append(error)

    # Daemons, so that Ctrl-C in the middle of the first download ends the program at once.
    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
