"""`python -m api` as a user runs it: start, subscribe, stop, and every refusal."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import CloseCode

from api.names import FOLLOWED
from pipeline.errors import UnavailableError
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import Settings, child_environment
from tests.acceptance.commands import only_line
from tests.fixtures.preloaded import refusal
from tests.integration.api.conftest import Feed, make_rows

COMMAND = [sys.executable, "-m", "api"]


def environment(settings: Settings) -> dict[str, str]:
    """The environment that names the servers."""
    assert settings.postgres is not None
    assert settings.redis is not None
    values = {"TICKSTREAM_POSTGRES": settings.postgres, "TICKSTREAM_REDIS": settings.redis}
    if settings.kafka is not None:
        values["TICKSTREAM_KAFKA"] = settings.kafka
    return child_environment(values)


@asynccontextmanager
async def running(settings: Settings, *arguments: str) -> AsyncIterator[tuple[Any, str]]:
    """A server process and its host:port; it is ended if the test did not."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--port",
        "0",
        *arguments,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(90):
            line = (await process.stderr.readline()).decode()
        assert line.startswith("api: serving http://"), line
        yield process, line.split("//")[1].split("/")[0]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def subscribed(host: str, *symbols: str) -> AsyncIterator[ClientConnection]:
    """A WebSocket with one subscription."""
    names = f"(symbols: {json.dumps(symbols)})" if symbols else ""
    async with operating(
        host, f"subscription {{ signals{names} {{ symbol offset action pUp }} }}"
    ) as websocket:
        yield websocket


@asynccontextmanager
async def operating(host: str, query: str, name: str = "1") -> AsyncIterator[ClientConnection]:
    """A WebSocket with one operation."""
    address = f"ws://{host}/graphql"
    async with connect(address, subprotocols=["graphql-transport-ws"]) as websocket:  # type: ignore[list-item]  # a NewType of str
        await websocket.send('{"type": "connection_init"}')
        assert json.loads(await websocket.recv()) == {"type": "connection_ack"}
        message = {"id": name, "type": "subscribe", "payload": {"query": query}}
        await websocket.send(json.dumps(message))
        # Messages are taken in order: with the answer to this the subscription is there.
        await websocket.send('{"type": "ping"}')
        assert json.loads(await websocket.recv()) == {"type": "pong"}
        yield websocket


async def signal_of(websocket: ClientConnection) -> dict[str, Any]:
    """The next signal."""
    found: dict[str, Any] = (await next_of(websocket))["signals"]
    return found


async def next_of(websocket: ClientConnection) -> dict[str, Any]:
    """The data of the next result."""
    async with asyncio.timeout(10):
        message = json.loads(await websocket.recv())
    assert (message["type"], message["id"]) == ("next", "1"), message
    found: dict[str, Any] = message["payload"]["data"]
    return found


async def ready(host: str) -> None:
    """Wait until the server has all it needs."""
    async with httpx.AsyncClient(base_url=f"http://{host}") as client:
        for _ in range(100):
            if (await client.get("/readyz")).json()["status"] == "ready":
                return
            await asyncio.sleep(0.05)
    pytest.fail("not ready")


async def test_signals_are_pushed(
    settings: Settings, feed: Feed, valkey_server: ValkeyServer
) -> None:
    """Subscribers get their signals as they are cached, also after Valkey was away."""
    async with running(settings) as (process, host):
        await ready(host)
        async with subscribed(host, "A") as one, subscribed(host) as everything:
            await asyncio.sleep(1.5)  # longer than a call to the cache may take
            await feed.put({"signals": make_rows("signals", "B", 1)}, ["B"])
            await feed.put({"signals": make_rows("signals", "A", 2, 10)}, ["A"])
            wanted = {"symbol": "A", "offset": "11", "action": "SELL", "pUp": 11.5}
            assert await signal_of(one) == wanted
            assert [(await signal_of(everything))["symbol"] for _ in "BA"] == ["B", "A"]
            valkey_server.kill()
            await asyncio.to_thread(valkey_server.start)
            again = asyncio.create_task(signal_of(one))
            for offset in range(20, 400):
                with suppress(UnavailableError):  # the first call meets a dead connection
                    await feed.cache_only({"signals": make_rows("signals", "A", 1, offset)})
                if again.done():
                    break
                await asyncio.sleep(0.05)
            assert (await again)["symbol"] == "A"
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                assert await process.wait() == 0
            # Told that the service goes, not cut off once a time for that was over.
            for client in (one, everything):
                await client.wait_closed()
                assert client.close_code == CloseCode.SERVICE_RESTART
            assert await process.stdout.read() == b""


