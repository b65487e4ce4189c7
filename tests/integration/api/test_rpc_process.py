"""gRPC as a user starts it: by its command, beside GraphQL, and every refusal."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from pipeline.settings import Settings
from schemas.proto import tickstream_pb2 as pb
from tests.acceptance.commands import TICKSTREAM, free_port, only_line
from tests.acceptance.forked import tickstream
from tests.fixtures.preloaded import refusal
from tests.integration.api.conftest import Feed, make_rows
from tests.integration.api.test_access import naming
from tests.integration.api.test_process import environment
from tests.integration.api.test_rpc import health_becomes, stub_of


@asynccontextmanager
async def started(settings: Settings, *command: str) -> AsyncIterator[tuple[Any, str]]:
    """A process and where it serves gRPC."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(settings), stdout=pipe, stderr=pipe
    )
    assert process.stderr is not None
    try:
        lines = [""]
        while not lines[-1].startswith("rpc: serving "):
            lines.append((await process.stderr.readline()).decode())
            assert lines[-1], lines
        yield process, lines[-1].split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    "command",
    [
        (TICKSTREAM, "rpc", "--port", "0"),
        (sys.executable, "-m", "api", "--port", "0", "--set", "rpc.fused=true", "rpc.port=0"),
    ],
    ids=["alone", "fused"],
)
async def test_it_serves_until_it_is_told_to_stop(
    settings: Settings, feed: Feed, command: tuple[str, ...]
) -> None:
    """A row that was cached before is answered, one that comes is told; it ends by SIGTERM."""
    await feed.put({"signals": make_rows("signals", "A", 1)}, ["A"])
    async with (
        started(settings, *command) as (process, place),
        grpc.aio.insecure_channel(place) as channel,
    ):
        assert await health_becomes(channel, "SERVING")
        stub = stub_of(channel)
        found = await stub.GetLatest(pb.GetLatestRequest(symbols=["A"]))
        assert found.symbols[0].signal.price == 0.5
        stream = stub.Follow(pb.FollowRequest(stage=pb.STAGE_SIGNALS))
        reading = asyncio.create_task(stream.read())
        offset = 0
        while not reading.done():
            offset += 1
            await feed.put({"signals": make_rows("signals", "A", 1, offset)}, ["A"])
            await asyncio.sleep(0.05)
        assert (await reading).row.signal.symbol == "A"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


def test_refusals_are_one_line(settings: Settings) -> None:
    """Strangers without keys, a port that is taken, servers that are not named."""
    values = naming(settings)
    done = tickstream("rpc", "--host", "0.0.0.0", values=values)  # noqa: S104
    assert "refuses to serve gRPC on 0.0.0.0" in only_line(done, 2)
    done = tickstream("rpc", "--data-dir", "/nowhere")
    assert "TICKSTREAM_POSTGRES" in only_line(done, 2)
    fused = ("--port", str(free_port()), "--set", "rpc.fused=true", "--set", "rpc.host=::")
    assert "refuses to serve" in only_line(refusal(fused, values), 2)


async def test_a_port_that_is_taken_is_told(settings: Settings) -> None:
    """By the command, and by the API that is to serve it, too."""
    async with started(settings, sys.executable, "-m", "api.rpc", "--port", "0") as (_, place):
        port = place.rsplit(":", 1)[1]
        values = naming(settings)
        done = await asyncio.to_thread(tickstream, "rpc", "--port", port, values=values)
        assert "cannot be had for gRPC" in done.stderr
        assert done.returncode == 1
        sets = ("--set", "rpc.fused=true", "--set", f"rpc.port={port}")
        arguments = ("--port", str(free_port()), *sets)
        done = await asyncio.to_thread(refusal, arguments, values)
        assert f"port {port} on 127.0.0.1 cannot be had" in only_line(done, 1)
