"""What looks after our processes: a kill from outside is mended, a crash loop is one clear line."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.cli.guarding import Guard, View
from pipeline.cli.main import _Group
from pipeline.errors import MisuseError, TickstreamError, UnavailableError
from pipeline.servers import services
from pipeline.servers.services import Service
from pipeline.servers.watchdog import Observation
from tests.acceptance.commands import environment, wait_until

KILLS = 10
SLEEPER = "import time; time.sleep(300)\n"
CRASHER = "import sys; sys.exit('Exception: broken for good')\n"
# Alive, at nothing, and deaf to SIGTERM.
STUCK = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
"""

pytestmark = pytest.mark.timeout(120)


def _service(home: Path, text: str, say: Callable[[str], None] = lambda _: None) -> Service:
    """A service whose module has this text."""
    home.mkdir(exist_ok=True)
    (home / "toy.py").write_text(text, encoding="utf-8")
    values = {**environment(), "PYTHONPATH": str(home)}
    return Service("toy", "toy", (), values, home, say=say, grace=0.5)


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


def test_ten_kills_are_mended(sleeper: Service) -> None:
    """Ten times kill -9 in a row, each time as soon as it runs: always started again."""
    for _ in range(KILLS):
        pid = sleeper.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: sleeper.pid is None, 60, "its death")
        wait_until(lambda: _watched(sleeper), 60, "its return")
    assert sleeper.restarts == KILLS


def test_a_crash_loop_is_given_up(tmp_path: Path) -> None:
    """A process that ends by itself again and again: the error says which, why, and its log."""
    service = _service(tmp_path / "home", CRASHER)
    service.start()
    with pytest.raises(
        TickstreamError, match=r"toy ended with code 1: .*broken for good.*toy\.log"
    ):
        wait_until(lambda: _watched(service) and False, 60, "the end of patience")


@dataclass(slots=True)
class Outside:
    """What the watchdog is told: seven messages wait on partition 2; ten seconds pass a look."""

    at: float = 0.0
    mark: int = 9
    end: int = 17
    away: bool = False
    waiting: bool = True
    owner: str = "toy"

    async def observe(self) -> Observation:
        """The next look."""
        if self.away:
            raise UnavailableError("Kafka does not answer")
        self.at += 10
        return Observation(self.at, {1: (0, 5), 2: (0, self.end)}, {1: 4, 2: self.mark}, {})

    async def owners(self) -> dict[int, str]:
        """Who holds the partitions."""
        return {2: self.owner}

    async def waits(self, _seen: Observation) -> bool:
        """Whether a message is there, and not only markers."""
        return self.waiting

    def view(self) -> View:
        """For the guard."""
        return View(self.observe, self.owners, self.waits)


def _at_work(service: Service, start: int) -> bool:
    """Whether its process number `start` is deaf by now."""
    return _watched(service) and service.log.read_text().count("deaf") == start


async def test_a_stuck_worker_is_restarted_until_that_is_no_use(tmp_path: Path) -> None:
    """SIGTERM, SIGKILL, restart; one line each; and after the sixth a diagnosis."""
    said: list[str] = []
    service = _service(tmp_path / "home", STUCK, said.append)
    guard = Guard([service], Outside().view(), 60)
    service.start()
    pids = set()
    try:
        for number, seconds in enumerate((60, 120, 240, 240, 240, 240), 1):
            wait_until(partial(_at_work, service, number), 20, "its start")
            assert service.restarts == number - 1
            pids.add(service.pid)
            for _ in range(seconds // 10):
                await guard.look()
            assert len(said) == number - 1  # not a second too early
            await guard.look()
            assert said[-1] == (
                "toy is stuck: partition 2 has a lag of 7 messages and no progress for "
                f"{seconds} s; restarting it"
            )
            await guard.look()  # an order is given once
            assert len(said) == number
        with pytest.raises(
            TickstreamError,
            match=r"^toy is stuck: partition 2 .*toy\.log\); 6 restarts in a row did not help",
        ):
            wait_until(lambda: _watched(service) and False, 20, "the end of patience")
    finally:
        service.stop()
    assert len(pids) == 6


async def test_a_worker_is_left_alone_for_what_is_not_its_fault(tmp_path: Path) -> None:
    """Progress, servers away, another's partition, markers without a message: no restart."""
    said: list[str] = []
    service = _service(tmp_path / "home", SLEEPER, said.append)
    outside = Outside()
    guard = Guard([service], outside.view(), 60)
    service.start()

    async def looks(count: int) -> str:
        for _ in range(count):
            await guard.look()
        return guard.states()["toy"]

    try:
        assert await looks(1) == "starting"
        assert await looks(5) == "no progress for 50 s"
        outside.away = True
        await looks(100)
        outside.away, outside.mark = False, 10
        assert await looks(1) == "ready"
        assert await looks(5) == "no progress for 50 s"
        outside.owner = "worker-2"
        assert await looks(100) == "ready"
        outside.owner, outside.waiting = "toy", False
        await looks(100)
        assert await looks(1) == "ready"
        outside.waiting, outside.end = True, outside.end + 1
        await looks(6)
        assert not said
        await looks(1)
        assert len(said) == 1
    finally:
        service.stop()
    assert guard.states() == {"toy": "down"}


def test_kills_that_repeat_get_a_pause_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again, as on a machine without memory: never given up, but ever slower."""
    said: list[str] = []
    counted = tmp_path / "vmstat"
    counted.write_text("nr_free_pages 7\noom_kill 3\n", encoding="ascii")
    monkeypatch.setattr(services, "_VMSTAT", counted)
    service = _service(tmp_path / "home", SLEEPER, said.append)
    service.start()
    try:
        for _ in range(4):
            assert service.pid is not None
            os.kill(service.pid, signal.SIGKILL)
            wait_until(lambda: service.pid is None, 10, "its death")
            wait_until(lambda: _watched(service), 10, "its return")
        counted.write_text("oom_kill 4\n", encoding="ascii")
        assert service.pid is not None
        os.kill(service.pid, signal.SIGKILL)
        wait_until(lambda: service.pid is None, 10, "its death")
        service.watch()
    finally:
        service.stop()
    assert said[0] == (
        "toy was killed by SIGKILL from outside (kill -9, or see dmesg); restarting it in 0.2 s"
    )
    pauses = [float(line.split()[-2]) for line in said]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1]
    assert "killed 5 times in a row as the kernel ran out of memory" in said[-1]


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
