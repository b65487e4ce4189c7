"""A process that asks one question over and over and tells how long the answers took.

`python -m tests.bench.served.load PORT PATH CONNECTIONS REQUESTS < BODY`: with the headers of the
environment variable BENCH_HEADERS. Bare sockets, as a client library would be the slower part.
"""

import argparse
import asyncio
import json
import sys
from typing import Any

import numpy as np
import uvloop

from pipeline.clock import monotonic
from pipeline.settings import child_environment


async def _client(port: int, request: bytes, count: int, found: list[float]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b""
    for _ in range(count):
        began = monotonic()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no answer: {head!r}")
        lines = head.lower().split(b"\r\n")
        length = next(line for line in lines if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.partition(b":")[2]))
        found.append(monotonic() - began)
    writer.close()
    return body


async def _load(asked: argparse.Namespace, request: bytes) -> dict[str, Any]:
    each = asked.requests // asked.connections
    await _client(asked.port, request, 200, [])
    seconds: list[float] = []
    began = monotonic()
    bodies = await asyncio.gather(
        *(_client(asked.port, request, each, seconds) for _ in range(asked.connections))
    )
    rate = len(seconds) / (monotonic() - began)
    p50, p99 = np.percentile(np.array(seconds) * 1e3, (50, 99)).tolist()
    return {"rate": rate, "p50": p50, "p99": p99, "answer": json.loads(bodies[0])}


def main() -> None:
    """Run and write one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("connections", type=int)
    parser.add_argument("requests", type=int)
    asked = parser.parse_args()
    body = sys.stdin.buffer.read()
    headers = child_environment({}).get("BENCH_HEADERS", "")
    head = (
        f"POST {asked.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_load(asked, head.encode() + body))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
