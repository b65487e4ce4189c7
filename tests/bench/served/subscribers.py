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
from typing import Any, Final

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
_SHORT, _MEDIUM, _LONG = 125, 126, 127
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
    """One subscriber."""

    def __init__(self, seen: "array[float]") -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seen = seen
        self._left = b""
        self._upgraded = False

    def connection_made(self, transport: Any) -> None:
        """Keep what answers pings."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        now = monotonic()
        self._left += data
        if not self._upgraded:
            head, found, rest = self._left.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head:
                raise SystemExit(f"no socket: {head!r}")
            self._upgraded, self._left = True, rest
            self.opened.set_result(None)
        for text in self._texts():
            message = orjson.loads(text)
            if message["type"] == "next":
                self._seen.append(message["payload"]["data"]["signals"]["pUp"])
                self._seen.append(now)
            elif message["type"] == "connection_ack":
                self.acknowledged.set_result(None)
            else:
                raise SystemExit(f"not a signal: {message}")

    def connection_lost(self, _error: Exception | None) -> None:
        """The server has cut it."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _texts(self) -> Iterator[bytes]:
        while len(self._left) >= 2:
            size, begin = self._left[1], 2
            if size in {_MEDIUM, _LONG}:
                begin += 2 if size == _MEDIUM else 8
                size = int.from_bytes(self._left[2:begin], "big")
            if len(self._left) < begin + size:
                return
            text, kind = self._left[begin : begin + size], self._left[0]
            self._left = self._left[begin + size :]
            if kind == _PING:
                self._transport.write(bytes([_PONG, 0x80 | size]) + bytes(4) + text)
            elif kind == _TEXT:
                yield text
            elif not (kind == _CLOSE and self.acknowledged.done()):
                raise SystemExit(f"not expected: {kind:#x} {text!r}")


class Deaf(Client):
    """One who takes in nothing; what is left for it at the end only tells that it was cut."""

    def data_received(self, data: bytes) -> None:
        """Up to the acknowledgement as the others do."""
        if not self.acknowledged.done():
            super().data_received(data)


async def subscribe(port: int, key: str, query: str, symbols: list[str] | None, seen: Any) -> Any:
    """A client that has asked; returns its transport and itself."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(lambda: Client(seen), "127.0.0.1", port)
    transport.write(UPGRADE.encode())
    await client.opened
    transport.write(
        framed({"type": "connection_init", "payload": {"authorization": f"Bearer {key}"}})
    )
    await client.acknowledged
    payload = {"query": query, "variables": {"s": symbols}}
    transport.write(framed({"id": "1", "type": "subscribe", "payload": payload}))
    return transport, client


async def stalled(port: int, key: str) -> Any:
    """A client that asks for much of every symbol and reads nothing more."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    sock.connect(("127.0.0.1", port))
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(lambda: Deaf(array("d")), sock=sock)
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
    seen = array("d")
    query = f"subscription($s: [String!]) {{ signals(symbols: $s) {{ {WANTED} }} }}"
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Any:
        wanted = [f"S{number % asked.symbols}"] if asked.symbols else None
        async with limit:
            return await subscribe(asked.port, key, query, wanted, seen)

    clients = await asyncio.gather(*map(one, range(asked.count)))
    slow = [await stalled(asked.port, key) for _ in range(asked.stalled)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    begin, end = map(float, line.split())
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
