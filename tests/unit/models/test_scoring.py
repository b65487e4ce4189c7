"""Scores of probabilities against the figures of scikit-learn and statsmodels (QUANT.md 3.3)."""

import numpy as np
import pytest

from pipeline.models import scoring

RNG = np.random.default_rng(42)  # the toy of oracles/prediction_oracles.py
P = RNG.uniform(0.05, 0.95, 2000)
ROSE = RNG.uniform(size=2000) < P**1.3


def test_the_toy_of_the_oracles() -> None:
    """Log-loss, Brier and AUC of scikit-learn; Murphy's parts and the calibration error."""
    assert scoring.log_loss(P, ROSE) == pytest.approx(0.529377, abs=5e-7)
    assert scoring.brier(P, ROSE) == pytest.approx(0.176677, abs=5e-7)
    assert scoring.auc(P, ROSE) == pytest.approx(0.819876, abs=5e-7)
    found = scoring.murphy(P, ROSE)
    truth = {"reliability": 0.0061, "resolution": 0.073849, "uncertainty": 0.244959}
    for name, value in {**truth, "ece": 0.073553}.items():
        assert found[name] == pytest.approx(value, abs=5e-7), name
    assert sum(one["n"] for one in scoring.bins_of(P, ROSE)) == 2000


def test_the_interval_of_a_hit_rate() -> None:
    """Wilson, as statsmodels has it."""
    np.testing.assert_allclose(
        scoring.wilson(530, 1000), [0.49901030909301675, 0.56076008539785], rtol=1e-12
    )


def test_ties_count_half() -> None:
    """A constant p ranks nothing; a pair of equals is half right; one outcome has no AUC."""
    rose = np.array([True, False, True, False])
    assert scoring.auc(np.full(4, 0.7), rose) == 0.5
    assert scoring.auc(np.array([0.9, 0.1, 0.5, 0.5]), rose) == 0.875
    assert scoring.auc(np.array([0.9, 0.1]), np.array([True, True])) is None


def test_certainty_is_clipped() -> None:
    """Being sure and wrong costs much, not infinitely much."""
    assert scoring.log_loss(np.array([1.0]), np.array([False])) == pytest.approx(13.8155, abs=1e-4)


def test_scores_stand_beside_the_null() -> None:
    """Rows where either was not ready are left out; the null engine is no better than itself."""
    null = np.full(2000, ROSE.mean())
    p = P.copy()
    p[:100], null[100:150] = np.nan, np.nan
    found = scoring.scores(p, ROSE, null, 5)
    assert found["n"] == 1850
    assert found["log_loss_less_null"] < -0.1
    assert found["brier_less_null"] < -0.05
    low, high = found["hit_rate_95"]
    rate = float(((p > 0.5) == ROSE)[150:].mean())
    assert low < found["hit_rate"] < high
    assert found["hit_rate"] == pytest.approx(rate)
    np.testing.assert_allclose((low, high), scoring.wilson(rate * 370, 370))
    itself = scoring.scores(null, ROSE, null, 5)
    assert itself["log_loss_less_null"] == itself["brier_less_null"] == 0.0
    assert scoring.scores(np.full(3, np.nan), ROSE[:3], null[:3], 5) == {"n": 0}


def test_even_odds_are_no_hit() -> None:
    """An engine that never leans has no hit rate."""
    found = scoring.scores(np.full(4, 0.5), ROSE[:4], np.full(4, 0.5), 1)
    assert found["hit_rate"] is None
    assert found["hit_rate_95"] is None
