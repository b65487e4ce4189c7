"""Volatility from the range of bars: open, high, low and close say more than closes (QUANT 1.4)."""

import math

from pipeline.kernels.hot import piece
from pipeline.kernels.layout import (
    BARS,
    CLOSE,
    LN2,
    W_GARMAN_KLASS,
    W_OPEN_CLOSE,
    W_OPEN_GAP,
    W_PARKINSON,
    W_ROGERS_SATCHELL,
    log_ratio,
    place,
)
from pipeline.kernels.windows import (
    full,
    inverse,
    moments_push,
    moments_read,
    sum_push,
    sum_read,
)
from schemas.blocks import Array

PARKINSON = 1.0 / (4.0 * LN2)


@piece
def ranges_update(
    f: Array,
    k: Array,
    plan: Array,
    o: float,
    h: float,
    low: float,
    c: float,
    ret: float,
    out: Array,
    i: int,
) -> None:
    """Columns 4 to 6: Parkinson 1980, Garman-Klass 1980, Yang-Zhang 2000 (with Rogers-Satchell)."""
    if not (o > 0.0 and h > 0.0 and low > 0.0 and c > 0.0):
        return
    if k[BARS] > 0 and f[CLOSE] > 0.0:
        gap = ret if o == c else log_ratio(o, f[CLOSE])
        moments_push(f, k, place(plan, W_OPEN_GAP), gap)
    hl = 0.0
    co = 0.0
    rs = 0.0
    if not (h == low and o == c):
        hl = log_ratio(h, low)
        co = log_ratio(c, o)
        rs = log_ratio(h, c) * log_ratio(h, o) + log_ratio(low, c) * log_ratio(low, o)
    sum_push(f, k, place(plan, W_PARKINSON), hl * hl)
    sum_push(f, k, place(plan, W_GARMAN_KLASS), 0.5 * hl * hl - (2.0 * LN2 - 1.0) * co * co)
    sum_push(f, k, place(plan, W_ROGERS_SATCHELL), rs)
    moments_push(f, k, place(plan, W_OPEN_CLOSE), co)
    w = place(plan, W_PARKINSON)
    if full(k, w):
        out[4, i] = math.sqrt(sum_read(f, k, w) * inverse(w[0]) * PARKINSON)
    w = place(plan, W_GARMAN_KLASS)
    if full(k, w):
        out[5, i] = math.sqrt(max(sum_read(f, k, w) * inverse(w[0]), 0.0))
    w = place(plan, W_OPEN_GAP)
    if full(k, w) and full(k, place(plan, W_ROGERS_SATCHELL)):
        n = w[0]
        share = 0.34 / (1.34 + (n + 1) * inverse(n - 1))
        _, gap_m2 = moments_read(f, k, w)
        _, day_m2 = moments_read(f, k, place(plan, W_OPEN_CLOSE))
        mean = sum_read(f, k, place(plan, W_ROGERS_SATCHELL)) * inverse(n)
        variance = (gap_m2 + share * day_m2) * inverse(n - 1) + (1.0 - share) * mean
        out[6, i] = math.sqrt(max(variance, 0.0))
