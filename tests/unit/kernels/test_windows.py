"""Rolling windows against two-pass values and numpy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pipeline.kernels import windows as window_pieces
from schemas.blocks import Array
from tests.fixtures.pieces import standalone

windows = standalone(window_pieces)

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def state(floats: int) -> tuple[Array, Array]:
    """A fresh state with some room around the window, to see writes beside it."""
    f = np.zeros(floats + 8)
    f[:4] = f[-4:] = 77.0
    return f, np.zeros(windows.COUNTERS + 2, np.int64)


def stream(
    values: Any,
    n: int,
    shape: window_pieces.Shape,
    push: Callable[..., None],
    read: Callable[..., Any],
) -> list[Any]:
    """What a window of n says after each value."""
    f, k = state(windows.floats_of(shape, n))
    w = windows.alone(shape, n, 4, 1)
    out = []
    for value in values:
        push(f, k, w, *np.atleast_1d(value))
        out.append(read(f, k, w))
    assert (f[:4] == 77).all() and (f[-4:] == 77).all() and k[0] == k[-1] == 0  # noqa: PT018 -- one fact
    return out


def variances(values: Any, n: int) -> Array:
    """Population variances by the window under test, NaN before it is full."""
    found = stream(values, n, windows.MOMENTS, windows.moments_push, windows.moments_read)
    return np.array([m2 / n if i >= n - 1 else math.nan for i, (_, m2) in enumerate(found)])


def two_pass(values: Array, n: int) -> Array:
    """The truth: variance of each window around its own mean, relative to one of its values."""
    truth = [np.var(values[i - n + 1 : i + 1] - values[i]) for i in range(n - 1, len(values))]
    return np.array([math.nan] * (n - 1) + truth)


@pytest.mark.parametrize(
    ("level", "sd"), [(1e3, 1.0), (1e5, 0.1), (1e8, 0.01)], ids=["1e3", "1e5", "1e8"]
)
def test_variance_keeps_its_digits_at_any_level(level: float, sd: float) -> None:
    """A 20-window variance is right to 1e-10 where sums of squares have no digit left."""
    walk = level + np.cumsum(np.random.default_rng(1).normal(0, sd, 3000))
    assert_allclose(variances(walk, 20), two_pass(walk, 20), rtol=1e-10)


@pytest.mark.parametrize("at", [0, 500, 519, 520, 539])
def test_a_spike_leaves_no_trace(at: int) -> None:
    """A 1e9 print, wherever it stands in a block, is forgotten when the window has passed it."""
    returns = np.random.default_rng(2).normal(0, 0.01, 1500)
    returns[at] = 1e9
    after = slice(at + 20, None)
    assert_allclose(variances(returns, 20)[after], two_pass(returns, 20)[after], rtol=1e-10)


def test_equal_values_have_no_variance_at_all() -> None:
    """Constant windows give exactly 0, also after other values, so that sd = 0 can be seen."""
    values = np.r_[np.random.default_rng(3).normal(1640, 1, 33), np.full(60, 1640.3)]
    assert (variances(values, 20)[33 + 20 :] == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=60), st.integers(1, 9))
def test_sums_and_maxima_equal_the_plain_ones(values: list[float], n: int) -> None:
    """Sum and maximum of the last n values, from the first value on."""
    last = [values[max(0, i - n + 1) : i + 1] for i in range(len(values))]
    sums = stream(values, n, windows.SUM, windows.sum_push, windows.sum_read)
    assert_allclose(sums, [math.fsum(w) for w in last], rtol=1e-12, atol=1e-8)
    maxima = stream(values, n, windows.MAX, windows.max_push, windows.max_read)
    assert maxima == [max(w) for w in last]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=60), st.integers(2, 9))
def test_moments_and_pairs_equal_the_two_pass_ones(
    pairs: list[tuple[float, float]], n: int
) -> None:
    """Sums of squared deviations and of their products, of the last n pairs."""
    table = np.array(pairs)
    found = stream(table, n, windows.PAIRS, windows.pairs_push, windows.pairs_read)
    push, read = windows.moments_push, windows.moments_read
    moments = stream(table[:, 0], n, windows.MOMENTS, push, read)
    for i, (cxx, cxy, cyy) in enumerate(found):
        part = table[max(0, i - n + 1) : i + 1]
        x, y = (part - part.mean(axis=0)).T
        scale = float(np.square(part).sum()) * 1e-12 + 1e-300
        assert_allclose((cxx, cxy, cyy), ((x * x).sum(), (x * y).sum(), (y * y).sum()), 1e-9, scale)
        assert_allclose(moments[i][1], (x * x).sum(), 1e-9, scale)


def test_counts_and_lags() -> None:
    """A window knows how many values it holds; a ring gives back any of its lags."""
    f, k = state(5)
    w = windows.alone(windows.LAG, 5, 4, 1)
    for i in range(13):
        windows.lag_push(f, k, w, float(i))
        assert windows.held(k, w) == min(i + 1, 5)
        assert windows.full(k, w) == (i >= 4)
        for h in range(min(i + 1, 5)):
            assert windows.lag_read(f, k, w, h) == i - h
