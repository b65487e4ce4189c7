"""A side of the quote that stands still while the other one moves: a feed that froze (QUANT.md 6).

Values are compared as they came, never rescaled: a feed that repeats an old bid through a split is
frozen, and equality is all that counts here.
"""

from typing import Final, cast

import numpy as np

from pipeline.kernels.hot import piece
from schemas.blocks import Array


def _side(number: int) -> int:
    """A constant that kernels see as an int64: a literal has each piece compiled once a value."""
    return cast("int", np.int64(number))


BID: Final = _side(0)
ASK: Final = _side(1)
NEITHER: Final = _side(-1)

# State of a symbol, each for the bid and the ask.
PRICE, MEDIAN = 0, 2  # the last one that came; the median of the gaps between its changes, ns
FLOAT_STATE = 4
SINCE, FROZEN, LIFE = 0, 2, 4  # when it changed, ns; 1 once it froze; whose quote this is
INT_STATE = 5

LONG = 10.0  # medians: silence and standstill that are out of the ordinary
_STEP = 1.02
_SHORTEST_GAP = 1e3  # ns


@piece
def first_median(gap: float) -> float:
    """The running median of gaps in ns after the first one."""
    return max(gap, _SHORTEST_GAP)


@piece
def next_median(median: float, gap: float) -> float:
    """The running median of gaps in ns after one more: a step of 2 % towards it."""
    return median * _STEP if gap > median else max(median / _STEP, _SHORTEST_GAP)


@piece
def _moved(f: Array, k: Array, side: int, price: float, ts: int) -> bool:
    """Whether a side changed with this tick; its first price is no change, a missing one neither.

    Learns how long the side mostly stands.
    """
    if np.isnan(price) or price == f[PRICE + side]:
        return False
    known = not np.isnan(f[PRICE + side])
    if known:
        gap = float(ts - k[SINCE + side])
        median = f[MEDIAN + side]
        f[MEDIAN + side] = next_median(median, gap) if median > 0.0 else first_median(gap)
    f[PRICE + side] = price
    k[SINCE + side] = ts
    k[FROZEN + side] = 0
    return known


@piece
def froze(
    f: Array, k: Array, bid: float, ask: float, ts: int, life: int, silent: bool, floor: int
) -> int:
    """The side that a tick shows to be frozen (BID, ASK), once each time it freezes, or NEITHER.

    `f` (FLOAT_STATE,) and `k` (INT_STATE,) are the state of the symbol, `life` the number of its
    instrument; NaN is a missing side. `silent` says that no tick of the symbol had come for long
    before this one. A side is frozen when it is quoted, unchanged for more than `floor` ns and ten
    medians of its own, at a tick that changes the other side.
    """
    if life != k[LIFE]:
        k[LIFE] = life
        f[PRICE + BID] = np.nan
        f[PRICE + ASK] = np.nan
        f[MEDIAN + BID] = 0.0
        f[MEDIAN + ASK] = 0.0
        k[FROZEN + BID] = 0
        k[FROZEN + ASK] = 0
    bid_moved = _moved(f, k, BID, bid, ts)
    ask_moved = _moved(f, k, ASK, ask, ts)
    if silent:
        # Nothing at all was heard: that is held against neither side.
        k[SINCE + BID] = ts
        k[SINCE + ASK] = ts
    elif bid_moved != ask_moved:
        still = ASK if bid_moved else BID
        quoted = not np.isnan(ask if bid_moved else bid)
        limit = max(float(floor), LONG * f[MEDIAN + still])
        if quoted and k[FROZEN + still] == 0 and float(ts - k[SINCE + still]) > limit:
            k[FROZEN + still] = 1
            return still
    return NEITHER
