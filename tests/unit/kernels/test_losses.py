"""Evidence of worse losses is what its formula says, and rare while nothing becomes worse."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq
from scipy.special import expit, logit

from pipeline.kernels import losses as kernels
from pipeline.kernels.hot import loop
from schemas.blocks import Array

MARGINS = (0.01, 0.002)
NEVER = math.inf


@loop
def _kinds(rates: Array, worths: Array) -> None:
    for kind in range(rates.shape[0]):
        rates[kind] = kernels.rate(kind)
    for kind in range(worths.shape[0]):
        worths[kind] = kernels.worth(kind)


def kinds() -> tuple[list[float], list[float]]:
    """What every bet on the mean risks, and what every bet on claims thinks is lost."""
    rates, worths = np.empty(kernels.MEANS), np.empty(kernels.CLAIMS)
    _kinds(rates, worths)
    return rates.tolist(), worths.tolist()


def fresh(d: int, turns: int) -> list[Array]:
    """The state of engines that nothing is known of."""
    bets = (d, turns, kernels.BETS)
    return [
        np.zeros((d, kernels.COUNTS), np.int64),
        np.zeros((d, kernels.SUMS)),
        np.zeros((d, kernels.BINS, kernels.FIELDS)),
        np.zeros(bets),
        np.zeros(bets),
        np.zeros(bets, np.int64),
    ]


def watched(
    losses: Array, first: int, limit: float, turns: int, block: int
) -> tuple[Array, Array, Array, list[Array]]:
    """Evidence, losses looked at and beginning of alarms, and the state behind all."""
    d, n = losses.shape
    state = fresh(d, turns)
    out = np.full((d, n), math.nan)
    looked, began = np.zeros((d, n), np.int64), np.zeros((d, n), np.int64)
    for start in range(0, n, block):
        part = slice(start, start + block)
        kernels.worse(
            losses[:, part], np.arange(n)[part], start % turns, first, MARGINS, limit,
            state[0], state[1], state[2], state[3], state[4], state[5],
            out[:, part], looked[:, part], began[:, part],
        )  # fmt: skip
    return out, looked, began, state


def test_what_bets_risk() -> None:
    """From a little to almost all, never all: what is lost can be won again."""
    rates, worths = kinds()
    assert rates == sorted(rates)
    assert 0.0 < rates[0] < 0.05
    assert 0.8 < rates[-1] < 1.0
    assert worths == [0.25, 0.5, 1.0, 2.0, 4.0]


def fitted(claims: Array, right: Array) -> tuple[float, float]:
    """The slope of what came by what was claimed, and the information that is in it."""
    bins = np.clip(np.floor(2 * np.log2(256 * claims)), 0, kernels.BINS - 1).astype(int)
    sizes = np.bincount(bins, claims)[bins] / np.bincount(bins)[bins]
    found = brentq(lambda s: float((sizes * (right - expit(s * sizes))).sum()), -20, 20, xtol=1e-13)
    p = expit(found * sizes)
    return found, float((sizes**2 * p * (1 - p)).sum())


@pytest.mark.parametrize("turns", [1, 3])
def test_evidence_is_its_formula(turns: int) -> None:
    """Of every turn and bet, with nulls in between, whatever the blocks."""
    rng = np.random.default_rng(turns)
    losses = np.where(rng.random((2, 400)) < 0.1, math.nan, rng.exponential(0.7, (2, 400)))
    losses[0] = np.where(rng.random(400) < 0.6, -math.log(0.6), -math.log(0.4))
    first = 100
    rates, worths = kinds()
    for block in (400, 1, 37):
        *_, (counts, sums, _, evidence, _, _) = watched(losses, first, NEVER, turns, block)
        for j, row in enumerate(losses):
            there = np.flatnonzero(~np.isnan(row))
            measured = row[there[:first]]
            error = 3.0 * measured.std() * math.sqrt(turns / first)
            bound = measured.mean() + error + MARGINS[0]
            assert_allclose(sums[j, kernels.BOUND], bound, rtol=1e-12)
            odds = -np.log(np.expm1(row))
            slope, known = fitted(np.abs(odds[there[:first]]), odds[there[:first]] > 0)
            slope = min(slope - 2.0 * math.sqrt(turns / known), 1.0)
            assert_allclose(sums[j, kernels.SLOPE], slope, rtol=1e-9)
            own = np.zeros((turns, kernels.BETS))
            for i in there[first:]:
                factors = [1.0 + rate * (row[i] - bound) / bound for rate in rates]
                size = abs(odds[i])
                q = float(expit(slope * size)) - MARGINS[1] / size
                for worth in worths:
                    p = float(expit(logit(q) - worth * size)) if q >= 0.02 else q
                    factors.append(p / q if odds[i] > 0 else (1.0 - p) / (1.0 - q))
                own[i % turns] = (own[i % turns] + 1.0) * np.array(factors)
            assert_allclose(evidence[j], own, rtol=1e-8)
            assert_allclose(sums[j, kernels.TOTAL], own.sum(), rtol=1e-8)
            assert counts[j].tolist() == [first, len(there) - first]


def test_an_alarm_and_what_follows_it() -> None:
    """Told at the row, with the row at which the loudest bet began; then it is measured anew."""
    losses = np.full((1, 600), 0.7)
    losses[0, 300:] = 1.0
    out, looked, began, state = watched(losses, 100, 1e6, 1, 50)
    counts, sums, tables, evidence, *_ = state
    (at,) = np.flatnonzero(~np.isnan(out[0])).tolist()
    assert 300 < at < 400
    assert out[0, at] >= 1e6
    assert looked[0, at] == at + 1 - 100
    assert began[0, at] == 300
    after = 600 - at - 1
    assert counts[0].tolist() == [100, after - 100]
    assert_allclose(sums[0, kernels.BOUND], 1.0 + MARGINS[0], rtol=1e-12)
    assert tables[0, :, kernels.OFTEN].sum() == 100
    assert evidence.max() < 200.0
    whole = watched(losses, 100, 1e6, 1, 600)
    for mine, other in zip((out, looked, began), whole[:3], strict=True):
        assert_array_equal(mine, other)


def test_an_even_prediction_claims_nothing() -> None:
    """Nothing is bet on it, and a slope of none is of no use to anybody."""
    losses = np.full((1, 300), math.log(2.0))
    *_, (_, sums, tables, evidence, _, _) = watched(losses, 100, NEVER, 1, 300)
    assert not tables[0, :-1].any() or tables[0, 0, kernels.CLAIMED] < 1e-12
    assert math.isfinite(sums[0, kernels.SLOPE])
    assert_allclose(evidence[0, 0, kernels.MEANS :], 200.0)


def on_the_edge(kind: str, d: int, n: int) -> tuple[Array, float, float]:
    """Losses of which no more is to be expected than a bound, or than a slope; and these two."""
    rng = np.random.default_rng(5)
    changes = np.arange(n) % 2000 < 1000
    if kind == "mean":
        spread = np.where(changes, 0.1, 0.7)
        return 0.7 + spread * np.where(rng.random((d, n)) < 0.5, 1.0, -1.0), 0.7, -20.0
    claimed = np.where(changes, 0.1, 1.5) * rng.random((d, n)) + 1e-3
    q = np.clip(expit(0.7 * claimed) - MARGINS[1] / claimed, 0.02, 1.0)
    right = rng.random((d, n)) < q
    return np.log1p(np.exp(np.where(right, -claimed, claimed))), 1e9, 0.7


@pytest.mark.parametrize("turns", [1, 4])
@pytest.mark.parametrize("kind", ["mean", "claims"])
def test_alarms_without_a_cause_are_rare(kind: str, turns: int) -> None:
    """On the edge, and of losses whose spread changes: fewer than one in the limit."""
    n, limit, d = 20_000, 200.0, 20
    losses, bound, slope = on_the_edge(kind, d, n)
    state = fresh(d, turns)
    counts, sums = state[:2]
    counts[:, kernels.SEEN] = 10
    sums[:, kernels.BOUND], sums[:, kernels.SLOPE] = bound, slope
    out = np.full((d, n), math.nan)
    zeros = np.zeros((d, n), np.int64)
    alarms = 0
    for i in range(n):
        part = slice(i, i + 1)
        kernels.worse(
            losses[:, part], zeros[0, part], i % turns, 10, MARGINS, limit,
            counts, sums, state[2], state[3], state[4], state[5],
            out[:, part], zeros[:, part], zeros[:, part],
        )  # fmt: skip
        fired = ~np.isnan(out[:, i])
        alarms += int(fired.sum())
        counts[fired, kernels.SEEN] = 10  # the edge stays
        sums[fired, kernels.BOUND], sums[fired, kernels.SLOPE] = bound, slope
    assert 5 < alarms < n * d / (limit * turns)


def test_an_engine_that_learns_is_not_worse() -> None:
    """It said too little of what it knew, then as much as it knew: nothing is bet against that."""
    rng = np.random.default_rng(8)
    right = rng.random(40_000) < 0.6
    claimed = np.where(np.arange(40_000) < 20_000, 0.1, logit(0.6))
    losses = np.log1p(np.exp(np.where(right, -claimed, claimed)))[None]
    out, *_ = watched(losses, 10_000, 1e6, 1, 40_000)
    assert np.isnan(out).all()
