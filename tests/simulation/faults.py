"""Which faults a schedule may meet and how often: each seed switches on some of them (swarm)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import Final

KINDS: Final[Mapping[str, str]] = {
    "before": "a call fails and had no effect, or a part of it",
    "after": "a call has its effect, and fails",
    "hang": "a call takes seconds",
    "die_before": "the worker dies with the call on its lips",
    "die_after": "the worker dies before it hears of the effect",
    "arrives": "what a dead worker had sent arrives all the same",
    "duplicate": "the broker keeps an output twice",
    "repeat": "a message is delivered twice in a row",
    "stale": "a message of before the rebalance is delivered after it",
    "skip": "the group begins behind the committed offset",
    "lag": "an acknowledgement never reaches the group",
    "damaged": "a snapshot comes back damaged",
    "crash": "a worker dies at any moment",
    "freeze": "a worker stands still, perhaps until others have its partitions, and continues",
    "stop": "a worker is told to stop and saves its state",
    "rebalance": "the group deals the partitions anew",
    "wipe": "the cache comes back empty",
    "away": "a server is away for a while",
    "promote": "another version becomes active; workers hear of it sooner or later",
}
_PER_CALL: Final = {
    "before": (0.02, 0.3),
    "after": (0.02, 0.3),
    "hang": (0.01, 0.1),
    "die_before": (0.005, 0.03),
    "die_after": (0.005, 0.03),
    "arrives": (0.5, 1.0),
    "duplicate": (0.05, 0.5),
    "repeat": (0.02, 0.3),
    "stale": (0.2, 1.0),
    "skip": (0.1, 0.5),
    "lag": (0.1, 0.7),
    "damaged": (0.1, 0.9),
}
_MOST: Final = {
    "crash": 4,
    "freeze": 3,
    "stop": 2,
    "rebalance": 4,
    "wipe": 3,
    "away": 3,
    "promote": 4,
}
_QUICK: Final = 0.004


class Fate(Enum):
    """What becomes of one call."""

    FINE = auto()
    BEFORE = auto()
    AFTER = auto()
    DIE_BEFORE = auto()
    DIE_AFTER = auto()


_FATES: Final = (
    ("before", Fate.BEFORE),
    ("after", Fate.AFTER),
    ("die_before", Fate.DIE_BEFORE),
    ("die_after", Fate.DIE_AFTER),
)


@dataclass(slots=True)
class Faults:
    """Rates of what may go wrong with a call, counts of what may happen to the world."""

    chance: Random
    rates: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    over: bool = False
    _fates: Sequence[tuple[float, Fate]] = field(init=False)

    def __post_init__(self) -> None:
        """See what may become of a call at all."""
        self._fates = [(self.rates[kind], fate) for kind, fate in _FATES if kind in self.rates]

    def hits(self, kind: str) -> bool:
        """Whether a fault happens now."""
        rate = self.rates.get(kind)
        return rate is not None and not self.over and self.chance.random() < rate

    def fate(self) -> Fate:
        """What becomes of a call that begins now."""
        if not self.over:
            for rate, fate in self._fates:
                if self.chance.random() < rate:
                    return fate
        return Fate.FINE

    def delay(self) -> float:
        """Virtual seconds until a call arrives."""
        delay = self.chance.random() * _QUICK
        return delay + self.chance.uniform(0.3, 3.5) if self.hits("hang") else delay

    def end(self) -> None:
        """From now on all goes well."""
        self.over = True


def draw(chance: Random) -> Faults:
    """A random subset of the faults at random rates; one schedule in sixteen has none."""
    if chance.random() < 1 / 16:
        return Faults(chance)
    share = chance.choice((0.15, 0.3, 0.6))
    on = [kind for kind in KINDS if chance.random() < share]
    rates = {
        kind: chance.uniform(*_PER_CALL[kind]) for kind in KINDS if kind in on and kind in _PER_CALL
    }
    counts = {
        kind: chance.randint(1, _MOST[kind]) for kind in KINDS if kind in on and kind in _MOST
    }
    return Faults(chance, rates, counts)
