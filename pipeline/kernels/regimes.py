"""Regime tags from the past alone: trailing volatility tercile and efficiency-ratio trend."""

import numpy as np

from pipeline.kernels.jit import inline, kernel
from schemas.blocks import Array

VOL, TREND = 0, 1  # label outputs
EFFICIENCY, LOW, HIGH = range(3)  # float outputs


@inline
def sorted_insert(values: Array, n: int, x: float) -> None:
    """Insert x into the ascending values[:n]."""
    i = n
    while i > 0 and values[i - 1] > x:
        values[i] = values[i - 1]
        i -= 1
    values[i] = x


@inline
def sorted_remove(values: Array, n: int, x: float) -> None:
    """Remove one x, which is there, from the ascending values[:n]."""
    i = np.searchsorted(values[:n], x)
    for j in range(i, n - 1):
        values[j] = values[j + 1]


@inline
def quantile(values: Array, n: int, q: float) -> float:
    """Linear quantile of the ascending values[:n], with numpy's own rounding."""
    place = (n - 1) * q
    i = int(np.floor(place))
    if i + 1 >= n:
        return float(values[n - 1])
    t = place - i
    d = values[i + 1] - values[i]
    return float(values[i] + d * t if t < 0.5 else values[i + 1] - d * (1.0 - t))


@kernel
def regimes(
    trend_above: float,
    symbol: Array,
    life: Array,
    scale: Array,
    close: Array,
    ewma_vol: Array,
    life_state: Array,
    scale_state: Array,
    vol_sorted: Array,
    vol_ring: Array,
    vol_count: Array,
    close_ring: Array,
    close_count: Array,
    labels: Array,
    floats: Array,
) -> None:
    """Tag bars of shape (n,); state has a row per symbol, windows are its second axis.

    vol: `ewma_vol` against the 1/3 and 2/3 linear quantiles of the prior values in the window, not
    including its own. trend: |c_t - c_t-w| / sum |dc| over w = the window of closes less one, above
    `trend_above`. -1 until a window is full (QUANT.md 2.2).
    """
    window = vol_ring.shape[1]
    places = close_ring.shape[1]
    for i in range(symbol.shape[0]):
        s = symbol[i]
        if life[i] != life_state[s]:
            life_state[s] = life[i]
            vol_count[s] = 0
            close_count[s] = 0
        elif scale[i] != scale_state[s] and scale_state[s] != 0.0:
            close_ring[s] *= scale[i] / scale_state[s]
        scale_state[s] = scale[i]
        labels[i, VOL] = -1
        labels[i, TREND] = -1
        n = vol_count[s]
        x = ewma_vol[i]
        if n >= window:
            low = quantile(vol_sorted[s], window, 1.0 / 3.0)
            high = quantile(vol_sorted[s], window, 2.0 / 3.0)
            floats[i, LOW] = low
            floats[i, HIGH] = high
            if not np.isnan(x):
                labels[i, VOL] = 0 if x <= low else (1 if x <= high else 2)
        if not np.isnan(x):
            place = n % window
            if n >= window:
                sorted_remove(vol_sorted[s], window, vol_ring[s, place])
            sorted_insert(vol_sorted[s], min(n, window - 1), x)
            vol_ring[s, place] = x
            vol_count[s] = n + 1
        m = close_count[s]
        close_ring[s, m % places] = close[i]
        close_count[s] = m + 1
        if m + 1 >= places:
            path = 0.0
            for j in range(m + 2 - places, m + 1):
                path += abs(close_ring[s, j % places] - close_ring[s, (j - 1) % places])
            ratio = 0.0
            if path > 0.0:
                ratio = abs(close[i] - close_ring[s, (m + 1) % places]) / path
            floats[i, EFFICIENCY] = ratio
            labels[i, TREND] = 1 if ratio > trend_above else 0
