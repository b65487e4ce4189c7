"""A server process as a child that dies with us, also after kill -9 (see keeper)."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import clock
from pipeline.errors import UnavailableError

KEEPER = Path(__file__).with_name("keeper.py")
LOG_LIMIT = 16 * 2**20
TROUBLE = re.compile(r"FATAL|PANIC|ERROR|Exception|[Ff]ailed|[Cc]ould not|[Cc]an't|Warning: ")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run, where, as whom, and how it is asked to stop."""

    argv: tuple[str, ...]
    cwd: Path
    user: tuple[int, int] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside PATH and the C locale; secrets go here and not on the command line."""
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    """Seconds between the polite signal and kill -9."""


class Child:
    """One running server; it, and whatever it started, ends before or with this process.

    Args:
        name: The word for messages.
        command: What to run.
        log: The file that takes its output, appended to.
        lock: Descriptor of a locked file (see `locked`); the lock lasts until the server is gone.
    """

    def __init__(self, name: str, command: Command, *, log: Path, lock: int) -> None:
        self.name = name
        self.log = log
        self._grace = command.grace
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))
        self._log_start = log.stat().st_size if log.exists() else 0
        order = {
            "parent": os.getpid(),
            "argv": command.argv,
            "cwd": str(command.cwd),
            "user": command.user,
            "stop_signal": int(command.stop_signal),
            "grace": command.grace,
        }
        with log.open("ab") as sink:
            self._keeper = subprocess.Popen(  # noqa: S603 - our own script and commands
                [sys.executable, "-I", "-S", str(KEEPER), json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                bufsize=0,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C in the terminal is for us, not for servers
                # Settings of other programs (PGPORT, JAVA_TOOL_OPTIONS) and secrets stay out.
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **command.environment},
            )
        if self._keeper.stdout is None:
            raise AssertionError
        first = self._keeper.stdout.readline()
        if not first:
            self._keeper.wait()
            self._close()
            raise UnavailableError(f"{name} could not be started: {self.diagnosis()}")
        self.pid = int(first)
        """Process id of the server itself."""

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._keeper.poll() is None

    @property
    def code(self) -> int | None:
        """Exit code of the server, 128 + n after signal n; None while it runs."""
        return self._keeper.poll()

    def ask(self) -> None:
        """Ask it to end and return at once; its keeper insists after its time of grace."""
        self._tell(b"T")

    def stop(self) -> None:
        """Ask it to end, insist after its time of grace; return when it is gone."""
        self._tell(b"T")
        try:
            self._keeper.wait(self._grace + 5.0)
        except subprocess.TimeoutExpired:
            # The keeper itself hangs; its death kills the server where the kernel can do that.
            self._keeper.kill()
            self._keeper.wait()
        self._close()

    def kill(self) -> None:
        """End it at once with kill -9, as a crash would; return when it is gone."""
        self._tell(b"K")
        self._keeper.wait()
        self._close()

    def output(self) -> str:
        """What it has logged since this start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read(LOG_LIMIT).decode(errors="replace")

    def diagnosis(self) -> str:
        """One line on why it ended: the last telling lines of its log, and where that is."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        telling = [line for line in lines if TROUBLE.search(line)] or lines
        text = " | ".join(telling[-2:])[-400:] or "it logged nothing"
        return f"{text} (log: {self.log})"

    def _tell(self, word: bytes) -> None:
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._keeper.stdin.write(word)

    def _close(self) -> None:
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def locked(name: str, lock: Path, wait: float = 40.0) -> Iterator[int]:
    """Hold a server's lock file, having waited for a server that is still on its way out.

    The lock passes to the keeper that inherits the descriptor, and lasts as long as that lives: so
    a new server never meets the dying one of a parent that was killed.
    """
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = clock.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic() > deadline:
                    raise UnavailableError(
                        f"an earlier {name} still runs in {lock.parent}: stop it first"
                    ) from None
                time.sleep(0.05)
        yield fd
    finally:
        os.close(fd)
