"""`python -m api.rpc`: one gRPC server process."""

import asyncio
import signal
import sys
from collections.abc import Sequence

import uvloop

from api.__main__ import Parser, configure_logs
from api.backing import create_backing
from api.rpc.methods import OWNED
from api.rpc.server import refuse_strangers, serving
from pipeline.errors import TickstreamError
from pipeline.settings import Settings, load_settings


def read_arguments(arguments: Sequence[str]) -> tuple[Settings, str]:
    """The settings of this run, and the service that it is part of.

    Raises:
        MisuseError: an argument is unknown or does not fit.
    """
    parser = Parser(prog="api.rpc", description="Serve gRPC.")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--service", choices=list(OWNED), default="all")
    parser.add_argument("--host")
    parser.add_argument("--port")
    found = parser.parse_args(arguments)
    assignments = list(found.set)
    assignments += [f"rpc.host={found.host}"] if found.host is not None else []
    assignments += [f"rpc.port={found.port}"] if found.port is not None else []
    return load_settings(assignments), found.service


async def serve(settings: Settings, service: str) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    refuse_strangers(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    backing = create_backing(settings)
    async with backing.running(), serving(backing, service):
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 2 for misuse and 1 for failure."""
    try:
        settings, service = read_arguments(sys.argv[1:] if arguments is None else arguments)
        configure_logs(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, service))
    except TickstreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
