"""Engines that turn features into probabilities, their labels, and their combination."""

import numpy as np

from pipeline.kernels.hot import loop
from schemas.blocks import Array

P_UP, P_MOMENTUM, P_BASE_RATE, W_MOMENTUM, W_BASE_RATE, SIGMA = range(6)
OUTPUTS = 6


@loop
def predictions(
    horizon: int,
    momentum_scale: float,
    symbol: Array,
    life: Array,
    scale: Array,
    stale: Array,
    close: Array,
    ret_20: Array,
    ewma_vol: Array,
    life_state: Array,
    scale_state: Array,
    close_ring: Array,
    bar_count: Array,
    rises: Array,
    labels: Array,
    out: Array,
) -> None:
    """Predict bars of shape (n,) one after another into `out` (OUTPUTS, n or more).

    A label of horizon h exists h bars later only: the ring (s, h) holds the closes that wait for
    theirs. base_rate is (rises + 1) / (labels + 2), an unchanged close teaches nothing. momentum is
    the logistic of `momentum_scale` times the return over 20 bars in units of its own volatility.
    Engines that are ready share the weight evenly. A stale bar learns, but predicts nothing.
    """
    for i in range(symbol.shape[0]):
        s = symbol[i]
        if life[i] != life_state[s]:
            life_state[s] = life[i]
            bar_count[s] = 0
            rises[s] = 0
            labels[s] = 0
        elif scale[i] != scale_state[s] and scale_state[s] != 0.0:
            for j in range(close_ring.shape[1]):
                close_ring[s, j] *= scale[i] / scale_state[s]
        scale_state[s] = scale[i]
        n = bar_count[s]
        place = n % horizon
        if n >= horizon and close[i] != close_ring[s, place]:
            labels[s] += 1
            if close[i] > close_ring[s, place]:
                rises[s] += 1
        close_ring[s, place] = close[i]
        bar_count[s] = n + 1

        momentum = np.nan
        if stale[i] == 0 and ewma_vol[i] > 0.0 and not np.isnan(ret_20[i]):
            score = ret_20[i] / (ewma_vol[i] * np.sqrt(20.0))
            momentum = 1.0 / (1.0 + np.exp(-momentum_scale * score))
        base_rate = (
            (rises[s] + 1.0) / (labels[s] + 2.0) if labels[s] > 0 and stale[i] == 0 else np.nan
        )
        has_momentum = not np.isnan(momentum)
        has_base_rate = not np.isnan(base_rate)
        ready = int(has_momentum) + int(has_base_rate)
        weight = 1.0 / ready if ready > 0 else 0.0
        total = 0.0
        if has_momentum:
            total += weight * momentum
        if has_base_rate:
            total += weight * base_rate
        out[P_UP, i] = total if ready > 0 else np.nan
        out[P_MOMENTUM, i] = momentum
        out[P_BASE_RATE, i] = base_rate
        out[W_MOMENTUM, i] = weight if has_momentum else 0.0
        out[W_BASE_RATE, i] = weight if has_base_rate else 0.0
        out[SIGMA, i] = ewma_vol[i] * np.sqrt(float(horizon))
