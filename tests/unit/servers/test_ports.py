"""Ports of the embedded servers."""

import socket
from pathlib import Path

import pytest

from pipeline.errors import MisuseError, UnavailableError
from pipeline.servers import ports


def test_port_is_remembered(tmp_path: Path) -> None:
    """The second claim on the same record gives the same port."""
    first = ports.claim("kafka", tmp_path / "port")
    assert ports.LOWEST <= first < ports.HIGHEST
    assert ports.claim("kafka", tmp_path / "port") == first


def test_taken_recorded_port_is_replaced(tmp_path: Path) -> None:
    """A recorded port that somebody else took gives way to another."""
    first = ports.claim("kafka", tmp_path / "port")
    with socket.create_server((ports.HOST, first)):
        assert ports.claim("kafka", tmp_path / "port") != first


@pytest.mark.parametrize("text", ["", "x", "0", "99999", "-5"])
def test_damaged_record_is_replaced(tmp_path: Path, text: str) -> None:
    """A record that is no port is as good as none."""
    (tmp_path / "port").write_text(text)
    assert ports.LOWEST <= ports.claim("kafka", tmp_path / "port") < ports.HIGHEST


def test_asked_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """A fixed port that is taken fails with one line that names it."""
    with socket.create_server((ports.HOST, 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"port {taken} for redis is taken") as caught:
            ports.claim("redis", tmp_path / "port", asked=taken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_asked_port_out_of_range_is_misuse(tmp_path: Path, port: int) -> None:
    """A number that is no port is the caller's mistake."""
    with pytest.raises(MisuseError, match="is not a port"):
        ports.claim("redis", tmp_path / "port", asked=port)
