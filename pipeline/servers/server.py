"""What the three embedded servers have in common: a home, a child, a start that waits."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from pipeline import clock
from pipeline.errors import UnavailableError
from pipeline.servers.child import Child, Command, locked

Say = Callable[[str], None]
"""Takes a line about something slow, for the user."""


def silent(_line: str) -> None:
    """Say nothing."""


class Server(ABC):
    """One embedded server in its own directory; start, stop and kill return when it is done.

    All of it is synchronous and may be called from any thread, one at a time.

    Args:
        home: Directory of this server alone, made if missing.
        timeout: Seconds until a start counts as failed.
        say: Takes lines about slow things.
    """

    name: ClassVar[str]
    trouble_passes: ClassVar[tuple[str, ...]] = ()
    """Words in the log of a failed start after which another attempt may succeed."""

    def __init__(self, home: Path, *, timeout: float = 60.0, say: Say = silent) -> None:
        self.home = home.absolute()
        self.timeout = timeout
        self.say = say
        self.start_seconds = 0.0
        """How long the last start took."""
        self._child: Child | None = None
        self._cancelled = False

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients find it, once started."""

    @abstractmethod
    def _prepare(self) -> Command:
        """Make the directory fit for a start, after any crash; give the command."""

    @abstractmethod
    def _answers(self, child: Child) -> bool:
        """Whether it serves clients."""

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.home / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._child.pid if self._child is not None and self._child.alive else None

    def start(self) -> None:
        """Start it and wait until it serves; nothing if it runs already."""
        if self.alive:
            return
        self.stop()
        begin = clock.monotonic()
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        attempts = 3
        for attempt in range(1, attempts + 1):
            child = self._launch()
            try:
                self._wait(child)
            except BaseException as error:
                passing = not child.alive and any(
                    words in child.output() for words in self.trouble_passes
                )
                child.kill()
                if isinstance(error, UnavailableError) and passing and attempt < attempts:
                    time.sleep(0.5)
                    continue
                raise
            self._child = child
            break
        self.start_seconds = clock.monotonic() - begin

    def stop(self) -> None:
        """End it gracefully; nothing if it does not run."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def cancel(self) -> None:
        """Make a start that is under way in another thread fail soon, and every later one."""
        self._cancelled = True

    def kill(self) -> None:
        """End it with kill -9, as a crash would."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same data and, if free, the same address."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self) -> Child:
        if self._cancelled:
            raise UnavailableError(f"the start of {self.name} was cancelled")
        with locked(self.name, self.home / f"{self.name}.lock") as lock:
            return Child(self.name, self._prepare(), log=self.log, lock=lock)

    def _wait(self, child: Child) -> None:
        deadline = clock.monotonic() + self.timeout
        while not self._answers(child):
            if self._cancelled:
                raise UnavailableError(f"the start of {self.name} was cancelled")
            if not child.alive:
                raise UnavailableError(
                    f"{self.name} ended with code {child.code} at its start: {child.diagnosis()}"
                )
            if clock.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.name} did not answer within {self.timeout:g} s: {child.diagnosis()}"
                )
            time.sleep(0.02)
