"""Our own processes, a worker or the API, as children that are started again when they end."""

import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline import clock
from pipeline.errors import TickstreamError
from pipeline.servers.child import Child, Command, locked

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0
# Ten times kill -9 in a row are mended at once each; a machine without memory gets a rest.
_KILL_GROWTH: Final = 1.35
_LONGEST_KILL_PAUSE: Final = 60.0
_CRASHES: Final = 6
_CRASH_WINDOW: Final = 60.0
_SETTLED: Final = 20.0  # seconds after which a process counts as healthy
_KEEPER: Final = 5.0  # seconds beyond the time of grace after which its keeper hangs, too
_KILLED: Final = 128 + signal.SIGKILL
_FOR_GOOD: Final = 2  # misuse: a restart cannot mend it
_VMSTAT: Final = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True)
class _Order:
    """A restart from outside."""

    child: Child
    why: str
    worked: bool


class Service:
    """One of our processes; `watch` starts it again after a crash, with a growing pause.

    Args:
        name: Unique within the data directory.
        module: What `python -m` runs.
        arguments: Its arguments; no secrets.
        environment: Its environment, secrets included.
        home: Where its log and its lock lie.
        say: Takes a line for each end and restart.
        grace: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        home: Path,
        *,
        say: Callable[[str], None] = lambda _: None,
        grace: float = 20.0,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = Command(
            argv=(sys.executable, "-m", module, *arguments),
            cwd=Path.cwd(),  # a setting may name a file from there
            environment=environment,
            grace=grace,
        )
        self._home = home
        self._say = say
        self._child: Child | None = None
        self._order: _Order | None = None
        self._asked_at: float | None = None
        self._started = 0.0
        self._again_at = 0.0
        self._failed = self._killed = 0  # in a row, none of them after a healthy time
        self._crashes: deque[float] = deque(maxlen=_CRASHES)
        self._excused = 0.0  # seconds that do not count into the window of a crash loop
        self._memory_kills = 0

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
        self._asked_at = None
        self._memory_kills = _memory_kills()
        self._started = clock.monotonic()

    def restart(self, why: str, *, worked: bool) -> None:
        """Have `watch` end it by SIGTERM, then SIGKILL, and start it again; it counts as a crash.

        Args:
            why: For the log, as in "worker-1 is stuck".
            worked: Whether it was of any use since its start; if not, a crash loop is near.
        """
        child = self._child
        if child is not None and child.alive and self._ordered(child) is None:
            self._say(f"{self.name} {why}; restarting it")
            self._order = _Order(child, why, worked)  # `watch` may run in another thread: it acts

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
        elif child is not None and self._ordered(child) is not None:
            self._end(child, now)

    def stop(self) -> None:
        """Ask it to end, insist after its time of grace."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _ordered(self, child: Child) -> _Order | None:
        """The order to restart this very process, if there is one."""
        order = self._order
        return order if order is not None and order.child is child else None

    def _end(self, child: Child, now: float) -> None:
        """Ask it to end; others are looked after meanwhile, and its keeper insists."""
        if self._asked_at is None:
            self._asked_at = now
            child.ask()
        elif now - self._asked_at > self._command.grace + _KEEPER:
            child.stop()

    def _ended(self, child: Child, now: float) -> None:
        child.stop()  # reaps it
        self._child = None
        order = self._ordered(child)
        if now - self._started > _SETTLED and (order is None or order.worked):
            self._failed = self._killed = 0
        if order is not None:
            if not order.worked:  # however long it stood still, it is as if it had never started
                self._excused += now - self._started
            why = f"{self.name} {order.why} (log: {self.log})"
            self._failed_again(why, f"{_CRASHES} restarts in a row did not help", now)
        elif child.code == _KILLED:  # by somebody else: no reason to give up
            self._killed += 1
            pause = min(_FIRST_PAUSE * _KILL_GROWTH ** (self._killed - 1), _LONGEST_KILL_PAUSE)
            self._again_at = now + pause
            self._say(f"{self._killer()}; restarting it in {pause:.1f} s")
        else:
            why = f"{self.name} ended with code {child.code}: {child.diagnosis()}"
            if child.code == _FOR_GOOD:
                raise TickstreamError(why)
            pause = self._failed_again(why, f"it crashed {_CRASHES} times within a minute", now)
            self._say(f"{why}; restarting it in {pause:.1f} s")

    def _failed_again(self, why: str, loop: str, now: float) -> float:
        """Count a crash; the pause before the next start."""
        at = now - self._excused
        self._crashes.append(at)
        if len(self._crashes) == _CRASHES and at - self._crashes[0] < _CRASH_WINDOW:
            raise TickstreamError(f"{why}; {loop}")
        self._failed += 1
        pause = min(_FIRST_PAUSE * 2.0 ** (self._failed - 1), _LONGEST_PAUSE)
        self._again_at = now + pause
        return pause

    def _killer(self) -> str:
        """Who sent SIGKILL, as far as that can be known."""
        often = "" if self._killed == 1 else f" {self._killed} times in a row"
        if _memory_kills() > self._memory_kills:
            return (
                f"{self.name} was killed{often} as the kernel ran out of memory (see dmesg): give "
                "it more, or lower worker.batch or the number of workers"
            )
        return f"{self.name} was killed{often} by SIGKILL from outside (kill -9, or see dmesg)"


def _memory_kills() -> int:
    """How many processes the kernel has killed for lack of memory since it started."""
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
