"""The rule of the rollback: when it speaks, how often it is wrong, and what it sees."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from pipeline.models.comparison import compare
from pipeline.models.maturing import SAID, Matured
from pipeline.models.watching import PAIRED, judge, pairs
from schemas.blocks import Array
from schemas.models import Activation

HORIZON, N, RUNS = 5, 3000, 400


def live(seed: int, noise: tuple[float, float], n: int = N) -> Array:
    """Rows of one book whose labels overlap, of two versions that know the drift with noise.

    Their noise goes on for ten bars or so: losses hang together far beyond the horizon. `noise` is
    that of the live version, then of the shadow, in standard deviations of what is known.
    """
    rng = np.random.default_rng(seed)
    known = lfilter([1.0], [1.0, -0.9], rng.normal(size=n)) * np.sqrt(1 - 0.9**2)
    steps = 0.5 * known + rng.normal(size=n)
    ahead = np.convolve(steps, np.ones(HORIZON))[HORIZON - 1 :][:n]
    rows = np.empty(n, PAIRED)
    rows["rose"] = ahead > 0
    rows["ts"] = np.arange(n)
    rows["book"] = 7
    for name, size in zip(("live", "shadow"), noise, strict=True):
        wrong = lfilter([1.0], [1.0, -0.9], rng.normal(size=n)) * np.sqrt(1 - 0.9**2)
        rows[name] = norm.cdf(0.6 * (known + size * wrong))
    return rows


def rolled_back(noise: tuple[float, float]) -> float:
    """How often the live version is found to be worse."""
    verdicts = [judge(live(seed, noise), HORIZON, N) for seed in range(RUNS)]
    return float(np.mean([one is not None and one.better for one in verdicts]))


def test_equal_versions_are_seldom_rolled_back() -> None:
    """In one of twenty promotions, as it says, though labels overlap and losses hang together."""
    assert rolled_back((1.0, 1.0)) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)


def test_a_better_version_stays() -> None:
    """Nearly always."""
    assert rolled_back((0.5, 1.0)) <= 0.005


def test_a_worse_version_is_rolled_back() -> None:
    """Nearly always, where it has twice the noise."""
    assert rolled_back((2.0, 1.0)) >= 0.95


def test_it_waits_for_enough_rows() -> None:
    """As many as are asked for, and as the stretches need for all books together."""
    rows = live(1, (2.0, 1.0), 6000)
    assert judge(rows[:599], HORIZON, 1) is None
    assert judge(rows[:600], HORIZON, 1) is not None
    assert judge(rows[:600], HORIZON, 601) is None
    rows["book"] = np.arange(6000) % 3
    assert judge(rows[:1799], HORIZON, 1) is None
    assert judge(rows[:1800], HORIZON, 1) is not None
    assert judge(rows[:0], HORIZON, 1) is None


def test_it_is_the_rule_of_promotions() -> None:
    """With the shadow as the challenger, in whatever order the rows come."""
    rows = live(2, (1.5, 1.0))
    found = judge(np.random.default_rng(1).permutation(rows), HORIZON, 1)
    assert found == compare(rows["shadow"], rows["live"], rows["rose"], rows["ts"], HORIZON)
    assert found is not None
    assert found.challenger == pytest.approx(
        -np.log(np.where(rows["rose"], rows["shadow"], 1 - rows["shadow"])).mean()
    )


def test_pairs_are_rows_of_which_both_spoke() -> None:
    """By activation, with its model and generation; none of a version of a regime's own."""
    said = np.zeros(8, SAID)
    said["live"] = [0.1, np.nan, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    said["shadow"] = [np.nan, 0.2, 0.3, 0.4, 0.5, np.nan, 0.7, 0.8]
    said["activation"] = [0, 0, 0, 1, 1, 1, 1, 1]
    said["regime"] = [-1, -1, -1, -1, -1, -1, 0, 3]
    said["ts"] = np.arange(8)
    matured = Matured(said, np.arange(8) % 2 == 0, np.full(8, 9))
    planned = [Activation(0, 0, "gbdt", 4, "b", "a"), Activation(9, 0, "gbdt", 7, "c", "b")]
    found = list(pairs(matured, planned))
    assert [(one.model, one.generation) for one in found] == [("gbdt", 4), ("gbdt", 7)]
    assert [one.rows["ts"].tolist() for one in found] == [[2], [3, 4]]
    assert found[1].rows["rose"].tolist() == [False, True]
    assert found[1].rows["live"].tolist() == [0.4, 0.5]
    assert found[1].rows["book"].tolist() == [9, 9]
