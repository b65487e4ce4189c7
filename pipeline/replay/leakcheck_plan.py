"""What a leak check is given: how to make a chain, how to read the input, how much to do."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.stages.chain import Chain
from schemas.arrivals import Arrivals
from schemas.blocks import Rows

Make = Callable[[], Chain]
"""Makes a chain that has seen nothing. It is called in other processes, so it can be pickled."""
Source = Callable[[int], Iterator[Arrivals]]
"""Reads the input anew, in blocks of at most so many ticks; the same holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much a leak check does. Lengths count ticks where nothing else is said."""

    cuts: int = 2000  # random cut points; half lie anywhere, half beside decisions
    block: int = 65_536  # of the run that sees far ahead
    stretches: int = 16  # gone on with by fresh processes
    stretch: int = 2048
    reruns: int = 3  # from the start, by fresh processes
    canary: int = 200_000
    warm_up: tuple[int, ...] = (50, 100, 200, 500, 1000)  # in bars
    warm_ups: int = 4  # places at which each is tried
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some ticks with the state before them and the rows of the whole run: for a fresh process.

    `start` counts the ticks of the input before it.
    """

    start: int
    state: bytes
    came: Arrivals
    rows: Mapping[str, Rows]
