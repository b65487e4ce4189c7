"""The filter and the fit against Stata's tables, statsmodels, hmmlearn and planted chains."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import arch.data.sp500
import hmmlearn.hmm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.tsa.regime_switching import markov_regression
from statsmodels.tsa.regime_switching.tests import test_markov_regression as stata

from pipeline.errors import MisuseError
from pipeline.kernels.hmm import stationary
from pipeline.models.hmm import Filtered, durations, fit, run_filter
from schemas.blocks import Array
from schemas.models import HmmParameters

# QUANT.md 2.3: maximum likelihood of statsmodels on 100 x log returns of the S&P 500, 1999-2018.
STAY, BACK = 0.987745959250947, 0.022204672718134987
MEANS = (0.06922924139040568, -0.08814309590237111)
VARIANCES = (0.4680425825740009, 3.2562901956976438)
# The filters differ in the order of sums and in exp(log p): some units of the last place a step,
# which the filter forgets.
NEAR = 5e-14


def two_states(
    stay: float, back: float, mean: tuple[float, ...], variance: tuple[float, ...]
) -> HmmParameters:
    """A chain that stays in its first state with `stay` and comes back to it with `back`."""
    rows = ((stay, 1 - stay), (back, 1 - back))
    return HmmParameters(transition=rows, mean=mean, variance=variance)


SPX = two_states(STAY, BACK, MEANS, VARIANCES)
FIRST = two_states(0.98, 0.02, (0.0, 0.0), (0.5, 4.0))


@cache
def spx() -> pd.Series:
    """100 x the daily log returns."""
    close: pd.Series = arch.data.sp500.load()["Close"]
    logs = pd.Series(np.log(close.to_numpy()), close.index)
    return 100 * logs.diff().dropna()


def returns() -> Array:
    """The same without their days."""
    return np.asarray(spx(), np.float64)


def judge(parameters: HmmParameters, start: Array | None = None) -> Any:
    """The same parameters as a model of hmmlearn."""
    model = hmmlearn.hmm.GaussianHMM(parameters.states, init_params="", params="")
    at_first = stationary(parameters.transition) if start is None else start
    model.startprob_, model.transmat_ = at_first, np.array(parameters.transition)
    model.means_ = np.array(parameters.mean)[:, None]
    model.covars_ = np.array(parameters.variance)[:, None]
    return model


def statsmodels_of(parameters: HmmParameters, y: Array) -> Any:
    """The filter of statsmodels with these parameters."""
    (stay, _), (back, _) = parameters.transition
    model = markov_regression.MarkovRegression(y, k_regimes=2, switching_variance=True)
    return model.smooth(np.array([stay, back, *parameters.mean, *parameters.variance]))


def test_fed_funds_as_stata_has_it() -> None:
    """Switching mean, one variance: Stata's log likelihood, and its table of probabilities."""
    rates = np.asarray(stata.fedfunds, np.float64)
    variance = 2.107562**2
    parameters = two_states(0.9820939, 0.0503587, (3.70877, 9.556793), (variance, variance))
    found = run_filter(parameters, rates)
    assert len(rates) == 226
    assert round(found.llf, 5) == -508.63592
    folder = Path(stata.__file__).parent / "results"
    table = pd.read_csv(folder / "results_predict_fedfunds.csv")
    # Stata computed it with its unrounded parameters; those printed have 7 digits.
    np.testing.assert_allclose(found.filtered[:, 0], table["const_f1"], atol=8e-7)


