"""The rule by which a version is better, against scipy, and how often it is wrong."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss

from pipeline.models.comparison import _T95, STRETCHES, compare
from schemas.blocks import Array

N = 12_000


def outcomes(seed: int, n: int = N) -> tuple[Array, Array, Array]:
    """True probabilities, what came, and times that stand in no order."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.2, 0.8, n)
    return p, rng.random(n) < p, rng.permutation(n)


def test_it_is_the_t_test_of_stretches() -> None:
    """Means by scikit-learn, the standard error by scipy, rows in the order of time."""
    p, rose, ts = outcomes(1)
    other = np.clip(p + np.random.default_rng(2).normal(0, 0.02, N), 0, 1)
    found = compare(other, p, rose, ts, 1)
    assert found.challenger == pytest.approx(log_loss(rose, other), rel=1e-12)
    assert found.champion == pytest.approx(log_loss(rose, p), rel=1e-12)
    order = np.argsort(ts)
    each = [
        -np.log(np.where(rose, q, 1 - q))[order].reshape(STRETCHES, -1).mean(axis=1)
        for q in (other, p)
    ]
    test = stats.ttest_rel(*each)
    assert found.standard_error == pytest.approx(stats.sem(each[0] - each[1]), rel=1e-9)
    assert found.better == (test.statistic < stats.t.ppf(0.05, STRETCHES - 1))
    assert pytest.approx(-stats.t.ppf(0.05, STRETCHES - 1)) == _T95


def test_better_worse_and_equal() -> None:
    """The truth beats a blunt guess, not the other way round, and nobody beats themselves."""
    p, rose, ts = outcomes(3)
    blunt = np.full(N, 0.5)
    assert compare(p, blunt, rose, ts, 1).better
    assert not compare(blunt, p, rose, ts, 1).better
    same = compare(p, p, rose, ts, 1)
    assert (same.better, same.standard_error) == (False, 0.0)


def test_too_few_rows_tell_nothing() -> None:
    """Stretches must be long against the horizon; without rows there is nothing at all."""
    p, rose, ts = outcomes(4, 2400)
    blunt = np.full(2400, 0.5)
    assert compare(p, blunt, rose, ts, 20).better
    few = compare(p, blunt, rose, ts, 21)
    assert not few.better
    assert few.why == "2,400 rows are too few to tell: at least 2,520"
    assert not compare(p[:0], p[:0], rose[:0], ts[:0], 1).better


def test_how_often_it_is_wrong() -> None:
    """Labels of 20 bars that overlap, two that know nothing: about one in twenty."""
    horizon, n, wrong = 20, 4000, 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        rose = np.convolve(rng.normal(size=n + horizon), np.ones(horizon), "valid")[1:] > 0
        # Opinions that hold for long, as those of real models do.
        one, other = (
            0.5 + 0.05 * np.sin(np.arange(n) / 40 + phase) for phase in rng.uniform(0, 6.28, 2)
        )
        wrong += compare(one, other, rose, np.arange(n), horizon).better
    assert 4 <= wrong <= 40
