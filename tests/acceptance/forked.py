"""Commands and workers as forks of one process that has loaded them: they cost what they do.

Python and the imports take two seconds of the processor at each start of `tickstream` or a worker,
and tests start them some three hundred times. A fork is a process of its own, with its own
arguments, environment, directory and outputs, and ends as every process of Python does. That they
start by themselves is told by the tests that take `tickstream` and `Worker` of `commands` as they
are.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

from agents.worker import _load_kernels
from pipeline.cli.main import _MODULES
from pipeline.settings import load_settings
from tests.acceptance.commands import TICKSTREAM, environment

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_LOADING: Final = 180.0  # seconds: the first time on a machine, the kernels are compiled
_READY: Final = b"!"
_NUMBER: Final = struct.Struct("<i")


def tickstream(
    *arguments: object,
    values: Mapping[str, str] | None = None,
    timeout: float = 100.0,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `commands.tickstream` does."""
    argv = [TICKSTREAM, *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        fork = Fork("pipeline.cli", argv, environment(values), cwd or Path.cwd(), (out, err))
        try:
            code = fork.wait(timeout)
        finally:
            fork.kill()
        texts = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in (out, err)]
    return subprocess.CompletedProcess(argv, code, *(text.decode() for text in texts))


def worker(arguments: Sequence[str], values: Mapping[str, str], sink: IO[bytes]) -> "Fork":
    """Begin a worker, as `commands.worker` does."""
    return Fork("agents", ["agents", *arguments], values, Path.cwd(), (sink, sink))


class Fork:
    """A process that runs a module as `python -m` does; a part of what `subprocess.Popen` is."""

    def __init__(
        self,
        module: str,
        argv: Sequence[str],
        values: Mapping[str, str],
        cwd: Path,
        outputs: tuple[IO[bytes], IO[bytes]],
    ) -> None:
        self._code: int | None = None
        self._lock = threading.Lock()  # one thread watches, another one asks
        self._link, theirs = socket.socketpair()
        with theirs:
            fds = [theirs.fileno(), *(output.fileno() for output in outputs)]
            socket.send_fds(_loaded(), [_READY], fds)
        order = {"module": module, "argv": argv, "environment": values, "cwd": str(cwd)}
        self._link.sendall(json.dumps(order).encode() + b"\n")
        self.pid = self._number()

    def poll(self) -> int | None:
        """Its exit code, as subprocess has it; None while it runs."""
        if self._lock.acquire(blocking=False):  # else somebody waits for it
            try:
                with suppress(BlockingIOError):
                    self._end(0.0)
            finally:
                self._lock.release()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code."""
        try:
            with self._lock:
                return self._end(timeout)
        except TimeoutError:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self.pid), timeout) from None

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it by kill -9; nothing if it has ended."""
        self._signal(signal.SIGKILL)
        self.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _end(self, timeout: float | None) -> int:
        if self._code is None:
            self._link.settimeout(timeout)
            self._code = self._number()
            self._link.close()
        return self._code

    def _number(self) -> int:
        (number,) = _NUMBER.unpack(self._link.recv(_NUMBER.size))
        return int(number)


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
    assert ours.recv(1) == _READY, "commands and workers could not be loaded"
    return ours


def _load() -> None:
    """Every command's module, and the kernels as compiled code."""
    for name in set(_MODULES.values()):
        import_module(f"pipeline.cli.{name}")
    _load_kernels(load_settings())
    gc.collect()
    gc.freeze()  # else the first collection in a fork would copy all of it
    assert threading.active_count() == 1, "a fork would go without the other threads"


def _become_what_is_ordered(way: socket.socket) -> str:
    """Fork at each order, until nobody is left to give one; in a fork, the module to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    way.sendall(_READY)
    forks: set[int] = set()
    while True:
        asked, fds, _, _ = socket.recv_fds(way, 1, 3)
        forks -= {pid for pid in forks if os.waitpid(pid, os.WNOHANG)[0]}
        if not asked:
            for pid in forks:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            sys.exit()
        pid = os.fork()
        if not pid:
            way.close()
            return _take_order(*fds)
        forks.add(pid)
        for fd in fds:
            os.close(fd)


def _take_order(link: int, out: int, err: int) -> str:
    """Be what is ordered; a process between tells how that ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)  # it ends together with what it starts
    with socket.socket(fileno=link) as giver:
        pid = os.fork()
        if pid:
            giver.sendall(_NUMBER.pack(pid))
            _, status = os.waitpid(pid, 0)
            with suppress(BrokenPipeError):  # nobody waits for it any more
                giver.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
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
    return str(order["module"])


if __name__ == "__main__":
    _load()
    with socket.socket(fileno=int(sys.argv[1])) as _way:
        _module = _become_what_is_ordered(_way)
    runpy.run_module(_module, run_name="__main__")
