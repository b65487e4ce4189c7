"""The bets are fair, ranks are those of scipy, evidence is what its formula says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import rankdata

from pipeline.kernels import drift
from pipeline.kernels.hot import loop
from schemas.blocks import Array

EVEN = np.full((drift.SIDES, drift.BETS), 1 / (drift.SIDES * drift.BETS))
BET = [0.15, 0.4, 0.8]  # what they tilt
POWER = [0.5, 0.25]


@loop
def _bets(p: Array, out: Array) -> None:
    for kind in range(out.shape[0]):
        for i in range(p.shape[0]):
            out[kind, i] = drift.bet(kind, p[i])


@loop
def _ranks(x: Array, edges: Array, counts: Array, out: Array) -> None:
    for i in range(x.shape[0]):
        out[i] = drift.rank(edges, counts, i, x[i])


@loop
def _evidence(
    x: Array,
    centre: float,
    weights: Array,
    ints: Array,
    edges: Array,
    counts: Array,
    evidence: Array,
    since: Array,
    out: Array,
) -> None:
    for i in range(x.shape[0]):
        out[i] = drift.observe(x[i], i, centre, weights, ints, edges, counts, evidence, since)


def bets(p: Array) -> Array:
    """What every bet makes of ranks (n,): (BETS, n)."""
    out = np.empty((drift.BETS, len(p)))
    _bets(np.asarray(p, float), out)
    return out


def formula(kind: int, p: float) -> float:
    """The same, as it is written."""
    if kind < len(BET):
        return 1 + BET[kind] * (2 * p - 1)
    power = POWER[kind - len(BET)]
    return float(power * (1 - p) ** (power - 1))


def test_bets_are_fair_and_convex() -> None:
    """None is negative, each has the mean 1 over uniform ranks, and lies below its chords."""
    p = np.linspace(0.001, 0.999, 999)
    said = bets(p)
    for kind in range(drift.BETS):
        assert_allclose(said[kind], [formula(kind, float(x)) for x in p], rtol=1e-14)
        mean, error = quad(lambda x, k=kind: float(bets(np.array([x]))[k, 0]), 0, 1)
        assert mean == pytest.approx(1, abs=max(1e-9, 10 * error))
    assert (said > 0).all()
    assert (np.diff(said, 2, axis=1) >= -1e-12).all()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60))
def test_ranks_are_the_middle_ones(values: list[int]) -> None:
    """Among all before it and itself, in bins of the values themselves."""
    x = np.array(values, float)
    edges = np.arange(-3, 4) + 0.5
    out, counts = np.empty(len(x)), np.zeros(len(edges) + 1, np.int64)
    _ranks(x, edges, counts, out)
    for i in range(len(x)):
        assert out[i] == pytest.approx((rankdata(x[: i + 1])[i] - 0.5) / (i + 1), abs=1e-15)
    assert counts.sum() == len(x)


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=80), st.integers(0, 2**32))
@settings(max_examples=60)
def test_evidence_is_what_its_formula_says(values: list[float], seed: int) -> None:
    """max(M, 1) f(p) for every bet that has a weight, and their mean."""
    x = np.array(values)
    weights = np.random.default_rng(seed).integers(0, 3, (drift.SIDES, drift.BETS)) / 30
    edges = np.stack([np.linspace(-3, 3, 63), np.linspace(0.1, 4, 63)])
    ints, counts = np.zeros(drift.INTS, np.int64), np.zeros((2, 64), np.int64)
    shape = (drift.SIDES, drift.BETS)
    evidence, since, out = np.zeros(shape), np.zeros(shape, np.int64), np.empty(len(x))
    _evidence(x, 0.25, weights, ints, edges, counts, evidence, since, out)
    said = np.ones(shape)
    for i in range(len(x)):
        for score, scored in enumerate((x, np.abs(x - 0.25))):
            bins = np.searchsorted(edges[score], scored[: i + 1], side="right")
            p = (rankdata(bins)[i] - 0.5) / (i + 1)
            for way, q in enumerate((p, 1 - p)):
                side = 2 * score + way
                for kind in range(drift.BETS):
                    said[side, kind] = max(said[side, kind], 1.0) * formula(kind, q)
        assert out[i] == pytest.approx((weights * said).sum(), rel=1e-10)
    assert ints[drift.COUNT] == len(x)
    assert not evidence[weights == 0].any()


def test_alarms_are_as_rare_as_promised() -> None:
    """Independent values: at most one alarm in `limit` looks, from the first look on."""
    rng = np.random.default_rng(11)
    d, n, limit = 20, 100_000, 500.0
    x = rng.standard_cauchy((n, d))
    state = state_of(d, 0)
    ints, _, centre, edges, counts, evidence, since = state
    cuts = np.tan(np.pi * (np.arange(1, 64) / 64 - 0.5))
    ints[:, :, drift.STRIDE] = 1
    edges[:, :, 0], edges[:, :, 1] = cuts, np.tan(np.pi / 2 * np.arange(1, 64) / 64)
    due, alarms, row = np.zeros(d, np.int64), 0, 0
    zeros = np.zeros(n, np.int64)
    while row < n:
        row = drift.watch(row, zeros, zeros, x, limit, EVEN, due, *state)
        alarms += int((due == drift.ALARM).sum())
        for j in np.flatnonzero(due):  # it begins anew, ranks and all
            counts[0, j], evidence[0, j], ints[0, j, drift.COUNT] = 0, 0.0, 0
        due[:] = 0
    assert not centre.any()
    assert not since.any()
    assert 10 < alarms < n * d / limit


def state_of(d: int, held: int) -> list[Array]:
    """The state of one symbol."""
    return [
        np.zeros((1, d, drift.INTS), np.int64),
        np.zeros((1, d, held)),
        np.zeros((1, d)),
        np.zeros((1, d, drift.SCORES, drift.BINS - 1)),
        np.zeros((1, d, drift.SCORES, drift.BINS), np.int64),
        np.zeros((1, d, drift.SIDES, drift.BETS)),
        np.zeros((1, d, drift.SIDES, drift.BETS), np.int64),
    ]


def test_nulls_are_no_rows_and_strides_are_kept() -> None:
    """Every third value that is one is looked at; what cannot be compared is left alone."""
    x = np.arange(20.0)[:, None].repeat(3, axis=1)
    x[::2, 0] = math.nan
    state = state_of(3, 4)
    state[0][0, :, drift.STRIDE] = 3, -1, 0
    state[0][0, :, drift.WAIT] = 1
    due, zeros = np.zeros(3, np.int64), np.zeros(20, np.int64)
    assert drift.watch(0, zeros, zeros, x, 1e9, EVEN, due, *state) == 4
    assert due.tolist() == [0, 0, drift.MEASURED]
    assert state[1][0, 2].tolist() == [0, 1, 2, 3]
    state[0][0, 2, drift.STRIDE] = -1
    assert drift.watch(4, zeros, zeros, x, 1e9, EVEN, due, *state) == 20
    assert state[0][0, :, drift.COUNT].tolist() == [4, 0, 0]
