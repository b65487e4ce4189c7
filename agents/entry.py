"""How a process of this room begins, hears that it is to stop, and tells a user's mistake."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from pipeline.errors import TickstreamError
from pipeline.settings import Settings, load_settings
from pipeline.telemetry.logs import configure_logging

Work = Callable[[Settings, Sequence[str]], Coroutine[Any, Any, None]]


def run(prog: str, work: Work) -> None:
    """Parse the arguments and work by the settings, and by the assignments that they came from.

    A user's mistake is one line, never a traceback.
    """
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.sets)
        configure_logging(settings.log)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(settings, arguments.sets))
    except TickstreamError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def stop_by_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