async def test_every_followed_stage_is_pushed(settings: Settings, feed: Feed) -> None:
    """A stage is followed once somebody subscribes, its rows come as they are cached."""
    async with running(settings) as (_, host):
        await ready(host)
        for stage, field in FOLLOWED.items():
            text = f'subscription {{ {field}(symbols: ["A"]) {{ symbol offset }} }}'
            async with operating(host, text) as websocket:
                coming = asyncio.create_task(next_of(websocket))
                last = -1
                while not coming.done():  # from soon on, and nobody is told from when
                    last += 1
                    for symbol in "BA":
                        await feed.cache_only({stage: make_rows(stage, symbol, 1, last)})
                    await asyncio.sleep(0.01)
                row = (await coming)[field]
                first = int(row["offset"])
                for offset in range(first, last + 1):
                    if offset > first:
                        row = (await next_of(websocket))[field]
                    assert row == {"symbol": "A", "offset": str(offset)}


async def test_many_share_a_rendering(settings: Settings, feed: Feed) -> None:
    """Each gets all results with its id, whatever their size; who does not read slows nobody."""
    more = ("", "pUp action ts", " ".join(f"{'a' * 240}{n}: ts" for n in range(300)))
    documents = [f"subscription {{ signals {{ offset {fields} }} }}" for fields in more]
    async with running(settings) as (_, host), AsyncExitStack() as stack:
        await ready(host)
        readers: list[tuple[str, ClientConnection]] = []
        for number, document in enumerate([*documents, *documents[:2]]):
            name = f"{number}" * (1 + 99 * (number % 2))
            websocket = await stack.enter_async_context(operating(host, document, name))
            assert websocket.protocol.extensions == []  # it has offered to take compressed frames
            readers.append((name, websocket))
        deaf = await stack.enter_async_context(operating(host, documents[2], "deaf"))
        deaf.transport.pause_reading()
        await asyncio.sleep(0.5)
        for offset in range(60):
            await feed.cache_only({"signals": make_rows("signals", "A", 1, offset)})
            for name, websocket in readers:
                async with asyncio.timeout(10):
                    message = json.loads(await websocket.recv())
                assert (message["id"], message["type"]) == (name, "next")
                assert message["payload"]["data"]["signals"]["offset"] == str(offset)
                assert message["payload"].keys() == {"data"}
        deaf.transport.resume_reading()
        for offset in range(60):  # the socket takes some, the rest has waited
            async with asyncio.timeout(10):
                message = json.loads(await deaf.recv())
            assert (message["id"], message["type"]) == ("deaf", "next")
            assert message["payload"]["data"]["signals"]["offset"] == str(offset)


async def test_sigterm_ends_an_idle_server(settings: Settings) -> None:
    """SIGTERM ends the process with code 0 and without a word."""
    async with running(settings) as (process, host):
        await ready(host)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
        assert await process.stderr.read() == b""


async def test_a_browser_elsewhere_cannot_subscribe(settings: Settings) -> None:
    """A page of another origin cannot open a WebSocket to this machine."""
    async with running(settings) as (_, host), httpx.AsyncClient() as client:
        headers = {
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-protocol": "graphql-transport-ws",
        }
        for origin, status in (("http://evil.example", 403), ("http://localhost:3000", 101)):
            async with client.stream(
                "GET", f"http://{host}/graphql", headers={**headers, "origin": origin}
            ) as answer:
                assert answer.status_code == status


@pytest.mark.parametrize(
    ("arguments", "values", "words"),
    [
        ([], {}, "the API needs TICKSTREAM_POSTGRES and TICKSTREAM_REDIS"),
        (["--port", "99999"], {}, "setting api.port: "),
        (["--port", "x"], {}, "setting api.port: "),
        (["--set", "nonsense"], {}, "--set takes KEY=VALUE"),
        (["--nonsense"], {}, "unrecognized arguments: --nonsense"),
        (["--host", "0.0.0.0"], {"TICKSTREAM_REDIS": "redis://x"}, "refuses to serve"),  # noqa: S104 - must be refused
        (["--host", "example.com"], {"TICKSTREAM_REDIS": "redis://x"}, "refuses to serve"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], values: dict[str, str], words: str) -> None:
    """A wrong start ends with code 2 and one line that says what to do."""
    if values:
        values = {**values, "TICKSTREAM_POSTGRES": "postgresql://x"}
    assert words in only_line(refusal(arguments, values), 2)


def test_a_taken_port_is_named() -> None:
    """A port that another process holds ends the start with code 1 and its number."""
    values = {"TICKSTREAM_POSTGRES": "postgresql://x", "TICKSTREAM_REDIS": "redis://x"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = only_line(refusal(["--port", str(port)], values), 1)
    assert line.startswith(f"error: port {port} on 127.0.0.1 cannot be had")
