"""Where everything of one symbol lives: one row of floats, one row of counters, both contiguous.

Scalars have fixed places (the constants below), windows follow them; their places depend on the
periods and come as `plan`, int64 (windows, 5): a window's place and the width of its slots, one row
per window constant.
"""

import math
from collections.abc import Mapping
from typing import Final, cast

import numpy as np

from pipeline.kernels import indicators, windows
from pipeline.kernels.hot import piece
from schemas.blocks import Array

# Floats. What the last accepted tick left behind:
PRICE: Final = 0
BEFORE: Final = 1  # price of the tick before it
RET: Final = 2  # its log return
VOL_NUM: Final = 3  # time-decayed sum of squared returns
VOL_DEN: Final = 4  # of weights
RATE_NUM: Final = 5  # time-decayed number of ticks
RATE_DEN: Final = 6  # of seconds
SIZE_Z: Final = 7
BID: Final = 8  # last quote that was not crossed
ASK: Final = 9
BID_SIZE: Final = 10
ASK_SIZE: Final = 11
OFI_BID: Final = 12  # last quote with sizes that was not crossed
OFI_ASK: Final = 13
OFI_BID_SIZE: Final = 14
OFI_ASK_SIZE: Final = 15
# What the last bar left behind:
HIGH: Final = 16
LOW: Final = 17
CLOSE: Final = 18
BAR_RET: Final = 19
BAR_VAR: Final = 20  # EWMA of squared returns
TOP: Final = 21  # highest close so far
REFERENCE: Final = 22  # price of the reference when our last bar closed
RSI: Final = 23
ATR: Final = RSI + indicators.RSI_FLOATS
ADX: Final = ATR + indicators.ATR_FLOATS
MACD: Final = ADX + indicators.ADX_FLOATS
SCALE: Final = MACD + indicators.MACD_FLOATS  # units of all this; 0 before the first tick
VOLUME_SCALE: Final = SCALE + 1
FLOATS: Final = VOLUME_SCALE + 1

# Counters.
TICKS: Final = 0  # accepted
TS: Final = 1  # of the last tick, ns
SIGN: Final = 2  # of the last price change: the tick rule
HELD: Final = 3  # bits: which values of the last tick exist
OFI_SEEN: Final = 4  # 1 once a quote with sizes was seen
BARS: Final = 5
RETURNS: Final = 6  # bar returns in BAR_VAR
BAR_HELD: Final = 7  # 1 when the last bar had a return
END: Final = 8  # ts of the last bar, ns
CURSOR: Final = 9  # bars of the reference looked at
HEAD: Final = 10  # first and one past the last of the returns that wait for the reference
TAIL: Final = 11
RSI_SEEN: Final = 12
ATR_SEEN: Final = 13
ADX_SEEN: Final = 14
MACD_SEEN: Final = 15
WILD: Final = 16  # 1 once an input was so large or small that results may overflow
LIFE: Final = 17  # which instrument bore the symbol
SESSION: Final = 18  # of the last tick
BAR_SESSION: Final = 19  # of the last bar
COUNTERS: Final = 20

# Bits of HELD.
HAS_RET: Final = 1
HAS_QUOTE: Final = 2
HAS_SIZES: Final = 4
HAS_SIZE_Z: Final = 8


def _window(number: int) -> int:
    """A constant that kernels see as an int64: a literal has each piece compiled once a value."""
    return cast("int", np.int64(number))


