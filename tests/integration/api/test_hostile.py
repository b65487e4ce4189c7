"""Clients that mean harm, at a real server: bodies of megabytes, sockets that say nothing."""

import asyncio
import base64
import os
import struct

import httpx
import psutil

from pipeline.settings import Settings
from tests.integration.api.test_process import ready, running

JSON = {"content-type": "application/json"}


async def test_megabytes_are_not_taken(settings: Settings) -> None:
    """A body of 10 MB is refused before it has all come, in one or in chunks; memory stays."""
    async with running(settings) as (process, host):
        await ready(host)
        server = psutil.Process(process.pid)
        before = server.memory_info().rss
        body = b'{"query": "' + b"x" * 10_000_000 + b'"}'

        async def chunks() -> object:
            for start in range(0, len(body), 65_536):
                yield body[start : start + 65_536]

        for content in (body, chunks()):
            async with httpx.AsyncClient(base_url=f"http://{host}") as client:
                try:
                    answer = await client.post("/graphql", content=content, headers=JSON)  # type: ignore[arg-type]  # both are taken
                    assert answer.status_code == 413
                except httpx.WriteError:
                    pass  # cut while it was still sending
        assert server.memory_info().rss - before < 8_000_000
        assert (await status(host)) == 200


async def status(host: str) -> int:
    """Of a small query."""
    async with httpx.AsyncClient(base_url=f"http://{host}") as client:
        return (await client.post("/graphql", json={"query": "{ __typename }"})).status_code


async def opened(host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw socket after its handshake."""
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        "GET /graphql HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Protocol: graphql-transport-ws",
        "",
        "",
    )
    writer.write("\r\n".join(lines).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return reader, writer


def text_frame(text: bytes, *, fin: bool = True, first: bool = True) -> bytes:
    """A masked frame of RFC 6455 (5.2), the mask all zero."""
    head = (0x80 if fin else 0) | (1 if first else 0)
    return bytes([head, 0x80 | len(text)]) + bytes(4) + text


async def test_a_slow_hello_is_cut(settings: Settings) -> None:
    """Without a whole connection_init the socket is closed with 4408, whatever else is sent.

    A client that does not answer the close is cut off soon after it.
    """
    async with running(settings) as (_, host):
        await ready(host)
        async with asyncio.TaskGroup() as group:
            for manner in ("silent", "pings", "drips"):
                group.create_task(dawdle(host, manner), name=manner)
        assert (await status(host)) == 200


async def dawdle(host: str, manner: str) -> None:
    """Open a socket, send anything but a hello, and be cut off."""
    reader, writer = await opened(host)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def send() -> None:
        place = 0
        while manner != "silent":
            await asyncio.sleep(0.3)
            if manner == "pings":
                writer.write(text_frame(b'{"type":"ping"}'))
            else:
                writer.write(text_frame(b" ", fin=False, first=place == 0))
            place += 1

    task = asyncio.create_task(send())
    async with asyncio.timeout(30):
        await reader.readuntil(b"\x88")  # the opcode of a close
    length = (await reader.readexactly(1))[0]
    close = await reader.readexactly(length)
    assert struct.unpack(">H", close[:2])[0] == 4408, manner
    assert loop.time() - began > 4.5, manner
    task.cancel()
    async with asyncio.timeout(30):
        rest = await reader.read()  # to the end: the server hangs up
    assert rest == b"", manner
    writer.close()


async def test_messages_of_megabytes_are_not_taken(settings: Settings) -> None:
    """A message beyond 256 KB ends the connection with 1009."""
    async with running(settings) as (_, host):
        await ready(host)
        reader, writer = await opened(host)
        writer.write(bytes([0x81, 0xFF]) + struct.pack(">Q", 10_000_000) + bytes(4) + b" " * 1000)
        async with asyncio.timeout(30):
            await reader.readuntil(b"\x88")
        length = (await reader.readexactly(1))[0]
        assert struct.unpack(">H", (await reader.readexactly(length))[:2])[0] == 1009
        writer.close()
