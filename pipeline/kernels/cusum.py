"""Standardised returns, and Page's cumulative sums of them: an alarm when their mean has moved."""

import numpy as np

from pipeline.kernels.hot import loop
from schemas.blocks import Array

UP, DOWN = range(2)  # sums of a symbol; also the tags
SUMS = 2
MOST = 100.0  # standard deviations: a return that is further out counts as so many


@loop
def standardised(
    symbol: Array, life: Array, ret: Array, vol: Array, lives: Array, vols: Array, z: Array
) -> None:
    """Returns (n,) in units of the volatility that was known a bar before, into `z` (n or more,).

    State, a row per symbol: whose volatility it is, and that. Null without a return or a
    volatility above zero; bounded by `MOST`, so that no sum of squares can overflow.
    """
    for i in range(symbol.shape[0]):
        s = symbol[i]
        if life[i] != lives[s]:
            lives[s] = life[i]
            vols[s] = 0.0
        z[i] = np.nan
        if vols[s] > 0.0 and not np.isnan(ret[i]):
            z[i] = min(max(ret[i] / vols[s], -MOST), MOST)
        if not np.isnan(vol[i]):
            vols[s] = vol[i]


@loop
def cusum(
    slack: float,
    threshold: float,
    symbol: Array,
    life: Array,
    z: Array,
    lives: Array,
    sums: Array,
    tags: Array,
    larger: Array,
) -> None:
    """Sum z (n,) up and down; the `larger` sum, downwards negative, and the alarms as `tags` (n,).

    S+ = max(0, S+ + z - slack), S- = max(0, S- - z - slack); an alarm above `threshold`, after
    which both begin anew (Page 1954). State, a row per symbol: whose sums they are, and `sums`
    (s, SUMS). A null z leaves them alone.
    """
    for i in range(symbol.shape[0]):
        s = symbol[i]
        own = sums[s]
        if life[i] != lives[s]:
            lives[s] = life[i]
            own[UP] = 0.0
            own[DOWN] = 0.0
        tags[i] = -1
        larger[i] = np.nan
        if np.isnan(z[i]):
            continue
        own[UP] = max(0.0, own[UP] + z[i] - slack)
        own[DOWN] = max(0.0, own[DOWN] - z[i] - slack)
        larger[i] = own[UP] if own[UP] >= own[DOWN] else -own[DOWN]
        if abs(larger[i]) > threshold:
            tags[i] = UP if own[UP] >= own[DOWN] else DOWN
            own[UP] = 0.0
            own[DOWN] = 0.0
