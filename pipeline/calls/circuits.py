"""Circuits: who failed several times in a row is left alone for a while, then tried by one call."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from pipeline.clock import monotonic

_THRESHOLD: Final = 5  # failures in a row
_FIRST_REST: Final = 30.0  # seconds; doubled by each call that fails after a rest
_KEPT: Final = 1024


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    until: float = 0.0  # monotonic seconds


class Circuits:
    """What is known of each place by a key; one without troubles takes no memory.

    Args:
        longest: Seconds of the longest rest.
        trial: Seconds that the one call after a rest may take until another is let through.
    """

    def __init__(self, longest: float, trial: float) -> None:
        self._longest = longest
        self._trial = trial
        self._circuits: OrderedDict[str, _Circuit] = OrderedDict()

    def rest(self, key: str) -> float:
        """Seconds until it is called again; 0 if it may be called now."""
        found = self._circuits.get(key)
        return 0.0 if found is None else max(0.0, found.until - monotonic())

    def begin(self, key: str) -> None:
        """A call begins, as nothing rests; after a rest, others wait for how it ends."""
        found = self._circuits.get(key)
        if found is not None and found.until:
            found.until = monotonic() + self._trial

    def failed(self, key: str, asked: float = 0.0) -> None:
        """A call failed; `asked` is for how many seconds the other side wants to be left alone."""
        found = self._circuits.setdefault(key, _Circuit())
        self._circuits.move_to_end(key)
        while len(self._circuits) > _KEPT:
            self._circuits.popitem(last=False)
        found.failures += 1
        over = found.failures - _THRESHOLD
        rest = min(_FIRST_REST * 2.0 ** min(over, 30), self._longest) if over >= 0 else 0.0
        rest = max(rest, asked)
        found.until = monotonic() + rest if rest else 0.0

    def succeeded(self, key: str) -> None:
        """A call came to its end."""
        self._circuits.pop(key, None)