def test_the_sp500_at_the_parameters_of_maximum_likelihood() -> None:
    """Log likelihood, every probability by statsmodels, two days, the share of wild days, stays."""
    found = run_filter(SPX, returns())
    assert found.llf == pytest.approx(-7132.672263, abs=5e-7)
    other = statsmodels_of(SPX, returns())
    assert found.llf == pytest.approx(other.llf, rel=NEAR)
    np.testing.assert_allclose(found.filtered, other.filtered_marginal_probabilities, atol=NEAR)
    np.testing.assert_allclose(found.predicted, other.predicted_marginal_probabilities, atol=NEAR)
    high = pd.Series(found.filtered[:, 1], spx().index)
    assert round(float(high[pd.Timestamp("2008-10-10")]), 6) == 0.986691
    assert round(float(high[pd.Timestamp("2017-07-03")]), 6) == 0.010281
    assert round(float((high > 0.5).mean()), 3) == 0.345
    np.testing.assert_allclose(durations(SPX), [81.605735, 45.035566], rtol=1e-7)
    np.testing.assert_allclose(durations(SPX), other.expected_durations, rtol=1e-12)


def test_a_filtered_probability_is_the_last_smoothed_one() -> None:
    """It is predict_proba(x[:t])[-1] of hmmlearn; over the whole series that is another."""
    found, model = run_filter(SPX, returns()), judge(SPX)
    column = returns()[:, None]
    for t in (1, 2, 500, 2500, 5030):
        last = model.predict_proba(column[:t])[-1]
        # hmmlearn's forward and backward passes in logs: about 1e-16 a step.
        np.testing.assert_allclose(found.filtered[t - 1], last, atol=5e-13)
    smoothed = model.predict_proba(column)[:, 1]
    assert np.abs(smoothed - found.filtered[:, 1]).max() == pytest.approx(0.797, abs=5e-4)
    assert int(((smoothed > 0.5) != (found.filtered[:, 1] > 0.5)).sum()) == 413


@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_any_number_of_states_and_any_prefix(k: int, n: int, seed: int) -> None:
    """The likelihood of hmmlearn for k states; a later y changes no bit of what was filtered."""
    parameters, y = chance(k, n, seed)
    found = run_filter(parameters, y)
    assert found.llf == pytest.approx(judge(parameters).score(y[:, None]), rel=1e-12)
    cut = int(np.random.default_rng(seed).integers(0, n + 1))
    later = np.concatenate([y[:cut], y[cut:] * 2 + 1])
    for other in (run_filter(parameters, y[:cut]), run_filter(parameters, later)):
        assert upto(other, cut) == upto(found, cut)
    assert np.abs(found.filtered.sum(axis=1) - 1).max() < 1e-14


def upto(found: Filtered, cut: int) -> tuple[bytes, bytes]:
    """The bits of the first rows."""
    return found.predicted[:cut].tobytes(), found.filtered[:cut].tobytes()


def chance(k: int, n: int, seed: int) -> tuple[HmmParameters, Array]:
    """Random parameters of k states, and observations of all sizes."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(k), k) * 0.98 + 0.02 / k
    parameters = HmmParameters.model_validate(
        {
            "transition": (rows / rows.sum(axis=1, keepdims=True)).tolist(),
            "mean": rng.normal(0, 1, k).tolist(),
            "variance": np.sort(rng.uniform(0.1, 9, k)).tolist(),
        }
    )
    return parameters, rng.normal(0, 2, n) * rng.choice([1, 20], n)


def test_observations_that_no_state_expects() -> None:
    """Where every density underflows, logs still tell the states apart: the wider one is nearer."""
    found = run_filter(SPX, np.array([0.1, 1e6, -1e9, 0.0]))
    assert np.isfinite(found.filtered).all()
    assert found.filtered[1:3, 1].tolist() == [1.0, 1.0]
    assert math.isfinite(found.llf)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_stationary_distribution_stays(k: int) -> None:
    """It is pi P to the last place, sum 1; of two states it is (p10, p01) / (p10 + p01)."""
    p = np.random.default_rng(k).dirichlet(np.ones(k), k)
    found = stationary(p)
    np.testing.assert_allclose(found @ p, found, rtol=1e-15)
    assert found.sum() == pytest.approx(1, abs=1e-15)
    expected = np.array([BACK, 1 - STAY]) / (BACK + 1 - STAY)
    np.testing.assert_allclose(stationary(SPX.transition), expected, rtol=1e-14)


def test_the_fit_from_the_fixed_start() -> None:
    """Log likelihood, iterations and parameters of hmmlearn's EM without priors; it never falls."""
    found = fit(returns(), 2, FIRST)
    # One iteration more or less moves the likelihood by less than the tolerance of 1e-8.
    assert found.llf == pytest.approx(-7131.653562, abs=5e-7)
    # hmmlearn's sums end in other digits: the step that ends it may come one later.
    assert abs(len(found.history) - 36) <= 1
    stays = [row[j] for j, row in enumerate(found.parameters.transition)]
    assert stays == pytest.approx([0.987977, 0.977455], abs=1e-6)
    assert found.parameters.variance == pytest.approx((0.468667, 3.260115), abs=5e-6)
    assert (np.diff(found.history) >= -1e-9).all()  # rounding of a sum of 5,030 logs
    again = run_filter(found.parameters, returns(), found.start)
    assert again.llf == pytest.approx(found.llf, rel=1e-15)


