"""The process that stands between this program and one server, so that no server outlives us.

It is run as a script by the bare interpreter (`python -I -S keeper.py ORDER`) and imports nothing
but the standard library: it is up in 20 ms and does not care how the project was installed.

The life line is its standard input, a pipe whose other end only the parent holds. `T` asks for a
graceful stop of the server, `K` for kill -9, the end of the file means that the parent is gone.
Its own death takes the server along by PR_SET_PDEATHSIG where the kernel has that (Linux); the
signal is tied to the *thread* that forks, and this process has only one.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TICK_SECONDS = 0.5
NOT_STARTED = 127


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process; nothing where there is no prctl."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def spawn(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the server as another user if asked, tied to our life."""
    ours = os.getpid()

    def tie() -> None:
        # Runs after the change of user, which would have cleared the signal.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != ours:
            os._exit(NOT_STARTED)

    user = order["user"]
    return subprocess.Popen(  # noqa: S603 - the command is made by our own parent
        order["argv"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        stderr=sys.stderr.fileno(),
        cwd=order["cwd"],
        user=user[0] if user else None,
        group=user[1] if user else None,
        extra_groups=[] if user else None,
        umask=0o077,
        process_group=0,
        preexec_fn=tie,  # noqa: PLW1509 - this process has a single thread
    )


def sweep(group: int) -> None:
    """Kill what the server left behind: its orphans are ours, as their subreaper."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    orphans = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if not orphans.exists():
                return
            for orphan in orphans.read_text(encoding="ascii").split():
                os.kill(int(orphan), signal.SIGKILL)
            time.sleep(0.01)


def keep(order: dict[str, Any]) -> int:
    """Run the server until it ends, we are told to end it, or the parent is gone."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    stops: list[int] = []
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: stops.append(got))
    server = spawn(order)
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    watched = [sys.stdin.fileno(), wake_read]
    deadline: float | None = None
    while server.poll() is None:
        ready, _, _ = select.select(watched, [], [], TICK_SECONDS)
        if wake_read in ready:
            os.read(wake_read, 4096)
        word = os.read(sys.stdin.fileno(), 1) if sys.stdin.fileno() in ready else None
        if word == b"":
            watched.remove(sys.stdin.fileno())
        if word == b"K" or (deadline is not None and time.monotonic() > deadline):
            server.kill()
        # A fork of the parent may hold the pipe open after the parent's death: look at its id too.
        elif deadline is None and (word in {b"", b"T"} or stops or os.getppid() != order["parent"]):
            server.send_signal(order["stop_signal"])
            deadline = time.monotonic() + order["grace"]
    sweep(server.pid)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


if __name__ == "__main__":
    sys.exit(keep(json.loads(sys.argv[1])))
