"""Servers behind a real API process are killed and paused under load: it degrades and recovers."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import httpx
import psutil
import pytest

from pipeline.servers.postgres import PostgresServer
from pipeline.servers.server import Server
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import Settings
from tests.integration.api.conftest import becomes
from tests.integration.api.stream import HISTORY, LATEST, SYMBOLS, Load, Stream, rows_of
from tests.integration.api.test_process import ready, running

HOLD = 1.5  # seconds that a server is away
PATIENT = ("--set", "store.statement_timeout=1", "store.acquire_timeout=1")


async def kill(server: Server) -> None:
    """As a crash, and started again."""
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(HOLD)
    await asyncio.to_thread(server.start)


async def pause(server: Server) -> None:
    """All its processes stand still for a while: it keeps its connections and answers nothing."""
    assert server.pid is not None
    first = psutil.Process(server.pid)
    first.suspend()
    group = first.children(recursive=True)
    for one in group:
        one.suspend()
    await asyncio.sleep(2 * HOLD)
    for one in (*group, first):
        one.resume()


@pytest.mark.timeout(360)
@pytest.mark.parametrize("away", ["redis", "postgres", "both"])
async def test_servers_fail_under_load(
    settings: Settings,
    postgres_server: PostgresServer,
    valkey_server: ValkeyServer,
    away: str,
) -> None:
    """No wrong or invented value, no internal error, no end; afterwards all is as before.

    Killed and paused, one after the other, behind one process.
    """
    servers: dict[str, Server] = {"redis": valkey_server, "postgres": postgres_server}
    stream = Stream(settings)
    async with stream.running(), running(settings, *PATIENT) as (process, host):
        await ready(host)
        for fault in (kill, pause):
            load = Load(host, stream)
            verdict = load.verdict
            async with load.running():
                await until(lambda load=load: load.verdict.answers > 20 and load.heard > 0)  # type: ignore[misc]
                assert (verdict.without_cache, verdict.unavailable) == (0, set())
                await asyncio.gather(
                    *(fault(server) for name, server in servers.items() if away in {name, "both"})
                )
                await recovered(host, stream, load)
            assert verdict.faults == []
            if away != "both":  # then an answer without the cache is none at all
                assert (verdict.without_cache > 0) == (away == "redis")
            if fault is kill:
                told = {"Postgres is away; try again in a moment"}
                assert verdict.unavailable == (told if away != "redis" else set())
        await stream.end()
        await until(lambda: is_newest(host, stream.committed))
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
        assert b"Traceback" not in log, log.decode()
        assert process.returncode == 0


async def recovered(host: str, stream: Stream, load: Load) -> None:
    """Until new rows are stored, pushed, and served whole by the cache."""
    async with httpx.AsyncClient(base_url=f"http://{host}") as client:
        assert await becomes(client, "ready")
    seen, heard = stream.committed, load.heard
    await until(lambda: stream.committed > seen + 10 and load.heard > heard + 10)
    await until(lambda: served_by_cache(host))


async def until(reached: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for it; pytest's time limit ends it."""
    while True:
        found = reached()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.05)


async def served_by_cache(host: str) -> bool:
    """Whether an answer is whole and comes from the cache."""
    async with httpx.AsyncClient(base_url=f"http://{host}", timeout=60) as client:
        answer = (await client.post("/graphql", json={"query": LATEST})).json()
    return answer.keys() == {"data"} and len(rows_of(answer["data"])) == 3 * len(SYMBOLS)


async def is_newest(host: str, offset: int) -> bool:
    """Whether every latest row and the end of the history have this offset."""
    async with httpx.AsyncClient(base_url=f"http://{host}", timeout=60) as client:
        for query in (LATEST, HISTORY):
            answer = (await client.post("/graphql", json={"query": query})).json()
            rows = rows_of(answer["data"])
            newest = [row for row in rows if row["fresh"]] or rows
            if not newest or any(int(row["offset"]) != offset for row in newest):
                return False
    return True
