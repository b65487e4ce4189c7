"""Evidence of worse losses is what its formula says, and rare while nothing becomes worse."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.kernels import losses as kernels
from pipeline.kernels.hot import loop
from schemas.blocks import Array

MARGIN = 0.01
NEVER = math.inf


@loop
def _rates(out: Array) -> None:
    for kind in range(out.shape[0]):
        out[kind] = kernels.rate(kind)


def rates() -> list[float]:
    """What every bet risks."""
    out = np.empty(kernels.RATES)
    _rates(out)
    return [float(rate) for rate in out]


def watched(
    losses: Array, first: int, limit: float, turns: int, block: int
) -> tuple[Array, Array, Array, list[Array]]:
    """Evidence, losses looked at and beginning of alarms, and the state behind all."""
    d, n = losses.shape
    bets = (d, turns, kernels.RATES)
    state = [
        np.zeros((d, kernels.COUNTS), np.int64),
        np.zeros((d, kernels.SUMS)),
        np.zeros(bets),
        np.zeros(bets, np.int64),
    ]
    out = np.full((d, n), math.nan)
    looked, began = np.zeros((d, n), np.int64), np.zeros((d, n), np.int64)
    for start in range(0, n, block):
        part = slice(start, start + block)
        kernels.worse(
            losses[:, part], np.arange(n)[part], start % turns, first, MARGIN, limit,
            state[0], state[1], state[2], state[3],
            out[:, part], looked[:, part], began[:, part],
        )  # fmt: skip
    return out, looked, began, state


def test_what_bets_risk() -> None:
    """From a little to almost all, never all: what is lost can be won again."""
    assert rates() == sorted(rates())
    assert 0.0 < rates()[0] < 0.05
    assert 0.8 < rates()[-1] < 1.0


@pytest.mark.parametrize("turns", [1, 3])
def test_evidence_is_its_formula(turns: int) -> None:
    """Of every turn and rate, with nulls in between, whatever the blocks."""
    rng = np.random.default_rng(turns)
    losses = np.where(rng.random((2, 400)) < 0.1, math.nan, rng.exponential(0.7, (2, 400)))
    first = 100
    for block in (400, 1, 37):
        *_, (counts, sums, evidence, _) = watched(losses, first, NEVER, turns, block)
        for j, row in enumerate(losses):
            there = np.flatnonzero(~np.isnan(row))
            measured = row[there[:first]]
            error = 3.0 * measured.std() * math.sqrt(turns / first)
            bound = measured.mean() + error + MARGIN
            assert_allclose(sums[j, kernels.BOUND], bound, rtol=1e-12)
            own = np.zeros((turns, kernels.RATES))
            for i in there[first:]:
                for kind, rate in enumerate(rates()):
                    factor = 1.0 + rate * (row[i] - bound) / bound
                    own[i % turns, kind] = max(own[i % turns, kind], 1.0) * factor
            assert_allclose(evidence[j], own, rtol=1e-10)
            assert_allclose(sums[j, kernels.TOTAL], own.sum(), rtol=1e-10)
            assert counts[j].tolist() == [first, len(there) - first]


def test_an_alarm_and_what_follows_it() -> None:
    """Told at the row, with the row at which the loudest bet began; then it is measured anew."""
    losses = np.full((1, 600), 0.7)
    losses[0, 300:] = 1.0
    out, looked, began, (counts, sums, evidence, _) = watched(losses, 100, 1e6, 1, 50)
    (at,) = np.flatnonzero(~np.isnan(out[0])).tolist()
    assert 300 < at < 400
    assert out[0, at] >= 1e6
    assert looked[0, at] == at + 1 - 100
    assert began[0, at] == 300
    after = 600 - at - 1
    assert counts[0].tolist() == [100, after - 100]
    assert_allclose(sums[0, kernels.BOUND], 1.0 + MARGIN, rtol=1e-12)
    assert evidence.max() < 1.0
    whole = watched(losses, 100, 1e6, 1, 600)
    for mine, other in zip((out, looked, began), whole[:3], strict=True):
        assert_array_equal(mine, other)


@pytest.mark.parametrize("turns", [1, 4])
def test_alarms_without_a_cause_are_rare(turns: int) -> None:
    """On the edge of the bound, and of losses whose spread changes: fewer than one in the limit."""
    rng = np.random.default_rng(5)
    n, limit, d = 20_000, 200.0, 20
    spread = np.where(np.arange(n) % 2000 < 1000, 0.1, 0.7)
    bound = 0.7
    losses = bound + spread * np.where(rng.random((d, n)) < 0.5, 1.0, -1.0)
    state = [
        np.full((d, kernels.COUNTS), (10, 0), np.int64),
        np.zeros((d, kernels.SUMS)),
        np.zeros((d, turns, kernels.RATES)),
        np.zeros((d, turns, kernels.RATES), np.int64),
    ]
    state[1][:, kernels.BOUND] = bound
    out = np.full((d, n), math.nan)
    zeros = np.zeros((d, n), np.int64)
    alarms = 0
    for i in range(n):
        part = slice(i, i + 1)
        kernels.worse(
            losses[:, part], zeros[0, part], i % turns, 10, MARGIN, limit,
            state[0], state[1], state[2], state[3], out[:, part], zeros[:, part], zeros[:, part],
        )  # fmt: skip
        fired = ~np.isnan(out[:, i])
        alarms += int(fired.sum())
        state[0][fired, kernels.SEEN] = 10  # the bound stays
        state[1][fired, kernels.BOUND] = bound
    assert 5 < alarms < n * d / (limit * turns)
