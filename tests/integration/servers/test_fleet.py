"""The three embedded servers, for real: talk, crash, restart, and every refusal."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from pipeline.errors import MisuseError, TickstreamError, UnavailableError
from pipeline.servers import Addresses, Fleet, running_addresses, start_servers
from pipeline.servers.postgres import PostgresServer
from pipeline.servers.valkey import ValkeyServer

ROOT = Path(__file__).parents[3]
LARGE = 16 * 2**20

PARENT = """
import dataclasses, json, sys, time
from pathlib import Path
from pipeline.servers import start_servers
fleet = start_servers(Path(sys.argv[1]))
told = {"pids": fleet.pids(), "addresses": dataclasses.asdict(fleet.addresses)}
print(json.dumps(told), flush=True)
time.sleep(300)
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for fleets that are killed; who comes later finds what was stored before."""
    return tmp_path_factory.mktemp("used")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """All three servers on one data directory."""
    with start_servers(tmp_path_factory.mktemp("fleet")) as running:
        yield running


async def produce(bootstrap: str, topic: str, value: bytes) -> int:
    """Send one message to partition 0, give its offset."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=LARGE) as producer:
        sent = await producer.send_and_wait(topic, value, partition=0)
    return int(sent.offset)


async def read(bootstrap: str, topic: str, offset: int) -> bytes:
    """The message at an offset of partition 0."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=LARGE,
        fetch_max_bytes=LARGE,
    )
    async with consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, offset)
        record = await consumer.getone()
    return bytes(record.value or b"")


async def create(bootstrap: str, topic: str) -> None:
    """A topic of one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def insert(dsn: str, value: int) -> None:
    """Commit one row."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (value bigint)")
        await connection.execute("INSERT INTO kept VALUES ($1)", value)
    finally:
        await connection.close()


async def rows(dsn: str) -> list[int]:
    """All committed values."""
    connection = await asyncpg.connect(dsn)
    try:
        return [record["value"] for record in await connection.fetch("SELECT value FROM kept")]
    finally:
        await connection.close()


async def ping(url: str) -> bool:
    """Whether the cache takes and gives a value."""
    async with Redis.from_url(url) as client:
        await client.set("key", b"value")
        return bool(await client.get("key") == b"value")


@contextlib.contextmanager
def parent_of_a_fleet(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process that runs a fleet, and what it told: pids and addresses."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(data_dir)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        try:
            yield parent, json.loads(parent.stdout.readline())
        finally:
            parent.kill()


def wait_gone(pids: list[int], seconds: float) -> list[int]:
    """Those that are still there after this time."""
    for _ in range(int(seconds / 0.05)):
        pids = [pid for pid in pids if psutil.pid_exists(pid)]
        if not pids:
            break
        time.sleep(0.05)
    return pids


async def test_all_three_serve(fleet: Fleet) -> None:
    """A row, a message and a value go in and come out again."""
    await create(fleet.addresses.kafka, "talk")
    offset = await produce(fleet.addresses.kafka, "talk", b"hello")
    assert await read(fleet.addresses.kafka, "talk", offset) == b"hello"
    await insert(fleet.addresses.postgres, 1)
    assert 1 in await rows(fleet.addresses.postgres)
    assert await ping(fleet.addresses.redis)
    assert fleet.alive() == {"kafka": True, "postgres": True, "redis": True}
    assert all(report.embedded and report.pid for report in fleet.report())


async def test_ten_megabyte_message_passes(fleet: Fleet) -> None:
    """A message of 10 MB goes through the broker unchanged."""
    await create(fleet.addresses.kafka, "large")
    value = os.urandom(10 * 10**6)
    offset = await produce(fleet.addresses.kafka, "large", value)
    assert await read(fleet.addresses.kafka, "large", offset) == value


def test_servers_listen_on_loopback_only(fleet: Fleet) -> None:
    """No listening socket of any server is reachable from another machine."""
    for pid in fleet.pids().values():
        for link in psutil.Process(pid).net_connections(kind="inet"):
            if link.status == psutil.CONN_LISTEN:
                assert link.laddr.ip.removeprefix("::ffff:") == "127.0.0.1"


async def test_killed_server_comes_back_with_data_and_address(fleet: Fleet) -> None:
    """After kill -9 and a restart each server has its address, and the stores their data."""
    before = fleet.addresses
    await create(before.kafka, "crash")
    offset = await produce(before.kafka, "crash", b"kept")
    await insert(before.postgres, 42)
    old = fleet.pids()
    for name in ("kafka", "postgres", "redis"):
        fleet.kill(name)
        assert fleet.alive()[name] is False
        fleet.restart(name)
        assert fleet.alive()[name] is True
        assert fleet.pids()[name] != old[name]
    assert fleet.addresses == before
    assert await read(before.kafka, "crash", offset) == b"kept"
    assert 42 in await rows(before.postgres)
    assert await ping(before.redis)


def test_unknown_server_is_misuse(fleet: Fleet) -> None:
    """Only embedded servers can be killed."""
    with pytest.raises(MisuseError, match="zookeeper"):
        fleet.kill("zookeeper")


def test_taken_data_directory_is_refused(fleet: Fleet) -> None:
    """A second start on the same directory names the process that has it."""
    data_dir = fleet.logs()["kafka"].parents[1]
    with pytest.raises(TickstreamError, match=f"is in use by process {os.getpid()}") as caught:
        start_servers(data_dir)
    assert caught.value.exit_code == 1


def test_running_addresses_are_found_by_another_command(fleet: Fleet, tmp_path: Path) -> None:
    """The addresses of a running fleet can be read from its directory."""
    data_dir = fleet.logs()["kafka"].parents[1]
    assert Addresses(**running_addresses(data_dir)) == fleet.addresses
    assert running_addresses(tmp_path) == {}


def test_external_servers_are_used(fleet: Fleet, tmp_path: Path) -> None:
    """Given addresses are taken as they are and nothing is started."""
    given = fleet.addresses
    with start_servers(
        tmp_path / "none", kafka=given.kafka, postgres=given.postgres, redis=given.redis
    ) as other:
        assert other.addresses == given
        assert other.pids() == {}
        assert all(report.alive and not report.embedded for report in other.report())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("given", "variable"),
    [
        ({"kafka": "127.0.0.1:1"}, "TICKSTREAM_KAFKA"),
        ({"postgres": "postgresql://u@127.0.0.1:1/db"}, "TICKSTREAM_POSTGRES"),
        ({"redis": "redis://127.0.0.1:1/0"}, "TICKSTREAM_REDIS"),
    ],
)
def test_silent_external_server_is_named(
    tmp_path: Path, given: dict[str, str], variable: str
) -> None:
    """An address that does not answer is named with its variable, and nothing was started."""
    with pytest.raises(UnavailableError, match=variable) as caught:
        start_servers(tmp_path / "d", **given)  # type: ignore[arg-type]  # one of three strings
    assert "127.0.0.1:1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "d").exists()


def test_taken_port_stops_the_whole_start(tmp_path: Path) -> None:
    """A fixed port that is taken is named; what had started is stopped; the directory is free."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"port {port} for redis is taken"):
            start_servers(tmp_path, redis_port=port, kafka=f"127.0.0.1:{port}")
    with (
        ValkeyServer(tmp_path / "redis") as redis,
        PostgresServer(tmp_path / "postgres") as postgres,
    ):
        assert redis.alive
        assert postgres.alive


