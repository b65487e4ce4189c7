"""What a run does, all of it decided by its seed: which faults, when, how hard, what stream."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KILL: Final = "kill worker"
KILL_IN_COMMIT: Final = "kill worker in commit"
PAUSE: Final = "pause worker"
JOIN: Final = "join and kill"
ZOMBIE: Final = "zombie"
KAFKA: Final = "restart kafka"
POSTGRES: Final = "restart postgres"
VALKEY: Final = "restart valkey"
CUT: Final = "cut connections"
FULL: Final = "disk full"

# How often each kind comes; what takes long comes less often, so that many runs fit a minute.
WEIGHTS: Final = {
    KILL: 5,
    KILL_IN_COMMIT: 4,
    PAUSE: 3,
    JOIN: 2,
    ZOMBIE: 2,
    KAFKA: 3,
    POSTGRES: 4,
    VALKEY: 5,
    CUT: 5,
    FULL: 4,
}
ALL: Final = tuple(WEIGHTS)
RUNS: Final = 25  # of the first seeds in `make test`; a soak has three hundred
# Each changes who works: two of them at a time would only blur what is tested.
CREW: Final = frozenset({KILL, KILL_IN_COMMIT, PAUSE, JOIN, ZOMBIE})
_COUNTS: Final = (1, 1, 1, 2, 2, 3)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its kind, seconds to wait before it, how long it holds, and dice of its own."""

    kind: str
    wait: float
    hold: float
    dice: int


@dataclass(frozen=True, slots=True)
class Script:
    """One run; `together` lets the faults overlap instead of following each other."""

    seed: int
    faults: tuple[Fault, ...]
    together: bool
    ticks: int  # at least
    rate: float  # ticks a second
    poison: float  # share of messages

    def __str__(self) -> str:
        joint = " + " if self.together else ", then "
        told = joint.join(f"{f.kind} ({f.hold:.1f} s)" for f in self.faults)
        return f"seed {self.seed}: {told}; {self.rate:.0f} ticks/s, {self.poison:.0%} poison"


def script(seed: int, kinds: Sequence[str] = ALL) -> Script:
    """The run of a seed, of these kinds of faults."""
    chance = random.Random(f"script {seed}")  # noqa: S311 -- nothing secret
    count = min(chance.choice(_COUNTS), len(kinds))
    chosen = _chosen(chance, kinds, count)
    faults = tuple(
        Fault(kind, chance.uniform(0.0, 0.6), chance.uniform(0.1, 1.2), chance.getrandbits(32))
        for kind in chosen
    )
    return Script(
        seed=seed,
        faults=faults,
        together=count > 1 and chance.random() < 0.5,
        ticks=chance.randint(3000, 6000),
        rate=chance.choice((600.0, 1200.0, 2500.0)),
        poison=chance.choice((0.0, 0.02, 0.1)),
    )


def _chosen(chance: random.Random, kinds: Sequence[str], count: int) -> list[str]:
    """Different kinds, at most one of those that change who works."""
    chosen: list[str] = []
    while len(chosen) < count:
        left = [k for k in kinds if k not in chosen and not (k in CREW and CREW & {*chosen})]
        if not left:
            break
        chosen += chance.choices(left, [WEIGHTS[kind] for kind in left])
    return chosen
