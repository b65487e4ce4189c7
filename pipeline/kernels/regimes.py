"""Regime tags from the past alone: trailing volatility tercile and efficiency-ratio trend."""

import numpy as np

from pipeline.kernels.hot import loop, piece
from pipeline.kernels.windows import (
    LAG,
    SUM,
    floats_of,
    full,
    held,
    lag_push,
    lag_read,
    sum_push,
    sum_read,
)
from schemas.blocks import Array

VOL, TREND, VOL_REGIME = range(3)  # label outputs
LABELS = 3
EFFICIENCY, LOW, HIGH = range(3)  # float outputs
FLOATS = 3

# State of a symbol: the closes and the sums of their changes follow the last close.
SCALE, LAST, CLOSES = range(3)
LIFE, VOLS, VOL_PLACE, CLOSES_SEEN, CHANGES_SEEN = 0, 1, 2, 3, 5
# What was told last, one more than the tag: it is left only when a bound is passed by enough.
TOLD = 7
INT_STATE = TOLD + LABELS
COUNTED = 128  # values


def floats_needed(trend_window: int) -> int:
    """Floats of the state of a symbol."""
    return CLOSES + floats_of(LAG, trend_window + 1) + floats_of(SUM, trend_window)


@piece
def find(values: Array, n: int, x: float) -> int:
    """The first place in the ascending values[:n] that is not below x."""
    low, high = 0, n
    while high - low > COUNTED:
        middle = (low + high) // 2
        if values[middle] < x:
            low = middle + 1
        else:
            high = middle
    # Which half it is nobody can foresee: four compared at a time are sooner done than jumps.
    place = low
    for j in range(low, high):
        place += 1 if values[j] < x else 0
    return place


@piece
def sorted_insert(values: Array, n: int, x: float) -> None:
    """Insert x into the ascending values[:n]."""
    at = find(values, n, x)
    for j in range(n, at, -1):
        values[j] = values[j - 1]
    values[at] = x


@piece
def sorted_replace(values: Array, n: int, old: float, new: float) -> None:
    """Put `new` in the place of one `old` in the ascending values[:n]: one shift."""
    at = find(values, n, old)
    to = find(values, n, new)
    if to > at:
        for j in range(at, to - 1):
            values[j] = values[j + 1]
        values[to - 1] = new
    else:
        for j in range(at, to, -1):
            values[j] = values[j - 1]
        values[to] = new


@piece
def quantile(values: Array, n: int, q: float) -> float:
    """Linear quantile of the ascending values[:n], with numpy's own rounding."""
    place = (n - 1) * q
    i = int(np.floor(place))
    if i + 1 >= n:
        return float(values[n - 1])
    t = place - i
    d = values[i + 1] - values[i]
    return float(values[i] + d * t if t < 0.5 else values[i + 1] - d * (1.0 - t))


@piece
def beyond(x: float, bound: float, place: int, told: int, hysteresis: float) -> int:
    """1 when x is above bound number `place`, else 0; by a margin if that is another tag."""
    if told == 0:
        return 1 if x > bound else 0
    margin = hysteresis if told - 1 <= place else -hysteresis
    return 1 if x > bound * (1.0 + margin) else 0


@loop
def regimes(
    trend_window: int,
    trend_above: float,
    hysteresis: float,
    quantiles: tuple[float, float, float],
    symbol: Array,
    life: Array,
    scale: Array,
    close: Array,
    ewma_vol: Array,
    vol_sorted: Array,
    vol_ring: Array,
    float_state: Array,
    int_state: Array,
    labels: Array,
    floats: Array,
) -> None:
    """Tag bars of shape (n,) into `labels` (LABELS, n or more) and `floats` (FLOATS, n or more).

    State has a row per symbol.

    vol: `ewma_vol` against the 1/3 and 2/3 linear quantiles of the prior values in the window
    (s, w), not including its own. trend: |c_t - c_t-v| / sum |dc| over v = `trend_window` changes,
    above `trend_above`; 0 where nothing moved. -1 until a window is full (QUANT.md 2.2). vol_regime
    is like vol, by three `quantiles`. A tag is left only when its bound is passed by the part
    `hysteresis` of it.
    """
    window = vol_ring.shape[1]
    closes = (trend_window + 1, CLOSES, CLOSES_SEEN, CLOSES)
    first = CLOSES + trend_window + 1
    changes = (trend_window, first, CHANGES_SEEN, first + 1)
    for i in range(symbol.shape[0]):
        s = symbol[i]
        f = float_state[s]
        k = int_state[s]
        if life[i] != k[LIFE]:
            for j in range(f.shape[0]):
                f[j] = 0.0
            for j in range(k.shape[0]):
                k[j] = 0
            k[LIFE] = life[i]
        elif scale[i] != f[SCALE] and f[SCALE] > 0.0:
            for j in range(LAST, f.shape[0]):
                f[j] *= scale[i] / f[SCALE]
        f[SCALE] = scale[i]
        labels[VOL, i] = -1
        labels[TREND, i] = -1
        labels[VOL_REGIME, i] = -1
        n = k[VOLS]
        x = ewma_vol[i]
        if n >= window:
            low = quantile(vol_sorted[s], window, 1.0 / 3.0)
            high = quantile(vol_sorted[s], window, 2.0 / 3.0)
            floats[LOW, i] = low
            floats[HIGH, i] = high
            if not np.isnan(x):
                told = k[TOLD + VOL]
                tag = beyond(x, low, 0, told, hysteresis) + beyond(x, high, 1, told, hysteresis)
                labels[VOL, i] = tag
                k[TOLD + VOL] = tag + 1
                told = k[TOLD + VOL_REGIME]
                tag = 0
                for j in range(3):
                    bound = quantile(vol_sorted[s], window, quantiles[j])
                    tag += beyond(x, bound, j, told, hysteresis)
                labels[VOL_REGIME, i] = tag
                k[TOLD + VOL_REGIME] = tag + 1
        if not np.isnan(x):
            place = k[VOL_PLACE]
            if n >= window:
                sorted_replace(vol_sorted[s], window, vol_ring[s, place], x)
            else:
                sorted_insert(vol_sorted[s], n, x)
                k[VOLS] = n + 1
            vol_ring[s, place] = x
            k[VOL_PLACE] = 0 if place + 1 == window else place + 1
        if held(k, closes) > 0:
            sum_push(f, k, changes, abs(close[i] - f[LAST]))
        lag_push(f, k, closes, close[i])
        f[LAST] = close[i]
        if full(k, changes):
            path = sum_read(f, k, changes)
            net = abs(close[i] - lag_read(f, k, closes, trend_window))
            # Never above 1 by rounding.
            ratio = min(net / path, 1.0) if path > 0.0 else 0.0
            floats[EFFICIENCY, i] = ratio
            tag = beyond(ratio, trend_above, 0, k[TOLD + TREND], hysteresis)
            labels[TREND, i] = tag
            k[TOLD + TREND] = tag + 1
