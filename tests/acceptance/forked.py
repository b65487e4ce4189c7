"""The command line in forks of one process that has loaded it: a command costs what it does.

Python and the imports take two seconds of the processor at each start of `tickstream`, and tests of
its answers run it some two hundred times. A fork is a process of its own, with its own arguments,
environment, directory and outputs, and ends as every process of Python does. That the command
starts by itself is told by the tests that take `commands.tickstream`.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pipeline.cli import main as commands
from pipeline.replay.warm import trees, warm
from tests.acceptance.commands import TICKSTREAM, environment

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_LOADING: Final = 100.0  # seconds: the first time on a machine, the kernels are compiled
_READY: Final = b"!"


def tickstream(
    *arguments: object,
    values: Mapping[str, str] | None = None,
    timeout: float = 100.0,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `commands.tickstream` does."""
    argv = [TICKSTREAM, *map(str, arguments)]
    order = {"argv": argv, "environment": environment(values), "cwd": str(cwd or Path.cwd())}
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with theirs:
            socket.send_fds(_loaded(), [_READY], [theirs.fileno(), out.fileno(), err.fileno()])
        ours.settimeout(timeout)
        ours.sendall(json.dumps(order).encode() + b"\n")
        with ours.makefile() as told:
            pid = int(told.readline())
            try:
                code = int(told.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(argv, timeout) from None
        texts = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in (out, err)]
    return subprocess.CompletedProcess(argv, code, *(text.decode() for text in texts))


@cache
def _loaded() -> socket.socket:
    """The way to the process that forks, once it is ready; it ends when this one does."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.forked", str(theirs.fileno())],
            cwd=_REPOSITORY,
            env=environment(),
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    ours.settimeout(_LOADING)
    assert ours.recv(1) == _READY, "the command line could not be loaded"
    return ours


def _load() -> None:
    """Every command's module, and the kernels as compiled code."""
    for name in set(commands._MODULES.values()):
        import_module(f"pipeline.cli.{name}")
    warm()
    trees()
    gc.collect()
    gc.freeze()  # else the first collection in a fork would copy all of it


def _become_a_command(way: socket.socket) -> None:
    """Fork at each order, until nobody is left to give one; returns in a fork only."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    way.sendall(_READY)
    forks: set[int] = set()
    while True:
        asked, fds, _, _ = socket.recv_fds(way, 1, 3)
        forks -= {pid for pid in forks if os.waitpid(pid, os.WNOHANG)[0]}
        if not asked:
            sys.exit()
        pid = os.fork()
        if not pid:
            way.close()
            _take_order(*fds)
            return
        forks.add(pid)
        for fd in fds:
            os.close(fd)


def _take_order(link: int, out: int, err: int) -> None:
    """Be what is ordered; a process between tells how that ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with socket.socket(fileno=link) as giver:
        pid = os.fork()
        if pid:
            giver.sendall(f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            with suppress(BrokenPipeError):  # nobody waits for it any more
                giver.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        with giver.makefile() as told:
            order: dict[str, Any] = json.loads(told.readline())
    for fd, standard in ((out, 1), (err, 2)):
        os.dup2(fd, standard)
        os.close(fd)
    os.chdir(order["cwd"])
    os.environ.clear()  # noqa: TID251 -- it becomes that of another process
    os.environ.update(order["environment"])  # noqa: TID251 -- the same
    sys.argv[:] = order["argv"]


if __name__ == "__main__":
    _load()
    with socket.socket(fileno=int(sys.argv[1])) as _way:
        _become_a_command(_way)
    commands.main()
