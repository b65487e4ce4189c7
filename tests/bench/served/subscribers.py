"""A process of many subscribers, who tell how long each signal took to reach them.

`python -m tests.bench.served.subscribers PORT COUNT SYMBOLS STALLED`, with a key in BENCH_KEY:
COUNT clients follow one symbol each in turn, or all symbols when SYMBOLS is 0; STALLED more ask for
much and never read. Then it writes `ready`, and when it is told two moments as a line, what it
found for the signals between them. A signal carries the moment of its publication as
`pUp`. Bare sockets, as a client library would be the slower part.
"""

import argparse
import asyncio
import base64
import json
import socket
import sys
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final
from uuid import uuid4

import numpy as np
import orjson
import uvloop

from pipeline.clock import monotonic
from pipeline.settings import child_environment

KEY: Final = base64.b64encode(bytes(16)).decode()
UPGRADE: Final = (
    "GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
WANTED: Final = "symbol ts action pUp"
_MANY: Final = " ".join(f"a{n}: pUp b{n}: ts" for n in range(150))
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
PING: Final = bytes((_PING, 4))  # with four bytes, as the server sends them
_SHORT, _MEDIUM = 125, 126
_AT_ONCE: Final = 50  # clients that are let in side by side
_SMALL: Final = 4096  # bytes that a client who does not read takes in


def framed(message: Any) -> bytes:
    """A message as a client sends it: masked, here by nothing."""
    text = orjson.dumps(message)
    head = bytes([_TEXT])
    if len(text) <= _SHORT:
        return head + bytes([0x80 | len(text)]) + bytes(4) + text
    return head + bytes([0x80 | _MEDIUM]) + len(text).to_bytes(2, "big") + bytes(4) + text


class Client(asyncio.Protocol):
    """One subscriber; what comes is only kept, and read at the end: others wait for the core."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.acknowledged: asyncio.Future[None] = loop.create_future()
        self._left = b""
        self._kept = bytearray()
        self._moments = array("d")  # when it came, and how much there was then

    def connection_made(self, transport: Any) -> None:
        """Keep what answers pings."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self.acknowledged.done():
            now = monotonic()
            self._kept += data
            self._moments.extend((now, len(self._kept)))
            at = data.find(PING)  # no text has such bytes
            if at >= 0:
                begin = at + len(PING)
                mask = bytes([_PONG, 0x80 | PING[1]]) + bytes(4)
                self._transport.write(mask + data[begin : begin + PING[1]])
            return
        self._left += data
        if not self.opened.done():
            head, found, self._left = self._left.partition(b"\r\n\r\n")
            if b" 101 " not in head or not found:
                raise SystemExit(f"no socket: {head!r}")
            self.opened.set_result(None)
        for _, text in frames(self._left):
            if orjson.loads(text) != {"type": "connection_ack"}:
                raise SystemExit(f"not let in: {text!r}")
            self.acknowledged.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        """The server has cut it."""
        if not self.ended.done():
            self.ended.set_result(None)

    def pairs(self) -> Iterator[float]:
        """When each signal was published, and when it had come."""
        came = iter(self._moments)
        now, size = next(came, 0.0), next(came, 0.0)
        for end, text in frames(bytes(self._kept)):
            while size < end:
                now, size = next(came), next(came)
            message = orjson.loads(text)
            if message["type"] != "next":
                raise SystemExit(f"not a signal: {message}")
            yield message["payload"]["data"]["signals"]["pUp"]
            yield now


class Deaf(Client):
    """One who takes in nothing; what is left for it at the end only tells that it was cut."""

    def data_received(self, data: bytes) -> None:
        """Up to the acknowledgement as the others do."""
        if not self.acknowledged.done():
            super().data_received(data)


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The texts of whole frames, and where each ends."""
    at = 0
    while len(data) - at >= len(PING):
        kind, size = data[at], data[at + 1]
        at += 2
        if size > _SHORT:
            width = 2 if size == _MEDIUM else 8
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        at += size
        if at > len(data):
            return
        if kind == _TEXT:
            yield at, data[at - size : at]
        elif kind not in {_PING, _CLOSE}:
            raise SystemExit(f"not expected: {kind:#x}")


async def subscribe(port: int, key: str, query: str, symbols: list[str] | None) -> Any:
    """A client that has asked; returns its transport and itself."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(Client, "127.0.0.1", port)
    transport.write(UPGRADE.encode())
    await client.opened
    transport.write(
        framed({"type": "connection_init", "payload": {"authorization": f"Bearer {key}"}})
    )
    await client.acknowledged
    payload = {"query": query, "variables": {"s": symbols}}
    # An id of its own, as client libraries make them.
    transport.write(framed({"id": str(uuid4()), "type": "subscribe", "payload": payload}))
    return transport, client


async def stalled(port: int, key: str) -> Any:
    """A client that asks for much of every symbol and reads nothing more."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    sock.connect(("127.0.0.1", port))
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(Deaf, sock=sock)
    transport.write(UPGRADE.encode())
    await client.opened
    transport.write(
        framed({"type": "connection_init", "payload": {"authorization": f"Bearer {key}"}})
    )
    await client.acknowledged
    query = f"subscription {{ signals {{ {_MANY} }} }}"
    transport.pause_reading()
    transport.write(framed({"id": "1", "type": "subscribe", "payload": {"query": query}}))
    return transport, client


async def _run(asked: argparse.Namespace, key: str) -> dict[str, Any]:
    query = f"subscription($s: [String!]) {{ signals(symbols: $s) {{ {WANTED} }} }}"
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Any:
        wanted = [f"S{number % asked.symbols}"] if asked.symbols else None
        async with limit:
            return await subscribe(asked.port, key, query, wanted)

    clients = await asyncio.gather(*map(one, range(asked.count)))
    slow = [await stalled(asked.port, key) for _ in range(asked.stalled)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    begin, end = map(float, line.split())
    seen = array("d", chain.from_iterable(client.pairs() for _, client in clients))
    pairs = np.frombuffer(seen, dtype="f8").reshape(-1, 2)
    pairs = pairs[(pairs[:, 0] >= begin) & (pairs[:, 0] < end)]
    times = (pairs[:, 1] - pairs[:, 0]) * 1e3
    p50, p99 = np.percentile(times, (50, 99)).tolist() if len(times) else (0.0, 0.0)
    for transport, _ in slow:
        transport.resume_reading()  # what is left, then the end of the stream
    await asyncio.sleep(1)
    return {
        "count": len(times),
        "p50": p50,
        "p99": p99,
        "worst": float(times.max(initial=0.0)),
        "lost": sum(client.ended.done() for _, client in clients),
        "cut": sum(client.ended.done() for _, client in slow),
    }


def main() -> None:
    """Run and write one JSON document behind the line `ready`."""
    parser = argparse.ArgumentParser()
    for name in ("port", "count", "symbols", "stalled"):
        parser.add_argument(name, type=int)
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_run(asked, child_environment({})["BENCH_KEY"]))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
