"""Rows, rate and time left: a moving line on a terminal, plain lines elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import click

from pipeline.cli.interrupts import raise_kept
from pipeline.cli.options import on_terminal
from pipeline.clock import monotonic

_MOVING, _PLAIN = 0.2, 5.0


class Progress:
    """Call it with the count so far; its share of all, or `total`, makes an ETA possible."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._terminal = on_terminal()
        self._start = monotonic()
        self._next = self._start + (_MOVING if self._terminal else _PLAIN)
        self._count = 0
        self._share: float | None = None

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

    def __call__(self, count: int, share: float | None = None) -> None:
        """Show the count when it is time; raises a Ctrl-C that could not be raised before."""
        raise_kept()
        self._count = count
        self._share = count / self._total if share is None and self._total else share
        now = monotonic()
        if now < self._next:
            return
        self._next = now + (_MOVING if self._terminal else _PLAIN)
        line = self._line(now)
        click.echo(f"\r{line}\x1b[K" if self._terminal else line, nl=not self._terminal, err=True)

    def _line(self, now: float) -> str:
        elapsed = max(now - self._start, 1e-9)
        rate = self._count / elapsed
        line = f"{self._what}: {self._count:,} ({rate:,.0f}/s)"
        if self._share:
            left = elapsed * max(1.0 - self._share, 0.0) / self._share
            line += f", {min(self._share, 1.0):.0%}, {left:.0f} s left"
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


def figures_line(shown: Mapping[str, tuple[float | None, str]]) -> str:
    """Figures by name, each with its format, in one line; one that is undefined is null."""
    return ", ".join(
        f"{name} {'null' if value is None else form.format(value)}"
        for name, (value, form) in shown.items()
    )
