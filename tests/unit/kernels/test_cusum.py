"""Average run lengths of the cumulative sums: by a Markov chain and by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from pipeline.kernels import cusum as kernels
from schemas.blocks import Array

SLACK = 0.5
# Montgomery, Introduction to Statistical Quality Control, table 9.3: slack .5, threshold 5.
MONTGOMERY = {0.0: "465", 0.5: "38", 1.0: "10.4", 2.0: "4.01"}


def alarms(z: Array, threshold: float = 5.0) -> tuple[Array, Array]:
    """Tags and sums of one series."""
    n = len(z)
    tags, sums, zeros = np.empty(n, np.int32), np.empty(n), np.zeros(n, np.int32)
    state = np.zeros(1, np.int64), np.zeros((1, 2))
    kernels.cusum(SLACK, threshold, zeros, zeros, z, *state, tags, sums)
    return tags, sums


def one_sided(threshold: float, shift: float, states: int = 400) -> float:
    """The average run length of S+ alone by the Markov chain of Brook and Evans (1972)."""
    width = 2 * threshold / (2 * states - 1)
    at = np.arange(states)
    upper = norm.cdf((at[None, :] - at[:, None] + 0.5) * width + SLACK - shift)
    moves = upper - norm.cdf((at[None, :] - at[:, None] - 0.5) * width + SLACK - shift)
    moves[:, 0] = norm.cdf((-at + 0.5) * width + SLACK - shift)
    return float(np.linalg.solve(np.eye(states) - moves, np.ones(states))[0])


def run_length(threshold: float, shift: float) -> float:
    """Of both sums: their rates of alarm add up (Kemp 1961)."""
    return 1 / (1 / one_sided(threshold, shift) + 1 / one_sided(threshold, -shift))


@pytest.mark.parametrize("shift", MONTGOMERY)
def test_run_lengths(shift: float) -> None:
    """Simulated ones are those of the chain, within four standard errors; it is the textbook's."""
    expected = run_length(5, shift)
    assert f"{expected:.3g}" == MONTGOMERY[shift]
    z = np.random.default_rng(11).normal(shift, 1, 2_000_000)
    lengths = np.diff(np.flatnonzero(alarms(z)[0] >= 0), prepend=-1)
    error = lengths.std() / math.sqrt(len(lengths))
    # 4,300 runs of mean 465 have a standard error of 7, 500,000 of mean 4 one of .002; the chain's
    # 400 states are within 1e-5 of its limit.
    assert abs(lengths.mean() - expected) < 4 * error
    assert error < 0.02 * expected


def test_the_chain_of_the_run_lengths() -> None:
    """QUANT.md 2.3, and the simulation notices another threshold."""
    assert round(run_length(5, 0), 2) == 465.43
    assert round(run_length(4, 0), 1) == 167.7
    z = np.random.default_rng(11).normal(0, 1, 500_000)
    lengths = np.diff(np.flatnonzero(alarms(z, 4.0)[0] >= 0), prepend=-1)
    assert lengths.mean() == pytest.approx(167.7, rel=0.07)  # 3,000 runs: four times 1.8 %


def test_sums_by_hand() -> None:
    """Up, down, begun anew after an alarm, waiting at a null; the larger one shows."""
    z = np.array([1.0, 3.0, np.nan, 2.5, 1.0, -4.0, 3.0, -3.0, 0.0])
    tags, sums = alarms(z)
    np.testing.assert_array_equal(sums, [0.5, 3.0, np.nan, 5.0, 5.5, -3.5, 2.5, -2.5, -2.0])
    tags, sums = alarms(np.array([1.0, 3.0, np.nan, 2.5, 1.0, -4.0, -2.5, 0.0]))
    np.testing.assert_array_equal(sums, [0.5, 3.0, np.nan, 5.0, 5.5, -3.5, -5.5, 0.0])
    assert tags.tolist() == [-1, -1, -1, -1, kernels.UP, -1, kernels.DOWN, -1]


def test_a_return_is_measured_by_the_volatility_before_it() -> None:
    """Its own bar's volatility has it in it; none, zero and null volatilities tell nothing."""
    ret = np.array([np.nan, 0.1, 0.4, np.nan, -9.0, 0.2, 0.2, 1e300])
    vol = np.array([np.nan, 0.1, 0.2, np.nan, 0.0, np.nan, 0.5, 0.5])
    life = np.zeros(8, np.int32)
    symbol, z = np.zeros(8, np.int32), np.empty(8)
    kernels.standardised(symbol, life, ret, vol, np.zeros(1, np.int64), np.zeros(1), z)
    np.testing.assert_allclose(
        z, [np.nan, np.nan, 4.0, np.nan, -45.0, np.nan, np.nan, kernels.MOST], rtol=1e-15
    )


def test_another_instrument_begins_anew() -> None:
    """Neither volatility nor sums pass from one life of a symbol to the next."""
    life, symbol = np.array([0, 0, 1, 1], np.int32), np.zeros(4, np.int32)
    ret, vol, z = np.full(4, 2.0), np.ones(4), np.empty(4)
    kernels.standardised(symbol, life, ret, vol, np.zeros(1, np.int64), np.zeros(1), z)
    np.testing.assert_array_equal(z, [np.nan, 2.0, np.nan, 2.0])
    tags, sums = np.empty(4, np.int32), np.empty(4)
    state = np.zeros(1, np.int64), np.zeros((1, 2))
    kernels.cusum(SLACK, 5.0, symbol, life, np.full(4, 2.0), *state, tags, sums)
    assert sums.tolist() == [1.5, 3.0, 1.5, 3.0]
