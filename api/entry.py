"""What server processes begin with: their arguments, their log, and errors as one line."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import structlog
from structlog.typing import Processor

from pipeline.errors import MisuseError, TickstreamError
from pipeline.settings import Settings, load_settings


class Parser(argparse.ArgumentParser):
    """A user's mistake is one of our errors."""

    def error(self, message: str) -> NoReturn:
        """Tell it."""
        raise MisuseError(message)


def parser_of(name: str, description: str, port: str) -> Parser:
    """The arguments of a server; `port` is the help of its --port.

    The last part of its name is the group of settings that --host and --port are in.
    """
    parser = Parser(prog=name, description=description)
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--host", help="an address of this machine, default 127.0.0.1")
    parser.add_argument("--port", help=port)
    return parser


def run(
    parser: Parser,
    arguments: Sequence[str] | None,
    serve: Callable[[Settings, argparse.Namespace], None],
) -> int:
    """Serve by arguments, by default those of the process; 2 for misuse and 1 for failure."""
    try:
        found = parser.parse_args(arguments)
        group = parser.prog.rpartition(".")[2]
        given = {"host": found.host, "port": found.port}
        named = [f"{group}.{name}={text}" for name, text in given.items() if text is not None]
        settings = load_settings([*found.set, *named])
        configure_logs(settings)
        serve(settings, found)
    except TickstreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def shown(host: str) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def say(who: str, line: str) -> None:
    """A line that who starts the process waits for."""
    sys.stderr.write(f"{who}: {line}\n")
    sys.stderr.flush()


def configure_logs(settings: Settings) -> None:
    """Structured lines on stderr: for people on a terminal, or JSON."""
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if settings.log == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # Without the values of variables: a password may be among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log == "json":
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Its retries are our `topic_lost`, or nothing.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
