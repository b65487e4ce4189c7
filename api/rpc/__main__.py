"""`python -m api.rpc`: one gRPC server process."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

import uvloop

from api.backing import create_backing
from api.entry import parser_of, run
from api.guard import refuse_strangers
from api.rpc.methods import OWNED
from api.rpc.server import serving
from pipeline.settings import Settings


async def serve(settings: Settings, service: str) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    refuse_strangers(settings.rpc.host, "gRPC", auth=settings.api.auth)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    backing = create_backing(settings)
    async with backing.running(), serving(backing, service):
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 2 for misuse and 1 for failure."""
    parser = parser_of("api.rpc", "Serve gRPC.", "0 takes any free one")
    parser.add_argument("--service", choices=list(OWNED), default="all")

    def begin(settings: Settings, found: argparse.Namespace) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, found.service))

    return run(parser, arguments, begin)


if __name__ == "__main__":
    sys.exit(main())
