"""The Hamilton filter of a Gaussian hidden Markov model in the log domain, and its smoother."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array
from schemas.models import HmmParameters

LIFE, HELD = range(2)  # int state of a symbol: its instrument; states of its filter, 0 at a start
INT_STATE = 2
P_LOW, P_HIGH, ENTROPY = range(3)  # float outputs
FLOATS = 3


def stationary(transition: Array | Sequence[Sequence[float]]) -> Array:
    """The stationary distribution (k,) of an irreducible chain.

    By the elimination of Grassmann, Taksar and Heyman (1985): no subtraction, no LAPACK, so that
    the bits are the same wherever IEEE arithmetic is.
    """
    p = np.array(transition, np.float64)
    k = len(p)
    for n in range(k - 1, 0, -1):
        p[:n, n] /= p[n, :n].sum()
        p[:n, :n] += np.multiply.outer(p[:n, n], p[n, :n])
    found = np.ones(k)
    for n in range(1, k):
        found[n] = (found[:n] * p[:n, n]).sum()
    return np.asarray(found / found.sum())


def log_norms(sd: Array) -> Array:
    """-ln(sd sqrt(2 pi)) of each."""
    return np.asarray(-np.log(sd) - 0.5 * math.log(2.0 * math.pi))


@piece
def predict(k: int, transition: Array, p: Array, predicted: Array) -> None:
    """Probabilities one step on: `predicted`[j] = sum of p[i] transition[i, j]."""
    for j in range(k):
        total = 0.0
        for i in range(k):
            total += p[i] * transition[i, j]
        predicted[j] = total


@piece
def correct(
    k: int, mean: Array, sd: Array, log_norm: Array, y: float, predicted: Array, p: Array
) -> float:
    """Filtered probabilities `p` (k,) from those that were predicted; the log density of y.

    `log_norm` is -ln(sd sqrt(2 pi)). In logs, so that no density of a far y is zero in all states.
    """
    top = -np.inf
    for j in range(k):
        z = (y - mean[j]) / sd[j]
        p[j] = math.log(predicted[j]) + log_norm[j] - 0.5 * z * z
        top = max(top, p[j])
    total = 0.0
    for j in range(k):
        p[j] = math.exp(p[j] - top)
        total += p[j]
    for j in range(k):
        p[j] /= total
    return top + math.log(total)


@loop
def run_filter(
    y: Array,
    start: Array,
    transition: Array,
    mean: Array,
    sd: Array,
    log_norm: Array,
    predicted: Array,
    filtered: Array,
) -> float:
    """The log likelihood of y (n,); Pr(state | y before it) and Pr(state | y up to it), (n, k)."""
    k = mean.shape[0]
    llf = 0.0
    for t in range(y.shape[0]):
        if t == 0:
            for j in range(k):
                predicted[0, j] = start[j]
        else:
            predict(k, transition, filtered[t - 1], predicted[t])
        llf += correct(k, mean, sd, log_norm, y[t], predicted[t], filtered[t])
    return llf


@loop
def run_smoother(
    transition: Array, predicted: Array, filtered: Array, smoothed: Array, pairs: Array
) -> None:
    """Pr(state | all y) into `smoothed` (n, k), and the sums over t of Pr(i at t, j at t + 1).

    Kim's backward pass: it knows the future, so it is for fitting only.
    """
    n, k = filtered.shape
    for j in range(k):
        smoothed[n - 1, j] = filtered[n - 1, j]
        for i in range(k):
            pairs[i, j] = 0.0
    for back in range(1, n):
        t = n - 1 - back
        for i in range(k):
            total = 0.0
            for j in range(k):
                if predicted[t + 1, j] > 0.0:
                    pair = filtered[t, i] * transition[i, j]
                    pair *= smoothed[t + 1, j] / predicted[t + 1, j]
                    pairs[i, j] += pair
                    total += pair
            smoothed[t, i] = total


class Tables(NamedTuple):
    """Parameters of several models as `hmm` takes them: a row each, room for `k` states."""

    states: Array  # int64 (models,): how many of them
    location: Array  # (models,), also the scale
    scale: Array
    start: Array  # (models, k), also the last three
    transition: Array  # (models, k, k)
    mean: Array
    sd: Array
    log_norm: Array


def tables(models: Sequence[HmmParameters], k: int) -> Tables:
    """The tables of models of at most k states; a filter begins at the stationary distribution."""
    n = len(models)
    found = Tables(
        np.array([one.states for one in models], np.int64),
        np.array([one.location for one in models]),
        np.array([one.scale for one in models]),
        np.zeros((n, k)),
        np.zeros((n, k, k)),
        np.zeros((n, k)),
        np.ones((n, k)),
        np.zeros((n, k)),
    )
    for row, one in enumerate(models):
        own = slice(one.states)
        found.start[row, own] = stationary(one.transition)
        found.transition[row, own, own] = one.transition
        found.mean[row, own] = one.mean
        found.sd[row, own] = np.sqrt(one.variance)
        found.log_norm[row, own] = log_norms(found.sd[row, own])
    return found


@loop
def hmm(
    model: Array,
    states: Array,
    location: Array,
    scale: Array,
    start: Array,
    transition: Array,
    mean: Array,
    sd: Array,
    log_norm: Array,
    symbol: Array,
    life: Array,
    ret: Array,
    ints: Array,
    probabilities: Array,
    predicted: Array,
    tags: Array,
    floats: Array,
) -> None:
    """Filter the log returns `ret` (n,) of bars into `tags` (n or more,) and `floats` (FLOATS, ..).

    `model` (symbols,) says which row of the `Tables` is a symbol's, -1 none. The state, a row per
    symbol, is the filtered `probabilities` (s, k); `predicted` (k,) is scratch. A tag is the most
    probable state: 0 the one of least variance, 2 the one of most, 1 between them. Entropy is in
    nats.
    A bar without a return, or without a model, has neither; the former leaves the state alone.
    """
    for i in range(symbol.shape[0]):
        s = symbol[i]
        m = model[s]
        own = ints[s]
        tags[i] = -1
        for j in range(FLOATS):
            floats[j, i] = np.nan
        if m < 0:
            own[HELD] = 0
            continue
        k = states[m]
        if life[i] != own[LIFE] or own[HELD] != k:
            own[LIFE] = life[i]
            own[HELD] = 0
        if np.isnan(ret[i]):
            continue
        p = probabilities[s]
        if own[HELD] == 0:
            for j in range(k):
                predicted[j] = start[m, j]
            own[HELD] = k
        else:
            predict(k, transition[m], p, predicted)
        y = (ret[i] - location[m]) / scale[m]
        correct(k, mean[m], sd[m], log_norm[m], y, predicted, p)
        best = 0
        entropy = 0.0
        for j in range(k):
            if p[j] > p[best]:
                best = j
            if p[j] > 0.0:
                entropy -= p[j] * math.log(p[j])
        tags[i] = best if best < k - 1 else 2
        floats[P_LOW, i] = p[0]
        floats[P_HIGH, i] = p[k - 1]
        floats[ENTROPY, i] = max(entropy, 0.0)
