"""Our own processes, a worker or the API, as children that are started again when they end."""

import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline import clock
from pipeline.errors import TickstreamError
from pipeline.servers.child import Child, Command, locked

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0
_CRASHES: Final = 6
_CRASH_WINDOW: Final = 60.0
_SETTLED: Final = 20.0  # seconds after which a process counts as healthy
_KILLED: Final = 128 + signal.SIGKILL
_FOR_GOOD: Final = 2  # misuse: a restart cannot mend it


class Service:
    """One of our processes; `watch` starts it again after a crash, with a growing pause.

    Args:
        name: Unique within the data directory.
        module: What `python -m` runs.
        arguments: Its arguments; no secrets.
        environment: Its environment, secrets included.
        home: Where its log and its lock lie.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        home: Path,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = Command(
            argv=(sys.executable, "-m", module, *arguments),
            cwd=Path.cwd(),  # a setting may name a file from there
            environment=environment,
            grace=20.0,
        )
        self._home = home
        self._child: Child | None = None
        self._started = 0.0
        self._again_at = 0.0
        self._pause = _FIRST_PAUSE
        self._crashes: deque[float] = deque(maxlen=_CRASHES)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        child = self._child
        return child.pid if child is not None and child.alive else None

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self._home / f"{self.name}.log"

    def start(self) -> None:
        """Start it."""
        self._home.mkdir(parents=True, exist_ok=True)
        with locked(self.name, self._home / f"{self.name}.lock") as lock:
            self._child = Child(self.name, self._command, log=self.log, lock=lock)
        self._started = clock.monotonic()

    def watch(self) -> None:
        """Look after it; call this a few times a second.

        Raises:
            TickstreamError: it keeps crashing, or ended with an error that a restart cannot mend.
        """
        child = self._child
        now = clock.monotonic()
        if child is not None and not child.alive:
            self._ended(child, now)
        elif child is None and now >= self._again_at:
            self.restarts += 1
            self.start()
        elif now - self._started > _SETTLED:
            self._pause = _FIRST_PAUSE

    def stop(self) -> None:
        """Ask it to end, insist after its time of grace."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _ended(self, child: Child, now: float) -> None:
        child.stop()  # reaps it
        self._child = None
        why = f"{self.name} ended with code {child.code}: {child.diagnosis()}"
        if child.code == _FOR_GOOD:
            raise TickstreamError(why)
        if child.code == _KILLED:  # by somebody else: no reason to give up or to wait
            self._again_at = now + _FIRST_PAUSE
            return
        self._crashes.append(now)
        if len(self._crashes) == _CRASHES and now - self._crashes[0] < _CRASH_WINDOW:
            raise TickstreamError(f"{why}; it crashed {_CRASHES} times within a minute")
        self._again_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
