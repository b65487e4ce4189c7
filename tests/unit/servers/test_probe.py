"""Reachability of servers that the user named."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import MisuseError, UnavailableError
from pipeline.servers import ports, probe


@pytest.fixture
def listening() -> Iterator[int]:
    """A port on which somebody listens during the test."""
    with socket.create_server((ports.HOST, 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("check", "shape"),
    [
        (probe.check_kafka, "127.0.0.1:{}"),
        (probe.check_kafka, "127.0.0.1:1,127.0.0.1:{}"),
        (probe.check_postgres, "postgresql://u:p@127.0.0.1:{}/db"),
        (probe.check_postgres, "postgresql://u@/db?host=127.0.0.1&port={}"),
        (probe.check_postgres, "postgresql://u@127.0.0.1:1,127.0.0.1:{}/db"),
        (probe.check_redis, "redis://:secret@127.0.0.1:{}/0"),
    ],
)
def test_listening_server_passes(check: Callable[[str], None], shape: str, listening: int) -> None:
    """An address on which somebody listens raises nothing."""
    check(shape.format(listening))


@pytest.mark.parametrize(
    ("check", "address", "words"),
    [
        (probe.check_kafka, "127.0.0.1:1", ("TICKSTREAM_KAFKA", "127.0.0.1:1", "refused")),
        (
            probe.check_postgres,
            "postgresql://u:hush@127.0.0.1:1/db",
            ("TICKSTREAM_POSTGRES", "127.0.0.1:1", "refused"),
        ),
        (
            probe.check_postgres,
            "postgresql://u@/db?host=/nowhere/At/All",
            ("TICKSTREAM_POSTGRES", "/nowhere/At/All/.s.PGSQL.5432"),
        ),
        (
            probe.check_redis,
            "redis://:hush@127.0.0.1:1/0",
            ("TICKSTREAM_REDIS", "127.0.0.1:1", "refused"),
        ),
    ],
)
def test_silent_server_is_named_in_one_line(
    check: Callable[[str], None], address: str, words: tuple[str, ...]
) -> None:
    """The error names variable, address and reason in one line, and no password."""
    with pytest.raises(UnavailableError) as caught:
        check(address)
    text = str(caught.value)
    assert all(word in text for word in words)
    assert "hush" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("check", "address"),
    [
        (probe.check_kafka, "localhost"),
        (probe.check_kafka, "localhost:port"),
        (probe.check_postgres, "mysql://localhost/db"),
        (probe.check_postgres, "postgresql://u@/db?host=h&port=x"),
        (probe.check_redis, "localhost:6379"),
        (probe.check_redis, "redis://localhost:port"),
    ],
)
def test_address_of_the_wrong_shape_is_misuse(check: Callable[[str], None], address: str) -> None:
    """An address that cannot be read is the caller's mistake."""
    with pytest.raises(MisuseError, match="TICKSTREAM_"):
        check(address)


def test_protocol_probes_say_no_to_a_stranger(listening: int, tmp_path: Path) -> None:
    """A port on which something mute listens is not a server that answers."""
    assert not probe.valkey_answers(ports.HOST, listening)
    assert not probe.kafka_answers(ports.HOST, listening)
    assert not probe.postgres_answers(str(tmp_path / "none"), user="u", database="d")
