"""A child process that dies with its parent, whatever ends the parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UnavailableError
from pipeline.servers.child import Child, Command, locked

ROOT = Path(__file__).parents[3]

# A server with a grand-child in a process group of its own, as PostgreSQL's backends have.
FAMILY = """
import subprocess, sys, time
grandchild = subprocess.Popen(["sleep", "300"], start_new_session=True)
print("grandchild", grandchild.pid, flush=True)
time.sleep(300)
"""

PARENT = """
import os, sys, time, threading
from pathlib import Path
from pipeline.servers.child import Child, Command, locked
home = Path(sys.argv[1])
def start():
    with locked("family", home / "lock") as lock:
        child = Child("family", Command(argv=(sys.executable, "-c", sys.argv[2]), cwd=home),
                      log=home / "log", lock=lock)
    print(child.pid, child._keeper.pid, flush=True)
    keep.append(child)
keep = []
thread = threading.Thread(target=start)
thread.start()
thread.join()
if sys.argv[3] == "fork" and os.fork() == 0:
    time.sleep(8)  # holds the pipe to the keeper open
    os._exit(0)
time.sleep(300)
"""


def child_of(home: Path, *argv: str, grace: float = 10.0) -> Child:
    """A started child with log and lock in `home`."""
    with locked("toy", home / "lock") as lock:
        command = Command(argv=argv, cwd=home, grace=grace)
        return Child("toy", command, log=home / "log", lock=lock)


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all of them end within this time."""
    for _ in range(int(seconds / 0.05)):
        if not any(psutil.pid_exists(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def grandchild_of(log: Path) -> int:
    """The id that FAMILY wrote to its log."""
    for _ in range(200):
        words = log.read_text().split() if log.exists() else []
        if len(words) == 2:
            return int(words[1])
        time.sleep(0.02)
    raise AssertionError(log)


@pytest.mark.parametrize("mode", ["plain", "fork"])
def test_family_dies_with_a_killed_parent(tmp_path: Path, mode: str) -> None:
    """After kill -9 of the parent, server, keeper and grand-child end, forks of it or not."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), FAMILY, mode],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        server, keeper = map(int, parent.stdout.readline().split())
        family = [server, keeper, grandchild_of(tmp_path / "log")]
        time.sleep(0.3)  # the thread that started it has long ended, the server must live
        assert all(psutil.pid_exists(pid) for pid in family)
        parent.kill()
        assert gone(family, 4.0)


def test_server_dies_with_its_killed_keeper(tmp_path: Path) -> None:
    """Kill -9 of the keeper alone takes the server along."""
    child = child_of(tmp_path, "sleep", "300")
    child._keeper.kill()
    assert gone([child.pid], 3.0)
    child.stop()


def test_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """The end of the starting thread does not end the server."""
    made: list[Child] = []
    thread = threading.Thread(target=lambda: made.append(child_of(tmp_path, "sleep", "300")))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert made[0].alive
    made[0].stop()
    assert not made[0].alive
    assert made[0].code == 128 + signal.SIGTERM


def test_stop_insists(tmp_path: Path) -> None:
    """A server that ignores SIGTERM is killed after its time of grace."""
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    child = child_of(tmp_path, sys.executable, "-c", code + "while True: time.sleep(1)", grace=0.3)
    while "1" not in child.output():
        time.sleep(0.02)
    child.stop()
    assert child.code == 128 + signal.SIGKILL


def test_kill_takes_the_grandchild_along(tmp_path: Path) -> None:
    """Kill -9 of the server leaves no orphan that could touch its files."""
    child = child_of(tmp_path, sys.executable, "-c", FAMILY)
    grandchild = grandchild_of(tmp_path / "log")
    child.kill()
    assert not psutil.pid_exists(grandchild)
    assert not psutil.pid_exists(child.pid)


def test_diagnosis_is_the_telling_line_of_this_start(tmp_path: Path) -> None:
    """A dead server is explained by one line out of its own part of the log."""
    (tmp_path / "log").write_text("FATAL: of an earlier start\n")
    child = child_of(tmp_path, "sh", "-c", "echo fine; echo 'FATAL: no room'; echo bye; exit 3")
    while child.alive:
        time.sleep(0.02)
    assert child.code == 3
    assert child.diagnosis() == f"FATAL: no room (log: {tmp_path / 'log'})"
    child.stop()


def test_missing_program_is_unavailable(tmp_path: Path) -> None:
    """A command that does not exist is an error of one line."""
    with pytest.raises(UnavailableError, match="could not be started") as caught:
        child_of(tmp_path, str(tmp_path / "no-such-program"))
    assert "\n" not in str(caught.value)


def test_ctrl_c_in_the_terminal_is_not_for_the_server(tmp_path: Path) -> None:
    """The server is in another session, so a signal to our group does not reach it."""
    child = child_of(tmp_path, "sleep", "300")
    assert os.getsid(child.pid) != os.getsid(0)
    child.stop()
