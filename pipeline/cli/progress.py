"""Rows, rate and time left: a moving line on a terminal, plain lines elsewhere."""

from pathlib import Path
from types import TracebackType
from typing import Self

import click

from pipeline.cli.options import on_terminal
from pipeline.clock import monotonic

_MOVING, _PLAIN = 0.2, 5.0


class Progress:
    """Call it with the count so far; `total` makes an ETA possible."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._terminal = on_terminal()
        self._start = monotonic()
        self._next = self._start + (_MOVING if self._terminal else _PLAIN)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def __call__(self, count: int) -> None:
        """Show the count when it is time."""
        self._count = count
        now = monotonic()
        if now < self._next:
            return
        self._next = now + (_MOVING if self._terminal else _PLAIN)
        line = self._line(now)
        click.echo(f"\r{line}\x1b[K" if self._terminal else line, nl=not self._terminal, err=True)

    def _line(self, now: float) -> str:
        rate = self._count / max(now - self._start, 1e-9)
        line = f"{self._what}: {self._count:,} ({rate:,.0f}/s)"
        if self._total and rate > 0:
            left = max(self._total - self._count, 0) / rate
            line += f", {self._count / self._total:.0%}, {left:.0f} s left"
        return line

    @property
    def seconds(self) -> float:
        """Since the start."""
        return monotonic() - self._start


def display(path: Path) -> str:
    """A path as short as it can be said."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
