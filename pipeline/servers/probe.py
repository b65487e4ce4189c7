"""Does a server answer? The smallest real exchange of each protocol, on bare sockets."""

import socket
import struct
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.errors import MisuseError, UnavailableError

SHORT = 1.0
PATIENCE = 3.0


def kafka_answers(host: str, port: int) -> bool:
    """Whether a broker lists itself in its Metadata response, so is registered and unfenced."""
    client = b"tickstream"
    body = struct.pack(">hhih", 3, 4, 1, len(client)) + client + struct.pack(">ib", 0, 0)
    try:
        with socket.create_connection((host, port), SHORT) as link:
            link.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", _exactly(link, 4))
            answer = _exactly(link, size)
    except OSError:
        return False
    correlation_throttle_brokers = struct.Struct(">iii")
    if len(answer) < correlation_throttle_brokers.size:
        return False
    return bool(correlation_throttle_brokers.unpack_from(answer)[2] > 0)


def postgres_answers(path: str, *, user: str, database: str) -> bool:
    """Whether a session opens on this unix socket; False while the server recovers."""
    body = struct.pack(">i", 196608)
    for word in ("user", user, "database", database, ""):
        body += word.encode() + b"\0"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(SHORT)
            link.connect(path)
            link.sendall(struct.pack(">i", len(body) + 4) + body)
            accepted = _exactly(link, 1) == b"R"
            if accepted:
                link.sendall(b"X\0\0\0\x04")
            return accepted
    except OSError:
        return False


def valkey_answers(host: str, port: int) -> bool:
    """Whether PING is answered by PONG."""
    try:
        with socket.create_connection((host, port), SHORT) as link:
            link.sendall(b"*1\r\n$4\r\nPING\r\n")
            return _exactly(link, 5) == b"+PONG"
    except OSError:
        return False


def check_kafka(bootstrap: str, variable: str = "TICKSTREAM_KAFKA") -> None:
    """Raise unless one of the brokers `host:port,host:port` accepts a connection."""
    hosts = []
    for entry in bootstrap.split(","):
        name, colon, port = entry.strip().removeprefix("kafka://").rpartition(":")
        if not colon or not port.isdigit():
            raise MisuseError(f"{variable}={bootstrap} is not host:port[,host:port]")
        hosts.append((name.strip("[]"), int(port)))
    reasons = [refusal(host) for host in hosts]
    if all(reasons):
        raise _unreachable("Kafka", variable, bootstrap, str(reasons[0]))


def check_postgres(dsn: str, variable: str = "TICKSTREAM_POSTGRES") -> None:
    """Raise unless the server of a postgresql:// address accepts a connection."""
    parts = urlsplit(dsn)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise MisuseError(f"{variable} is not an address like postgresql://user@host:5432/name")
    query = parse_qs(parts.query)
    # Not parts.hostname: that is in lower case and knows a single host.
    entries = query.get("host", [parts.netloc.rpartition("@")[2]])[0].split(",")
    defaults = query.get("port", ["5432"])[0].split(",")
    reasons = []
    for number, entry in enumerate(entries):
        host, colon, port = unquote(entry).rpartition(":")
        if not colon or not port.isdigit() or host.count("[") != host.count("]"):
            host, port = unquote(entry), defaults[min(number, len(defaults) - 1)]
        if not port.isdigit():
            raise MisuseError(f"{variable} has a port that is not a number")
        where: tuple[str, int] | str = (host.strip("[]") or "localhost", int(port))
        if host.startswith("/"):
            where = f"{host}/.s.PGSQL.{port}"
        reason = refusal(where)
        if reason is None:
            return
        # Never the whole address: it may hold a password.
        reasons.append((where if isinstance(where, str) else f"{where[0]}:{port}", reason))
    raise _unreachable("PostgreSQL", variable, *reasons[0])


def check_redis(url: str, variable: str = "TICKSTREAM_REDIS") -> None:
    """Raise unless the server of a redis:// or unix:// address accepts a connection."""
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "valkey", "unix"}:
        raise MisuseError(f"{variable} is not an address like redis://host:6379/0")
    try:
        where: tuple[str, int] | str = (parts.hostname or "localhost", parts.port or 6379)
    except ValueError:
        raise MisuseError(f"{variable} has a port that is not a number") from None
    if parts.scheme == "unix":
        where = parts.path
    reason = refusal(where)
    if reason:
        shown = where if isinstance(where, str) else f"{where[0]}:{where[1]}"
        raise _unreachable("Redis", variable, shown, reason)


def refusal(where: tuple[str, int] | str) -> str | None:
    """Why a connection fails, None if it does not."""
    try:
        if isinstance(where, str):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.settimeout(PATIENCE)
                link.connect(where)
        else:
            socket.create_connection(where, PATIENCE).close()
    except (OSError, UnicodeError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _unreachable(server: str, variable: str, address: str, reason: str) -> UnavailableError:
    return UnavailableError(
        f"{server} at {address} ({variable}) does not answer: {reason}; "
        f"start it, or unset {variable} to use the embedded server"
    )


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data
