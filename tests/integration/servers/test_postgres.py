"""The embedded PostgreSQL in awkward places and after awkward ends."""

import os
from pathlib import Path

import asyncpg
import psutil
import pytest

from pipeline.servers.postgres import PostgresServer


async def keep(dsn: str, value: int) -> None:
    """Commit a table of one row."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE TABLE kept AS SELECT {value:d}::bigint AS value")
    finally:
        await connection.close()


async def kept(dsn: str) -> list[int]:
    """The committed rows."""
    connection = await asyncpg.connect(dsn)
    try:
        return [record["value"] for record in await connection.fetch("SELECT value FROM kept")]
    finally:
        await connection.close()


async def test_postgres_is_durable_and_private(tmp_path: Path) -> None:
    """Fsync is on, no TCP port is open, and only the owner may enter the socket's directory."""
    with PostgresServer(tmp_path / "pg") as server:
        connection = await asyncpg.connect(server.address)
        try:
            assert await connection.fetchval("SHOW fsync") == "on"
            assert await connection.fetchval("SHOW listen_addresses") == ""
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            version = await connection.fetchval("SHOW server_version_num")
            sockets = await connection.fetchval("SHOW unix_socket_directories")
        finally:
            await connection.close()
        assert int(version) // 10_000 == 18
        assert os.stat(sockets).st_mode & 0o077 == 0  # noqa: PTH116 - nor is pathlib for async code


async def test_postgres_starts_over_a_reused_process_id(tmp_path: Path) -> None:
    """A postmaster.pid that names a living stranger does not stop the start."""
    with PostgresServer(tmp_path / "pg") as server:
        await keep(server.address, 5)
        server.kill()
        pid_file = server.data / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        stat = pid_file.stat()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        assert pid_file.stat().st_uid == stat.st_uid
        server.start()
        assert await kept(server.address) == [5]


async def test_postgres_in_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """A long data directory gets its socket elsewhere, at the same place after a restart."""
    home = tmp_path / ("long" * 20) / ("path" * 20)
    with PostgresServer(home) as server:
        await keep(server.address, 3)
        before = server.address
        assert str(home) not in before
        server.kill()
        server.start()
        assert server.address == before
        assert await kept(server.address) == [3]
    os.rmdir(before.rpartition("=")[2])  # noqa: PTH106 - nor is pathlib for async code


def test_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    """What an interrupted first start left behind does not stop the next."""
    left = tmp_path / "pg" / "data.new"
    left.mkdir(parents=True)
    (left / "PG_VERSION").write_text("18\n")
    with PostgresServer(tmp_path / "pg") as server:
        assert server.alive
    assert not left.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must become somebody else")
def test_as_root_only_the_one_user_gets_the_way_in(tmp_path: Path) -> None:
    """Run by root, PostgreSQL is another user, and no directory was opened to the world."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with PostgresServer(closed / "pg") as server:
        assert server.pid is not None
        assert psutil.Process(server.pid).username() == "embedded_postgres"
        assert closed.stat().st_mode & 0o007 == 0
