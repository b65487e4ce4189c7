"""Bayesian online change-point detection (Adams and MacKay 2007) of normal observations."""

import math

import numpy as np

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

LIFE, RUNS, LIKELIEST, RECENT = range(4)  # int state of a symbol
INT_STATE = 4
WEIGHT, MU, BETA = range(3)  # float state of a run: log probability, and its normal-inverse-gamma
RUN_FLOATS = 3
P_RECENT, RUN = range(2)  # float outputs
FLOATS = 2
IS_RECENT, IS_DROP, IS_BOTH = range(3)  # tags


@piece
def gamma_half(a: float) -> float:
    """ln(gamma(a + 1/2) / gamma(a)), a > 0: for a large a by its series, not by a difference."""
    if a < 20.0:
        return math.lgamma(a + 0.5) - math.lgamma(a)
    square = 1.0 / (a * a)
    tail = -1.0 / 8.0 + square * (1.0 / 192.0 + square * (-1.0 / 640.0 + square * 17.0 / 14336.0))
    return 0.5 * math.log(a) + tail / a


@piece
def begin(prior: Array, runs: Array, floats: Array) -> int:
    """One run of length 0 before the first observation; the number of runs."""
    runs[0] = 0
    floats[WEIGHT, 0] = 0.0
    floats[MU, 0] = prior[0]
    floats[BETA, 0] = prior[3]
    return 1


@piece
def observe(
    hazard: float, prior: Array, prune: float, y: float, n: int, runs: Array, floats: Array
) -> tuple[int, float]:
    """Move the posterior of the run length past y; the number of runs, and y's log density.

    A run of length r has seen the last r observations. Its predictive density is Student's t of
    the normal-inverse-gamma with kappa = kappa0 + r, alpha = alpha0 + r / 2, and its own mu, beta.

    Args:
        hazard: probability of a change at each observation.
        prior: mu, kappa, alpha, beta.
        prune: runs less probable than this are forgotten; the run of length 0 never is.
        y: the observation.
        n: number of runs, below the room for them.
        runs: lengths, ascending; as many as there is room for.
        floats: (RUN_FLOATS, room).
    """
    mu0, kappa0, alpha0, beta0 = prior[0], prior[1], prior[2], prior[3]
    weights, mus, betas = floats[WEIGHT], floats[MU], floats[BETA]
    top = -np.inf
    for j in range(n):
        kappa = kappa0 + runs[j]
        alpha = alpha0 + 0.5 * runs[j]
        spread = 2.0 * betas[j] * (kappa + 1.0) / kappa
        away = y - mus[j]
        tail = (alpha + 0.5) * math.log1p(away * away / spread)
        weights[j] += gamma_half(alpha) - 0.5 * math.log(math.pi * spread) - tail
        top = max(top, weights[j])
    total = 0.0
    for j in range(n):
        total += math.exp(weights[j] - top)
    density = top + math.log(total)
    growth = math.log1p(-hazard) - density
    for back in range(n):
        j = n - 1 - back
        kappa = kappa0 + runs[j]
        away = y - mus[j]
        runs[j + 1] = runs[j] + 1
        weights[j + 1] = weights[j] + growth
        mus[j + 1] = (kappa * mus[j] + y) / (kappa + 1.0)
        betas[j + 1] = betas[j] + kappa * away * away / (2.0 * (kappa + 1.0))
    runs[0] = 0
    weights[0] = math.log(hazard)
    mus[0] = mu0
    betas[0] = beta0
    return forget(prune, n + 1, runs, floats), density


@piece
def forget(prune: float, n: int, runs: Array, floats: Array) -> int:
    """Drop improbable runs, and the least probable one if no room is left; how many stay."""
    room = runs.shape[0]
    weights = floats[WEIGHT]
    least = math.log(prune) if prune > 0.0 else -np.inf
    kept = 1
    worst = 1
    for j in range(1, n):
        if weights[j] > least:
            if kept != j:
                runs[kept] = runs[j]
                for f in range(RUN_FLOATS):
                    floats[f, kept] = floats[f, j]
            if weights[kept] < weights[worst]:
                worst = kept
            kept += 1
    if kept == room:
        kept -= 1
        for j in range(worst, kept):
            runs[j] = runs[j + 1]
            for f in range(RUN_FLOATS):
                floats[f, j] = floats[f, j + 1]
    if kept < n:
        total = 0.0
        for j in range(kept):
            total += math.exp(weights[j])
        total = math.log(total)
        for j in range(kept):
            weights[j] -= total
    return kept


@loop
def bocpd(
    hazard: float,
    prior: Array,
    prune: float,
    recent: int,
    level: float,
    symbol: Array,
    life: Array,
    z: Array,
    ints: Array,
    runs: Array,
    floats: Array,
    tags: Array,
    out: Array,
) -> None:
    """Follow z (n,) into `out` (FLOATS, n or more), alarms into `tags` (n or more,).

    P(r < `recent`) and the most probable run length r, both after the bar. An alarm is when the
    former rises to `level`, or the latter falls. (P(r = 0) is the hazard at every bar, whatever
    was observed: no alarm can rest on it.) State, a row per symbol: `ints` (s, INT_STATE), `runs`
    (s, room) and `floats` (s, RUN_FLOATS, room). A null z leaves it alone.
    """
    for i in range(symbol.shape[0]):
        s = symbol[i]
        own = ints[s]
        tags[i] = -1
        out[P_RECENT, i] = np.nan
        out[RUN, i] = np.nan
        if life[i] != own[LIFE]:
            own[LIFE] = life[i]
            own[RUNS] = 0
        if np.isnan(z[i]):
            continue
        if own[RUNS] == 0:
            own[RUNS] = begin(prior, runs[s], floats[s])
            own[LIKELIEST] = 0
            own[RECENT] = 1  # the first run is recent; that is no alarm
        n, _ = observe(hazard, prior, prune, z[i], own[RUNS], runs[s], floats[s])
        weights = floats[s, WEIGHT]
        best = 0
        p_recent = 0.0
        for j in range(n):
            if weights[j] > weights[best]:
                best = j
            if runs[s, j] < recent:
                p_recent += math.exp(weights[j])
        is_recent = p_recent >= level
        risen = is_recent and own[RECENT] == 0
        fallen = runs[s, best] < own[LIKELIEST]
        if risen:
            tags[i] = IS_BOTH if fallen else IS_RECENT
        elif fallen:
            tags[i] = IS_DROP
        own[RUNS] = n
        own[LIKELIEST] = runs[s, best]
        own[RECENT] = 1 if is_recent else 0
        out[P_RECENT, i] = min(p_recent, 1.0)
        out[RUN, i] = runs[s, best]