# Windows: rows of the plan. Of bars:
W_CLOSES: Final = _window(0)
W_RETURNS2: Final = _window(1)
W_PARKINSON: Final = _window(2)
W_GARMAN_KLASS: Final = _window(3)
W_OPEN_GAP: Final = _window(4)
W_OPEN_CLOSE: Final = _window(5)
W_ROGERS_SATCHELL: Final = _window(6)
W_BOLL: Final = _window(7)
W_HIGHS: Final = _window(8)
W_LOWS: Final = _window(9)
W_CHANGES: Final = _window(10)
W_VOLUME: Final = _window(11)
W_VWAP_PV: Final = _window(12)
W_VWAP_V: Final = _window(13)
W_AMIHUD: Final = _window(14)
W_AUTOCORR: Final = _window(15)
W_STEPS: Final = _window(16)
W_RETURNS: Final = _window(17)
W_BETA: Final = _window(18)
W_WAITING: Final = _window(19)
# Of ticks:
W_PRICES: Final = _window(20)
W_TICK_RETURNS2: Final = _window(21)
W_TICK_PV: Final = _window(22)
W_TICK_V: Final = _window(23)
W_SIGNED: Final = _window(24)
W_SIZED: Final = _window(25)
W_OFI: Final = _window(26)
W_SIZES: Final = _window(27)
WINDOWS: Final = 28

WAITING: Final = 64  # bar returns that may wait for a bar of the reference with the same end
REFERENCE_BARS: Final = 1024  # bars of the reference remembered: the age limit of the join


_SHAPES: Final[Mapping[int, windows.Shape]] = {
    **dict.fromkeys((W_CLOSES, W_PRICES, W_WAITING), windows.LAG),
    **dict.fromkeys((W_HIGHS, W_LOWS), windows.MAX),
    **dict.fromkeys(
        (W_OPEN_GAP, W_OPEN_CLOSE, W_BOLL, W_VOLUME, W_STEPS, W_RETURNS, W_SIZES), windows.MOMENTS
    ),
    **dict.fromkeys((W_AUTOCORR, W_BETA), windows.PAIRS),
}


def shape_of(window: int) -> windows.Shape:
    """Floats of the aggregate and of each slot of a window."""
    return _SHAPES.get(window, windows.SUM)


def plan(periods: Mapping[int, int]) -> tuple[Array, int, int]:
    """Places of all windows in a symbol's row: scalars, aggregates of all windows, slots of all.

    Args:
        periods: n of each window by its constant.

    Returns:
        The plan, int64 (WINDOWS, 5), and the lengths of the rows of floats and of counters. Rows
        are whole cache lines, so that no symbol shares one with its neighbour.
    """
    table = np.zeros((WINDOWS, 5), np.int64)
    aggregate, counter = FLOATS, COUNTERS
    slots = FLOATS + sum(shape_of(window)[0] for window in range(WINDOWS))
    for window in range(WINDOWS):
        n, (floats, width) = periods[window], shape_of(window)
        table[window] = n, aggregate, counter, slots, width
        aggregate += floats
        counter += windows.COUNTERS
        slots += width * n
    # Waiting returns keep the ends of their bars as counters; they have neither pos nor count.
    table[W_WAITING, 2] = counter
    counter += WAITING
    return table, -(-slots // 8) * 8, -(-counter // 8) * 8


LN2: Final = math.log(2.0)


@piece
def log_ratio(a: float, b: float) -> float:
    """ln(a / b) of two positive prices.

    Where they are close the quotient would round: there by the series of
    2 artanh((a - b) / (a + b)), whose first term left out is below 2e-17 of the sum.
    """
    total = a + b
    half = (a - b) / total
    if abs(half) < 0.01 and total < 1e300:
        square = half * half
        tail = square * (1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0)))
        return 2.0 * (half + half * tail)
    ratio = a / b
    # A quotient out of range would put an infinity into the state.
    return math.log(ratio) if 1e-300 < ratio < 1e300 else math.log(a) - math.log(b)


@piece
def place(plan: Array, window: int) -> tuple[int, int, int, int]:
    """Where a window lives, kept in registers: see `windows`."""
    return plan[window, 0], plan[window, 1], plan[window, 2], plan[window, 3]


@piece
def wild(x: float) -> bool:
    """Whether squares of x, or quotients by them, may leave the range of floats; false for NaN."""
    size = abs(x)
    return size > 1e75 or 0.0 < size < 1e-75
