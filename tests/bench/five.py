"""The five features of the peers' workload, made of our own windows."""

import math

import numpy as np

from pipeline.kernels.hot import loop
from pipeline.kernels.layout import place
from pipeline.kernels.windows import (
    COUNTERS,
    MOMENTS,
    alone,
    floats_of,
    full,
    moments_push,
    moments_read,
)
from schemas.blocks import Array

WINDOW = 64
PREV, FAST, SLOW, UP, DOWN, FREE = range(6)
_EACH = floats_of(MOMENTS, WINDOW)
FLOATS = FREE + 2 * _EACH
INTS = 1 + 2 * COUNTERS
PLAN = np.array(
    [alone(MOMENTS, WINDOW, FREE, 1), alone(MOMENTS, WINDOW, FREE + _EACH, 1 + COUNTERS)], np.int64
)


@loop
def five(
    symbol: Array, price: Array, plan: Array, floats: Array, counters: Array, out: Array
) -> None:
    """EMA 12 and 26, sd of 64 log returns, RSI 14, z of 64 prices, per tick into out (n, 5)."""
    for i in range(symbol.shape[0]):
        f = floats[symbol[i]]
        k = counters[symbol[i]]
        x = price[i]
        seen = k[0]
        returns = place(plan, 0)
        prices = place(plan, 1)
        out[i, 2] = math.nan
        out[i, 3] = math.nan
        out[i, 4] = math.nan
        if seen == 0:
            f[FAST] = x
            f[SLOW] = x
        else:
            f[FAST] += (x - f[FAST]) * (2.0 / 13.0)
            f[SLOW] += (x - f[SLOW]) * (2.0 / 27.0)
            d = x - f[PREV]
            up = max(d, 0.0)
            down = max(-d, 0.0)
            if seen == 1:
                f[UP] = up
                f[DOWN] = down
            else:
                f[UP] += (up - f[UP]) / 14.0
                f[DOWN] += (down - f[DOWN]) / 14.0
            total = f[UP] + f[DOWN]
            out[i, 3] = 100.0 * f[UP] / total if total > 0.0 else 50.0
            moments_push(f, k, returns, math.log(x / f[PREV]))
            if full(k, returns):
                _, m2 = moments_read(f, k, returns)
                out[i, 2] = math.sqrt(m2 / WINDOW)
        moments_push(f, k, prices, x)
        if full(k, prices):
            mean, m2 = moments_read(f, k, prices)
            sd = math.sqrt(m2 / WINDOW)
            out[i, 4] = (x - f[prices[1]] - mean) / sd if sd > 1e-9 else 0.0
        f[PREV] = x
        k[0] = seen + 1
        out[i, 0] = f[FAST]
        out[i, 1] = f[SLOW]


def run(symbol: Array, price: Array, symbols: int, block: int) -> Array:
    """The last features of each symbol, shape (symbols, 5).

    The ticks come in blocks with the state carried from one to the next; every block of features
    is handed to a sink, which keeps the newest row of each symbol, as csp's does.
    """
    floats = np.zeros((symbols, FLOATS))
    counters = np.zeros((symbols, INTS), np.int64)
    out = np.empty((block, 5))
    last = np.empty((symbols, 5))
    for start in range(0, len(symbol), block):
        which = symbol[start : start + block]
        five(which, price[start : start + block], PLAN, floats, counters, out)
        last[which] = out[: len(which)]
    return last
