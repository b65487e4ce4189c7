"""The names of all instruments, read again when the feed tells of one that is not among them."""

from collections.abc import Collection
from typing import Final

from api.mirror import STALE, Lives

_STAGE: Final = "ticks"  # an instrument begins with its first tick


class Instruments:
    """What was read last, and whether it is known to be all."""

    def __init__(self, feed: Lives) -> None:
        self._feed = feed
        self._names: list[str] = []
        self._known: frozenset[str] = frozenset()
        self._life = 0
        self._met = 0  # how often there was one that was not known

    def __contains__(self, name: str) -> bool:
        """Whether a name was read: instruments are never taken away."""
        return name in self._known

    def all(self) -> list[str] | None:
        """All names, sorted; None: there may be more, they are to be read."""
        life = self._feed.life(_STAGE)
        return self._names if life and life == self._life and self._feed.age() <= STALE else None

    def named(self, names: Collection[str]) -> list[str] | None:
        """These names, sorted, each once; None: one of them is to be looked for."""
        wanted = set(names)
        return sorted(wanted) if wanted <= self._known else None

    def begin(self) -> tuple[int, int]:
        """Before a read; to be given with what was read."""
        self._feed.want(_STAGE)
        return self._feed.life(_STAGE), self._met

    def keep(self, names: list[str], ticket: tuple[int, int]) -> None:
        """Keep all names, sorted."""
        life, met = ticket
        self._names, self._known = names, frozenset(names)
        self._life = life if met == self._met else 0

    def meet(self, name: str) -> None:
        """There is a tick of this instrument."""
        if name not in self._known:
            self._met += 1
            self._life = 0
