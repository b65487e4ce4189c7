"""Loopback ports for the embedded servers, the same ones again after a restart."""

import secrets
import socket
from pathlib import Path

from pipeline.errors import MisuseError, UnavailableError

HOST = "127.0.0.1"
# Below the ephemeral ranges of Linux and macOS: a client that keeps trying to reconnect to a dead
# server on an ephemeral port can be given that very port as its own and connect to itself.
LOWEST, HIGHEST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, else connections of the last life, in TIME_WAIT, would look like an owner.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def claim(name: str, record: Path, *, asked: int | None = None) -> int:
    """The port asked for, else the recorded one if it is free, else a new one; recorded.

    Args:
        name: The server, for the message.
        record: The file that remembers the port in the data directory.
        asked: A port that the user insists on.
    """
    if asked is not None:
        if not 0 < asked < 2**16:
            raise MisuseError(f"{asked} is not a port for {name}: choose 1 to 65535")
        if not is_free(asked):
            raise UnavailableError(
                f"port {asked} for {name} is taken: stop the program that listens on "
                f"{HOST}:{asked}, or choose another port"
            )
        port = asked
    else:
        port = _recorded(record) or _fresh(name)
    record.write_text(f"{port}\n", encoding="ascii")
    return port


def _recorded(record: Path) -> int | None:
    try:
        port = int(record.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    return port if 0 < port < 2**16 and is_free(port) else None


def _fresh(name: str) -> int:
    for _ in range(200):
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        if is_free(port):
            return port
    raise UnavailableError(f"no free port for {name} from {LOWEST} to {HIGHEST} on {HOST}")
