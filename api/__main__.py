"""`python -m api`: one server process."""

import gc
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import uvicorn

from api.app import PATH, create_app
from api.entry import parser_of, run, say, shown
from api.frames import FramedProtocol
from api.guard import refuse_strangers
from pipeline.errors import UnavailableError
from pipeline.settings import Settings

_GRACE: Final = 5  # seconds for requests under way at the end
_WS_MAX: Final = 256 * 1024  # bytes of one message of a client


def bind(host: str, port: int, *, auth: bool) -> socket.socket:
    """The listening socket.

    Raises:
        MisuseError: others could reach it, and nobody would ask them for a key.
        UnavailableError: the port is taken.
    """
    refuse_strangers(host, "GraphQL", auth=auth)
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
            say("api", f"serving http://{shown(host)}:{port}{PATH}")


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 2 for misuse and 1 for failure."""
    parser = parser_of("api", "Serve the GraphQL API.", "default 8000; 0 takes any free one")
    return run(parser, arguments, lambda settings, _: serve(settings))


if __name__ == "__main__":
    sys.exit(main())
