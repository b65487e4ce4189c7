"""Two-sample tests that go on for ever: has a series changed since it was first watched?

Of a series every `stride`th value is looked at, so far apart that they hang together little. Each
is ranked among all that were looked at before it. While nothing changes, the rank p is uniform and
independent of the ranks before it, whatever the distribution (Vovk, Gammerman and Shafer 2005, ch.
7). Bets on what a change would make of p multiply an evidence M = max(M, 1) f(p), where f >= 0 has
the mean 1: a CUSUM e-detector (Shin, Ramdas and Rinaldo 2024, New England J. Statistics in Data
Science 2, 229). An alarm at a mean evidence of c or more comes, while nothing changes, after c
observations at the least in expectation: that is Theorem 2.4 there, and holds for any mean of them.

A rank is kept as a count of equal bins: values of one bin count as equal, and have the middle of
their ranks. That can only make bets smaller that are convex in p, and all of them are.
"""

import math
from typing import Final

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

BINS: Final = 64
STRIDE, WAIT, HELD, COUNT = range(4)  # ints of a series: stride 0 while it is measured, -1 never
INTS: Final = 4
VALUE, SPREAD = range(2)  # what is ranked: the value, its distance from the first median
SCORES: Final = 2
UP, DOWN = range(2)
SIDES: Final = 4  # the two ways of both scores
BETS: Final = 5
MEASURED, ALARM = 1, 2  # what is due of a series


@piece
def bet(kind: int, p: float) -> float:
    """What a bet on high ranks makes of one unit: convex in p, with the mean 1."""
    if kind == 0:
        return 1.0 + 0.15 * (2.0 * p - 1.0)
    if kind == 1:
        return 1.0 + 0.4 * (2.0 * p - 1.0)
    if kind == 2:
        return 1.0 + 0.8 * (2.0 * p - 1.0)
    if kind == 3:
        return 0.5 / math.sqrt(1.0 - p)
    return 0.25 / math.sqrt(1.0 - p) / math.sqrt(math.sqrt(1.0 - p))


@piece
def rank(edges: Array, counts: Array, n: int, x: float) -> float:
    """The middle rank of x among n values before it and itself, in (0, 1); then it is counted."""
    low, high = 0, edges.shape[0]
    while low < high:  # the first edge that is above x
        middle = (low + high) // 2
        if x < edges[middle]:
            high = middle
        else:
            low = middle + 1
    below = 0
    for b in range(low):
        below += counts[b]
    p = (below + 0.5 * (counts[low] + 1)) / (n + 1)
    counts[low] += 1
    return float(p)


@piece
def observe(
    x: float,
    ts: int,
    centre: float,
    weights: Array,
    ints: Array,
    edges: Array,
    counts: Array,
    evidence: Array,
    since: Array,
) -> float:
    """Look at one value of a series: the mean of its evidence by `weights` (SIDES, BETS)."""
    total = 0.0
    for score in range(2):
        value = x if score == VALUE else abs(x - centre)
        p = rank(edges[score], counts[score], ints[COUNT], value)
        for way in range(2):
            side = 2 * score + way
            own, began = evidence[side], since[side]
            q = p if way == UP else 1.0 - p
            for kind in range(own.shape[0]):
                if weights[side, kind] == 0.0:
                    continue
                if own[kind] <= 1.0:
                    own[kind] = 1.0
                    began[kind] = ts
                own[kind] *= bet(kind, q)
                total += weights[side, kind] * own[kind]
    ints[COUNT] += 1
    return float(total)


@loop
def watch(
    begin: int,
    symbol: Array,
    ts: Array,
    x: Array,
    limit: float,
    weights: Array,
    due: Array,
    ints: Array,
    held: Array,
    centre: Array,
    edges: Array,
    counts: Array,
    evidence: Array,
    since: Array,
) -> int:
    """Watch the series x (n, d) of symbols (n,) from row `begin` on; how many rows are done.

    It ends after a row that leaves something to do, told in `due` (d,): a series `MEASURED` has
    filled its `held`, one in `ALARM` has evidence of `limit` / stride or more. Nulls are no rows.
    State, a row per symbol and series: ints (s, d, INTS), held (s, d, values), centre (s, d), edges
    (s, d, SCORES, BINS - 1), counts (s, d, SCORES, BINS), evidence and since (s, d, SIDES, BETS).
    """
    for i in range(begin, x.shape[0]):
        stop = False
        s = symbol[i]
        if s < 0:
            continue
        for j in range(x.shape[1]):
            value = x[i, j]
            own = ints[s, j]
            if math.isnan(value) or own[STRIDE] < 0:
                continue
            if own[STRIDE] == 0:
                held[s, j, own[HELD]] = value
                own[HELD] += 1
                if own[HELD] == held.shape[2]:
                    due[j] = MEASURED
                    stop = True
                continue
            own[WAIT] -= 1
            if own[WAIT] > 0:
                continue
            own[WAIT] = own[STRIDE]
            found = observe(
                value,
                ts[i],
                centre[s, j],
                weights,
                own,
                edges[s, j],
                counts[s, j],
                evidence[s, j],
                since[s, j],
            )
            if found * own[STRIDE] >= limit:
                due[j] = ALARM
                stop = True
        if stop:
            return i + 1
    return int(x.shape[0])
