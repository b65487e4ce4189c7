"""Servers for benches of the API: Postgres and Valkey, the API as a user runs it, and its peers."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from pipeline.cache.latest import entries, open_cache
from pipeline.clock import monotonic
from pipeline.servers.postgres import PostgresServer
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import CacheSettings, StoreSettings, child_environment
from pipeline.store.keys import Role, create_key
from pipeline.store.live import LiveStore, PartitionBatch
from pipeline.store.migrate import migrate
from pipeline.store.pool import open_pool
from schemas.blocks import Rows
from tests.fixtures.rows import newest

_PATIENCE = 60.0


@dataclass
class Ground:
    """Two servers, and a key that the API takes."""

    postgres: PostgresServer
    valkey: ValkeyServer
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"authorization": f"Bearer {self.key}"}

    async def prepare(self, rows: Sequence[dict[str, Rows]], symbols: Sequence[str]) -> None:
        """Tables, a key, and rows in Postgres and the cache."""
        pool = await open_pool(self.postgres.address, StoreSettings())
        await migrate(pool)
        self.key = (await create_key(pool, "bench", Role.READER, None)).text
        store = LiveStore(pool, "bench", "fingerprint")
        epoch = (await store.claim(0)).epoch
        cache = open_cache(self.valkey.address, CacheSettings())
        batches = [
            PartitionBatch(0, epoch, mark, one, [], list(symbols) if mark == 0 else [], [])
            for mark, one in enumerate(rows)
        ]
        await store.commit(batches)
        for one in rows:
            for stage, block in one.items():
                await cache.put(entries(stage, newest(block)))
        await cache.close()
        await pool.close()

    @contextmanager
    def api(self, repository: Path, *sets: str) -> Iterator[tuple[psutil.Process, int]]:
        """The API with keys demanded; its process and port."""
        port = free_port()
        values = {
            "TICKSTREAM_POSTGRES": self.postgres.address,
            "TICKSTREAM_REDIS": self.valkey.address,
        }
        options = ["api.auth=true", "api.rate=1000000", "api.burst=1000000", *sets]
        command = [sys.executable, "-m", "api", "--port", str(port), "--set", *options]
        with _running(command, repository, values) as process:
            _answers(f"http://127.0.0.1:{port}/readyz", self.headers)
            yield process, port

    @contextmanager
    def peer(self, repository: Path, kind: str) -> Iterator[tuple[psutil.Process, int]]:
        """One of the peers; its process and port."""
        port = free_port()
        module = "tests.bench.served.peers"
        command = [sys.executable, "-m", module, kind, str(port), self.valkey.address]
        with _running(command, repository, {}) as process:
            _answers(f"http://127.0.0.1:{port}/nothing", {})
            yield process, port


@contextmanager
def ground(home: Path) -> Iterator[Ground]:
    """The two servers for the length of a block."""
    with PostgresServer(home / "postgres") as postgres, ValkeyServer(home / "valkey") as valkey:
        yield Ground(postgres, valkey)


def free_port() -> int:
    """A port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def _running(
    command: list[str], repository: Path, values: dict[str, str]
) -> Iterator[psutil.Process]:
    environment = child_environment({**values, "PYTHONPATH": str(repository)})
    process = subprocess.Popen(command, cwd=repository, env=environment)
    try:
        yield psutil.Process(process.pid)
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait()


def _answers(address: str, headers: dict[str, str]) -> None:
    deadline = monotonic() + _PATIENCE
    with httpx.Client(headers=headers) as client:
        while monotonic() < deadline:
            try:
                if client.get(address).status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return
            except httpx.TransportError:
                pass
    raise AssertionError(f"{address} does not answer")
