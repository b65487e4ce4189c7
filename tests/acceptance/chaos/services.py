"""Workers that are looked after as those of `tickstream up`, begun as forks."""

import subprocess
from contextlib import suppress
from pathlib import Path

from pipeline.clock import monotonic
from pipeline.servers.child import Child, Command
from pipeline.servers.services import Service
from tests.acceptance.forked import Fork


class ForkedService(Service):
    """A service whose process is a fork, and which has no keeper beside it."""

    def start(self) -> None:
        """Start it."""
        self._home.mkdir(parents=True, exist_ok=True)
        self._child = _ForkedChild(self.name, self._command, self.log)
        self._asked_at = None
        self._started = monotonic()


class _ForkedChild(Child):
    """What `Child` is."""

    def __init__(self, name: str, command: Command, log: Path) -> None:
        self.name = name
        self.log = log
        self._grace = command.grace
        self._log_start = log.stat().st_size if log.exists() else 0
        _, _, module, *arguments = command.argv  # python -m
        with log.open("ab") as sink:
            argv = [module, *arguments]
            self._fork = Fork(module, argv, command.environment, command.cwd, (sink, sink))
        self.pid = self._fork.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._fork.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code, 128 + n after signal n; None while it runs."""
        code = self._fork.poll()
        return code if code is None or code >= 0 else 128 - code

    def ask(self) -> None:
        """Ask it to end and return at once."""
        self._fork.terminate()

    def stop(self) -> None:
        """Ask it to end, insist after its time of grace; return when it is gone."""
        self.ask()
        with suppress(subprocess.TimeoutExpired):
            self._fork.wait(self._grace)
        self.kill()

    def kill(self) -> None:
        """End it at once with kill -9; return when it is gone."""
        self._fork.kill()
