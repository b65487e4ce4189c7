"""What looks after our processes: a kill from outside is mended, a crash loop is one clear line."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.cli.main import _Group
from pipeline.errors import MisuseError, TickstreamError
from pipeline.servers.services import Service
from tests.acceptance.commands import environment, wait_until

KILLS = 10
SLEEPER = "import time; time.sleep(300)\n"
CRASHER = "import sys; sys.exit('Exception: broken for good')\n"

pytestmark = pytest.mark.timeout(120)


def _service(home: Path, text: str) -> Service:
    """A service whose module has this text."""
    home.mkdir(exist_ok=True)
    (home / "toy.py").write_text(text, encoding="utf-8")
    return Service("toy", "toy", (), {**environment(), "PYTHONPATH": str(home)}, home)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Service]:
    """A service that runs until somebody ends it."""
    service = _service(tmp_path / "home", SLEEPER)
    service.start()
    yield service
    service.stop()


def _watched(service: Service) -> bool:
    service.watch()
    return service.pid is not None


def test_ten_kills_are_mended_at_once(sleeper: Service) -> None:
    """Ten times kill -9 in a row, each time as soon as it runs: always started again, soon."""
    for _ in range(KILLS):
        pid = sleeper.pid
        assert pid is not None
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: sleeper.pid is None, 10, "its death")
        wait_until(lambda: _watched(sleeper), 10, "its return")
        assert time.monotonic() - begin < 5
    assert sleeper.restarts == KILLS


def test_a_crash_loop_is_given_up(tmp_path: Path) -> None:
    """A process that ends by itself again and again: the error says which, why, and its log."""
    service = _service(tmp_path / "home", CRASHER)
    service.start()
    with pytest.raises(
        TickstreamError, match=r"toy ended with code 1: .*broken for good.*toy\.log"
    ):
        wait_until(lambda: _watched(service) and False, 60, "the end of patience")


def test_an_error_in_a_group_of_tasks_is_one_line() -> None:
    """`demo` and `up` watch and publish side by side; the trouble of one task is still one line."""

    @click.group(cls=_Group)
    def program() -> None:
        """Take commands."""

    @program.command()
    def ours() -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [MisuseError("so it is")])])

    @program.command()
    def others() -> None:
        raise ExceptionGroup("tasks", [MisuseError("so it is"), ValueError("a fault of ours")])

    done = CliRunner().invoke(program, ["ours"])
    assert (done.exit_code, done.stderr) == (2, "error: so it is\n")
    assert isinstance(CliRunner().invoke(program, ["others"]).exception, ExceptionGroup)