async def test_everything_dies_with_the_parent_and_starts_again(used: Path) -> None:
    """Kill -9 of the parent ends all servers; the next start finds row, message and addresses."""
    with parent_of_a_fleet(used) as (parent, told):
        addresses = Addresses(**told["addresses"])
        await create(addresses.kafka, "died")
        offset = await produce(addresses.kafka, "died", b"kept")
        await insert(addresses.postgres, 7)
        family = [relative.pid for relative in psutil.Process(parent.pid).children(recursive=True)]
        assert set(told["pids"].values()) < set(family)
        session = await asyncpg.connect(addresses.postgres)
        backend = session.get_server_pid()
        parent.kill()
        assert wait_gone([*family, backend], 8.0) == []
        session.terminate()
        await asyncio.sleep(0.05)  # the transport closes itself in the loop's next turn
    with start_servers(used) as fleet:
        assert fleet.addresses == addresses
        assert (await rows(addresses.postgres)).count(7) == 1
        assert await read(addresses.kafka, "died", offset) == b"kept"


async def test_stale_data_after_kill_of_everything(used: Path) -> None:
    """Kill -9 of parent, keepers and servers at once leaves data that starts again, complete."""
    with parent_of_a_fleet(used) as (parent, told):
        addresses = Addresses(**told["addresses"])
        await create(addresses.kafka, "stale")
        offset = await produce(addresses.kafka, "stale", b"kept")
        await insert(addresses.postgres, 8)
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        for relative in family:
            # The keeper's death may have ended its server already.
            with contextlib.suppress(ProcessLookupError):
                os.kill(relative.pid, signal.SIGKILL)
        assert wait_gone([relative.pid for relative in family], 5.0) == []
    assert (used / "postgres" / "data" / "postmaster.pid").exists()
    with start_servers(used) as fleet:
        assert fleet.addresses == addresses
        assert (await rows(addresses.postgres)).count(8) == 1
        assert await read(addresses.kafka, "stale", offset) == b"kept"
        assert await produce(addresses.kafka, "stale", b"more") == offset + 1


async def test_restart_at_once_after_a_killed_parent(used: Path) -> None:
    """A start right after the kill waits for the dying servers instead of meeting them."""
    with parent_of_a_fleet(used) as (parent, told):
        await insert(told["addresses"]["postgres"], 9)
        parent.kill()
        parent.wait()
        with start_servers(used) as fleet:
            assert fleet.addresses == Addresses(**told["addresses"])
            assert (await rows(fleet.addresses.postgres)).count(9) == 1
