"""Standardised returns, and Page's cumulative sums of them: an alarm when their mean has moved."""

import numpy as np

from pipeline.kernels.hot import loop
from schemas.blocks import Array

UP, DOWN = range(2)  # float outputs and float state of a symbol; also the tags
FLOATS = 2
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
    floats: Array,
) -> None:
    """Sum z (n,) up and down into `floats` (FLOATS, n or more), alarms into `tags` (n or more,).

    S+ = max(0, S+ + z - slack), S- = max(0, S- - z - slack); an alarm above `threshold`, after
    which both begin anew (Page 1954). State, a row per symbol: whose sums they are, and `sums`
    (s, FLOATS). A null z leaves them alone.
    """
    for i in range(symbol.shape[0]):
        s = symbol[i]
        own = sums[s]
        if life[i] != lives[s]:
            lives[s] = life[i]
            own[UP] = 0.0
            own[DOWN] = 0.0
        tags[i] = -1
        if np.isnan(z[i]):
            floats[UP, i] = np.nan
            floats[DOWN, i] = np.nan
            continue
        own[UP] = max(0.0, own[UP] + z[i] - slack)
        own[DOWN] = max(0.0, own[DOWN] - z[i] - slack)
        floats[UP, i] = own[UP]
        floats[DOWN, i] = own[DOWN]
        if own[UP] > threshold:
            tags[i] = UP
        elif own[DOWN] > threshold:
            tags[i] = DOWN
        if tags[i] >= 0:
            own[UP] = 0.0
            own[DOWN] = 0.0
