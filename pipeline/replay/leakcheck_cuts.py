"""Where a leak check cuts the input, and what it makes of the ticks behind a cut."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from schemas.arrivals import FLOATS, Arrivals
from schemas.blocks import Array

_PRICES: Final = ("price", "bid", "ask", "open", "high", "low")
_SIZES: Final = ("size", "bid_size", "ask_size")
_QUOTES: Final = ("bid", "ask", "bid_size", "ask_size")
_NEAR: Final = (0, 1, 1, 1, 2, 3, 5, 8, 20, 60)  # ticks from a decision to a cut beside it
_TAILS: Final = (1, 2, 10, 100, 1000, 5000)  # ticks behind a cut that are changed
_EVENTS: Final = 32  # cuts of a block before a new symbol
_LATER: Final = 3 * 3600 * 10**9
NUDGED: Final = "nudged"


def cuts_of(
    n: int, wanted: int, decisions: Array, events: Array, rng: np.random.Generator
) -> Array:
    """Places to cut n ticks, int64, ascending, the last one n: each is the end of a prefix.

    Half lie anywhere, half at or just behind a decision (a place in `decisions`), where a look at
    the next tick shows, and some just before each of `events`. Some ticks stay alone.
    """
    half = -(-wanted // 2) if decisions.size else wanted
    anywhere = rng.integers(1, n + 1, half)
    beside = np.empty(0, np.int64)
    if decisions.size:
        beside = rng.choice(decisions, half) + rng.choice(np.array(_NEAR), half)
    alone = anywhere[: half // 4] + 1
    found = np.concatenate([anywhere, beside, alone, events[:_EVENTS], [n]])
    return np.unique(found[(found > 0) & (found <= n)])


def newcomers(came: Arrivals, known: set[str]) -> Array:
    """Places of the first ticks of symbols that are not known yet; they are from then on."""
    codes, first = np.unique(came["symbol"], return_index=True)
    fresh = [at for code, at in zip(codes, first, strict=True) if came.symbols[code] not in known]
    known.update(came.symbols[code] for code in codes)
    return np.sort(np.array(fresh, np.int64))


def fresh(came: Arrivals, start: int, stop: int) -> Arrivals:
    """A copy of the ticks from start to stop, which no one else can change."""
    columns = {name: values[start:stop].copy() for name, values in came.columns.items()}
    return Arrivals(came.partition, columns, came.symbols)


def tail(rng: np.random.Generator) -> int:
    """How many ticks behind a cut to change."""
    return int(rng.choice(np.array(_TAILS)))


def _scaled(ticks: Arrivals, at: int, names: Sequence[str], by: float) -> None:
    for name in names:
        ticks[name][at:] *= by


def _doubled(ticks: Arrivals, at: int, _: np.random.Generator) -> None:
    _scaled(ticks, at, _PRICES, 2.0)


def _nudged(ticks: Arrivals, at: int, _: np.random.Generator) -> None:
    # Too little for the guard to see a spike: these enter the chain.
    _scaled(ticks, at, _PRICES, 1.001)
    _scaled(ticks, at, _SIZES, 3.0)


def _bare(ticks: Arrivals, at: int, _: np.random.Generator) -> None:
    for name in (*_QUOTES, "size"):
        ticks[name][at:] = np.nan


def _shuffled(ticks: Arrivals, at: int, rng: np.random.Generator) -> None:
    order = at + rng.permutation(len(ticks) - at)
    for name in FLOATS:
        ticks[name][at:] = ticks[name][order]


def _later(ticks: Arrivals, at: int, _: np.random.Generator) -> None:
    for name in ("ts", "known_at"):
        ticks[name][at:] += _LATER


def _broken(ticks: Arrivals, at: int, rng: np.random.Generator) -> None:
    ticks["price"][at:] = rng.choice(np.array([np.nan, 1e-3]), len(ticks) - at)


# A nudge every other time: it alone also tells whether a row bears the time of what it knows.
SHOCKS: Final[Sequence[tuple[str, Callable[[Arrivals, int, np.random.Generator], None]]]] = (
    ("doubled", _doubled),
    (NUDGED, _nudged),
    ("without sizes and quotes", _bare),
    (NUDGED, _nudged),
    ("shuffled", _shuffled),
    (NUDGED, _nudged),
    ("three hours later", _later),
    (NUDGED, _nudged),
    ("broken", _broken),
    (NUDGED, _nudged),
)
