"""`python -m api`: one server process."""

import argparse
import gc
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog
import uvicorn
from structlog.typing import Processor

from api.app import PATH, create_app
from api.frames import FramedProtocol
from api.guard import is_loopback
from pipeline.errors import MisuseError, TickstreamError, UnavailableError
from pipeline.settings import Settings, load_settings

_GRACE: Final = 5  # seconds for requests under way at the end
_WS_MAX: Final = 256 * 1024  # bytes of one message of a client


class Parser(argparse.ArgumentParser):
    """A user's mistake is one of our errors."""

    def error(self, message: str) -> NoReturn:
        """Tell it."""
        raise MisuseError(message)


def read_arguments(arguments: Sequence[str]) -> Settings:
    """The settings of this run.

    Raises:
        MisuseError: an argument is unknown or does not fit.
    """
    parser = Parser(prog="api", description="Serve the GraphQL API.")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--host", help="an address of this machine, default 127.0.0.1")
    parser.add_argument("--port", help="default 8000; 0 takes any free one")
    found = parser.parse_args(arguments)
    assignments = list(found.set)
    assignments += [f"api.host={found.host}"] if found.host is not None else []
    assignments += [f"api.port={found.port}"] if found.port is not None else []
    return load_settings(assignments)


def bind(host: str, port: int, *, auth: bool) -> socket.socket:
    """The listening socket.

    Raises:
        MisuseError: others could reach it, and nobody would ask them for a key.
        UnavailableError: the port is taken.
    """
    if not auth and not is_loopback(host):
        raise MisuseError(
            f"refuses to serve on {host} whoever comes: demand keys by --set api.auth=true"
            " (`tickstream keys create` makes them), or use --host 127.0.0.1"
        )
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, number)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnavailableError(
            f"port {port} on {host} cannot be had ({reason}): free it, or choose another by --port"
        ) from error
    return sock


class Server(uvicorn.Server):
    """Says where it serves once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve."""
        await super().startup(sockets)
        # What lives as long as the server is not looked through again: the schema and the modules
        # are most of all objects, and a collection of all of them holds up every request for .2 s.
        gc.collect()
        gc.freeze()
        if sockets and not self.should_exit:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            _say(f"serving http://{shown}:{port}{PATH}")


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    configure_logs(settings)
    app = create_app(settings)
    if settings.rpc.fused:
        # A port that is taken is told in a line now; grpc takes it when the loop runs.
        bind(settings.rpc.host, settings.rpc.port, auth=settings.api.auth).close()
    sock = bind(settings.api.host, settings.api.port, auth=settings.api.auth)
    config = uvicorn.Config(
        app,
        ws=FramedProtocol,
        ws_per_message_deflate=False,
        ws_max_size=_WS_MAX,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on what a client says of itself
        timeout_graceful_shutdown=_GRACE,
    )
    # uvicorn raises the signal again when it is done; by then there is nothing left to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with sock:
        Server(config).run(sockets=[sock])


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 2 for misuse and 1 for failure."""
    try:
        serve(read_arguments(sys.argv[1:] if arguments is None else arguments))
    except TickstreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"api: {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