def test_one_iteration_is_hmmlearns() -> None:
    """The parameters after one step from random ones, three states."""
    parameters, _ = chance(3, 1, 4)
    y = returns()[:800]
    model = judge(parameters, np.full(3, 1 / 3))
    model.params, model.n_iter, model.min_covar = "stmc", 1, 0.0
    model.covars_prior = model.covars_weight = model.means_prior = model.means_weight = 0
    model.fit(y[:, None])
    found = fit(y, 3, parameters, most=2)
    order = np.argsort(model.covars_.ravel())
    # hmmlearn takes the variance as a difference of sums: it loses digits that we keep.
    np.testing.assert_allclose(found.parameters.variance, model.covars_.ravel()[order], rtol=1e-9)
    np.testing.assert_allclose(found.parameters.mean, model.means_.ravel()[order], rtol=1e-9)
    moves = model.transmat_[np.ix_(order, order)]
    np.testing.assert_allclose(found.parameters.transition, moves, rtol=1e-9)
    np.testing.assert_allclose(found.start, model.startprob_[order], rtol=1e-9)


@given(st.integers(2, 3), st.integers(100, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_likelihood_never_falls(k: int, n: int, seed: int) -> None:
    """On any series, from the start that the fit makes itself; the same again gives the same."""
    rng = np.random.default_rng(seed)
    y = rng.standard_t(3, n) * np.exp(np.cumsum(rng.normal(0, 0.1, n)))
    found, again = fit(y, k, most=40), fit(y, k, most=40)
    assert (np.diff(found.history) >= -1e-10 * abs(found.llf)).all()  # rounding of sums of logs
    assert list(found.parameters.variance) == sorted(found.parameters.variance)
    assert (again.parameters, again.history) == (found.parameters, found.history)


def test_a_planted_chain_is_found() -> None:
    """Three states of 20,000 simulated days come back: variances within 5 %, stays within 20 %."""
    rng = np.random.default_rng(7)
    rows = np.array([[0.98, 0.015, 0.005], [0.02, 0.96, 0.02], [0.01, 0.04, 0.95]])
    state, path = 0, []
    for u in rng.random(20_000):
        state = int(np.searchsorted(np.cumsum(rows[state]), u))
        path.append(state)
    y = rng.normal(0, np.sqrt([0.2, 1.0, 6.0])[path])
    found = fit(y, 3).parameters
    # Standard errors: sqrt(2 / n) of a variance is 2 % of some 5,000 days; 1 / sqrt(visits) of a
    # stay is 7 %.
    np.testing.assert_allclose(found.variance, [0.2, 1.0, 6.0], rtol=0.05)
    np.testing.assert_allclose(durations(found), 1 / (1 - np.diag(rows)), rtol=0.2)


@pytest.mark.parametrize(
    ("y", "why"),
    [
        (np.ones(100), "constant"),
        (np.append(np.arange(99.0), np.nan), "not finite"),
        (np.arange(39.0), "39 returns are too few for 2 states: at least 40"),
    ],
)
def test_what_cannot_be_fitted_is_refused(y: Array, why: str) -> None:
    """One line that says why."""
    with pytest.raises(MisuseError, match=why):
        fit(y)
