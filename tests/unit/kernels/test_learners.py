"""Learners against river, least squares, scikit-learn, and the bounds that are proven of them."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import arch.data.sp500
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_allclose
from river import datasets, linear_model, optim, preprocessing
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from pipeline.kernels import learners
from schemas.blocks import Array

WIDE = math.inf  # no bound on a scaled input: river has none
SGD_RATES = np.array([0.01, 0.01, 0.0, 0.0, 0.0])
FTRL_RATES = np.array([0.05, 0.01, 1.0, 0.0, 1.0])  # the defaults of river's FTRLProximal
NATS = st.floats(1e-6, 1 - 1e-6)


@cache
def phishing() -> tuple[Array, Array]:
    """The 1,250 rows inside river's wheel."""
    rows = list(datasets.Phishing())
    return (
        np.array([list(x.values()) for x, _ in rows], float),
        np.array([int(y) for _, y in rows], np.int64),
    )


def river_says(optimizer: Any) -> Array:
    """What river's pipeline says of each row before it learns it."""
    scaler: Any = preprocessing.StandardScaler()
    model: Any = linear_model.LogisticRegression(optimizer=optimizer)
    found = []
    for x, y in datasets.Phishing():
        found.append(model.predict_proba_one(scaler.transform_one(x))[True])
        scaler.learn_one(x)
        model.learn_one(scaler.transform_one(x), y)
    return np.array(found)


def ours(
    x: Array, rose: Array, optimizer: int, rates: Array, block: int | None = None
) -> tuple[Array, ...]:
    """What ours says, in blocks; its state behind it."""
    n, d = x.shape
    scaler, model = np.zeros((learners.SCALER, d)), np.zeros((learners.LINEAR, d + 1))
    p = np.empty(n)
    for start in range(0, n, block or n):
        part = slice(start, start + (block or n))
        learners.logistic(
            x[part], rose[part], optimizer, rates, WIDE, scaler, model, np.empty(d), p[part]
        )
    return p, scaler, model


@pytest.mark.parametrize(
    ("optimizer", "rates", "theirs", "accuracy", "loss"),
    [
        (learners.SGD, SGD_RATES, lambda: optim.SGD(0.01), 0.892800, 0.330112),
        (learners.FTRL, FTRL_RATES, optim.FTRLProximal, 0.8904, 0.340818),
    ],
    ids=["sgd", "ftrl"],
)
def test_phishing(
    optimizer: int, rates: Array, theirs: Callable[[], Any], accuracy: float, loss: float
) -> None:
    """QUANT.md 3.2 to its digits, and row by row what river says."""
    x, rose = phishing()
    p, _, _ = ours(x, rose, optimizer, rates)
    assert round(float(((p > 0.5) == rose).mean()), 6) == accuracy
    assert round(float(log_loss(rose, p)), 6) == loss
    # 1e-11: sums in another order, carried on through 1,250 rows.
    assert_allclose(p, river_says(theirs()), rtol=1e-11)


def test_ftrl_with_a_first_norm_leaves_weights_out() -> None:
    """With l1 the weights of river, those that are zero among them."""
    x, rose = phishing()
    rates = FTRL_RATES.copy()
    rates[learners.L1] = 20.0
    p, _, model = ours(x, rose, learners.FTRL, rates)
    assert_allclose(p, river_says(optim.FTRLProximal(l1=20.0)), rtol=1e-11)
    assert 0 < (model[learners.W, :-1] == 0).sum() < 9


@pytest.mark.parametrize("optimizer", [learners.SGD, learners.FTRL])
@pytest.mark.parametrize("block", [1, 7, 400])
def test_blocks_leave_no_trace(optimizer: int, block: int) -> None:
    """Any size of a block gives the same bits, of what is said and of the state."""
    x, rose = phishing()
    whole = ours(x, rose, optimizer, FTRL_RATES)
    for one, other in zip(ours(x, rose, optimizer, FTRL_RATES, block), whole, strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_row_is_scaled_before_it_is_learnt() -> None:
    """What a row does to mean and variance shows at the next row, not in its own prediction."""
    x, rose = phishing()
    changed = x.copy()
    changed[600] *= 50.0
    p, q = (ours(rows, rose, learners.SGD, SGD_RATES)[0] for rows in (x, changed))
    assert p[:600].tobytes() == q[:600].tobytes()
    z = (changed[600] - x[:600].mean(axis=0)) / x[:600].std(axis=0)
    model = ours(x[:600], rose[:600], learners.SGD, SGD_RATES)[2][learners.W]
    assert q[600] == pytest.approx(1 / (1 + np.exp(-(model[:-1] @ z + model[-1]))), rel=1e-9)


def test_steep_odds_have_their_slopes() -> None:
    """The derivative far out on both sides is river's, and no exponential overflows."""
    loss, x = optim.losses.Log(), np.ones((1, 1))
    for odds in (-1e4, -709.0, -18.5, -3.0, 0.0, 3.0, 18.5, 709.0, 1e4):
        for rose in (0, 1):
            # A constant has no variance yet: only the intercept speaks, and learns at rate 1.
            model = np.zeros((learners.LINEAR, 2))
            model[learners.W, 1] = odds
            p, scaler = np.empty(1), np.zeros((learners.SCALER, 1))
            learners.logistic(
                x, np.array([rose]), learners.SGD, np.array([1.0, 1.0, 0, 0, 0]), WIDE, scaler,
                model, np.empty(1), p,
            )  # fmt: skip
            assert 0.0 <= p[0] <= 1.0
            assert model[learners.W, 1] == odds - loss.gradient(bool(rose), odds)


def autoregression() -> tuple[Array, Array]:
    """AR(5) of the S&P 500's returns in percent (QUANT.md 3.1): rows and outcomes."""
    returns = 100 * np.diff(np.log(arch.data.sp500.load()["Close"].to_numpy()))
    lags = [returns[5 - k : len(returns) - k] for k in range(1, 6)]
    # The first of them is left out, as it is in the oracle.
    return np.column_stack([np.ones(len(returns) - 5), *lags])[1:], returns[6:]


def least_squares(
    x: Array, y: Array, forget: float = 1.0, prior: float = 1e8, most: float = math.inf
) -> tuple[Array, Array]:
    """Weights and errors by recursion, in blocks of 100."""
    d = x.shape[1]
    w, spread, errors = np.zeros(d), np.eye(d) * prior, np.empty(len(y))
    for start in range(0, len(y), 100):
        part = slice(start, start + 100)
        learners.rls(x[part], y[part], forget, prior, most, w, spread, np.empty(d), errors[part])
    return w, errors


def test_recursive_least_squares_are_least_squares() -> None:
    """OLS, ridge and weighted least squares, each by solving its equations."""
    x, y = autoregression()
    w, errors = least_squares(x, y)
    truth = np.linalg.lstsq(x, y)[0]
    published = [0.016505, -0.074569, -0.052134, 0.003270, -0.017101, -0.047128]
    assert np.round(w, 6).tolist() == published
    assert np.abs(w - truth).max() < 1e-9
    ridge = np.linalg.solve(x.T @ x + np.eye(6) / 10, x.T @ y)
    assert np.abs(least_squares(x, y, prior=10.0)[0] - ridge).max() < 1e-12
    weights = 0.999 ** np.arange(len(y) - 1, -1, -1)
    left = x.T @ (x * weights[:, None]) + np.eye(6) * 0.999 ** len(y) / 1e8
    weighted = np.linalg.solve(left, x.T @ (weights * y))
    assert np.abs(least_squares(x, y, forget=0.999)[0] - weighted).max() < 1e-10
    # What was said of row t are the weights of the rows before it.
    early = np.linalg.solve(x[:999].T @ x[:999] + np.eye(6) / 1e8, x[:999].T @ y[:999])
    assert errors[999] == pytest.approx(y[999] - x[999] @ early, rel=1e-7)


def test_forgetting_without_excitation_does_not_explode() -> None:
    """Rows that are all zero would double P for ever; at the bound it begins anew."""
    rng = np.random.default_rng(5)
    x = np.vstack([np.zeros((5000, 2)), rng.normal(size=(500, 2))])
    y = x @ [2.0, -1.0]
    w, errors = least_squares(x, y, forget=0.5, prior=1.0, most=1e6)
    assert_allclose(w, [2.0, -1.0], rtol=1e-9)
    assert np.isfinite(errors).all()


def toy() -> tuple[Array, Array]:
    """The toy of QUANT.md 3.3: probabilities that are too high, and outcomes."""
    rng = np.random.default_rng(42)
    p = rng.uniform(0.05, 0.95, 2000)
    return p, (rng.uniform(size=2000) < p**1.3).astype(np.int64)


def calibrated(
    score: Array, rose: Array, prior: float = 1.0, block: int = 2000
) -> tuple[Array, Array]:
    """What the layer says of each score before its outcome, and its state."""
    layer, p = np.array([0.0, 0.0, prior, 0.0, prior]), np.empty(len(score))
    for start in range(0, len(score), block):
        part = slice(start, start + block)
        learners.platt(score[part], rose[part], layer, p[part])
    return p, layer


def test_platt_online_is_platt_offline() -> None:
    """After 1,000 outcomes, each seen once, it is scikit-learn's fit to them, and as good later."""
    p, rose = toy()
    odds = np.log(p / (1 - p))
    _, layer = calibrated(odds[:1000], rose[:1000], prior=100.0)
    theirs = LogisticRegression(C=1e6).fit(odds[:1000, None], rose[:1000])
    slope, shift = layer[learners.SLOPE], layer[learners.SHIFT]
    # A standard error is .07 each: one pass is within a third of it of the maximum.
    assert slope == pytest.approx(theirs.coef_[0, 0], abs=0.025)
    assert shift == pytest.approx(theirs.intercept_[0], abs=0.025)
    said = 1 / (1 + np.exp(-(slope * odds[1000:] + shift)))
    # Published: raw .521993, Platt .508123, isotonic .518064.
    assert log_loss(rose[1000:], said) == pytest.approx(0.508123, abs=5e-4)
    # The posterior's covariance is the inverse of the curvature at the maximum.
    fitted = theirs.predict_proba(odds[:1000, None])[:, 1]
    x = np.column_stack([odds[:1000], np.ones(1000)])
    covariance = np.linalg.inv(x.T @ (x * (fitted * (1 - fitted))[:, None]))
    found = layer[[learners.P_SLOPE, learners.P_BOTH, learners.P_SHIFT]]
    # Curvatures on the way are those at the guesses of then.
    assert_allclose(found, covariance[[0, 0, 1], [0, 1, 1]], atol=0.05 * covariance[0, 0])


@pytest.mark.parametrize("block", [1, 3, 700])
def test_platt_carries_its_state(block: int) -> None:
    """Blocks leave no trace."""
    p, rose = toy()
    for one, other in zip(calibrated(p, rose, 1.0, block), calibrated(p, rose), strict=True):
        assert one.tobytes() == other.tobytes()


@given(arrays.arrays(float, 60, elements=st.floats(-1e3, 1e3)), st.integers(0, 2**60 - 1))
def test_platt_stays_a_probability(score: Array, bits: int) -> None:
    """Whatever the scores, what is said lies in 0..1 and the variances stay above zero."""
    rose = np.array([bits >> i & 1 for i in range(60)], np.int64)
    p, layer = calibrated(score, rose)
    assert ((p >= 0) & (p <= 1)).all()
    assert np.isfinite(layer).all()
    assert layer[learners.P_SLOPE] >= -1e-12  # rounding of a difference of numbers up to 1
    assert layer[learners.P_SHIFT] >= -1e-12


def mix(p: Array, rose: Array, share: float = 0.0, eta: float = 1.0) -> Array:
    """The mixture of probabilities, even weights at first, in blocks of 7."""
    t, n = p.shape
    weights, kept, out = np.full(n, 1 / n), np.empty(n), np.empty(t)
    for start in range(0, t, 7):
        part = slice(start, start + 7)
        learners.mixture(p[part], rose[part], eta, share, weights, kept, out[part])
    return out


def nats(p: Array, rose: Array) -> Array:
    """Log loss of each; null of a sleeper."""
    hit = np.where(rose == 1, p, 1 - p)
    found: Array = -np.log(np.clip(hit, learners.CLIP, 1 - learners.CLIP))
    return found


@st.composite
def rounds(draw: st.DrawFn, sleepers: bool = False) -> tuple[Array, Array]:
    """Probabilities (t, n) and outcomes (t,); each expert sleeps now and then."""
    t, n = draw(st.integers(1, 80)), draw(st.integers(2, 6))
    p = draw(arrays.arrays(float, (t, n), elements=NATS))
    if sleepers:
        p = np.where(draw(arrays.arrays(bool, (t, n))), np.nan, p)
    return p, draw(arrays.arrays(np.int64, t, elements=st.integers(0, 1)))


@given(rounds())
def test_a_mixture_loses_no_more_than_ln_n(given_: tuple[Array, Array]) -> None:
    """Bayes: whatever comes, at most ln n nats behind the best expert."""
    p, rose = given_
    regret = nats(mix(p, rose), rose).sum() - nats(p.T, rose).sum(axis=1).min()
    assert regret <= math.log(p.shape[1]) + 1e-9  # rounding of 80 logarithms of up to 14 nats


def test_a_mixture_can_lose_ln_n() -> None:
    """The bound is met: one expert is certain and right, the others are sure of the opposite."""
    p = np.full((1, 5), 1e-6)
    p[0, 2] = 1 - 1e-6
    out = np.tile(p, (50, 1))
    rose = np.ones(50, np.int64)
    regret = nats(mix(out, rose), rose).sum() - nats(out.T, rose).sum(axis=1).min()
    assert regret == pytest.approx(math.log(5), abs=1e-4)


def test_a_hopeless_expert_can_come_back() -> None:
    """It has lost 8,000 nats, which no floating number holds, and is right from then on."""
    p = np.tile([1e-6, 0.5], (1700, 1))
    rose = np.array([1] * 600 + [0] * 1100, np.int64)
    said = mix(p, rose)
    assert said[599] == pytest.approx(0.5)
    # exp(-690) grows by a factor of 2 a round: it takes the lead after 996 rounds.
    assert said[-1] == pytest.approx(1e-6, rel=0.2)


@given(rounds(sleepers=True))
def test_sleepers_are_owed_ln_n(given_: tuple[Array, Array]) -> None:
    """Freund et al.: behind any expert by ln n at most, over the rounds in which it was awake."""
    p, rose = given_
    lead = nats(mix(p, rose), rose)[:, None] - nats(p.T, rose).T
    assert (np.nansum(lead, axis=0) <= math.log(p.shape[1]) + 1e-9).all()


@given(rounds(sleepers=True), st.floats(1e-3, 0.5), st.data())
def test_fixed_shares_follow_a_sequence_of_experts(
    given_: tuple[Array, Array], share: float, data: st.DataObject
) -> None:
    """Herbster and Warmuth: ln n, plus the price of each switch and of each round without one."""
    p, rose = given_
    t, n = p.shape
    cuts = sorted(data.draw(st.sets(st.integers(1, max(t - 1, 1)), max_size=4)))
    cuts = [cut for cut in cuts if cut < t]
    edges = [0, *cuts, t]
    who = data.draw(st.lists(st.integers(0, n - 1), min_size=len(edges), max_size=len(edges)))
    lead = nats(mix(p, rose, share), rose)[:, None] - nats(p.T, rose).T
    total = sum(
        np.nansum(lead[low:high, one])
        for low, high, one in zip(edges, edges[1:], who, strict=False)
    )
    switches = len(cuts)
    bound = math.log(n) - switches * math.log(share / n)
    bound -= (t - 1 - switches) * math.log(1 - share + share / n)
    assert total <= bound + 1e-9


@given(st.integers(2, 6).flatmap(lambda n: arrays.arrays(float, (60, n), elements=st.floats(0, 1))))
def test_hedge_keeps_its_bound(losses: Array) -> None:
    """Freund and Schapire: for any losses in 0..1 at most sqrt(T ln N / 2) behind the best."""
    t, n = losses.shape
    out, eta = np.empty(t), math.sqrt(8 * math.log(n) / t)
    learners.hedge(losses, eta, 0.0, np.full(n, 1 / n), np.empty(n), out)
    assert out.sum() - losses.sum(axis=0).min() <= math.sqrt(t * math.log(n) / 2) + 1e-9


def test_hedge_on_the_toy() -> None:
    """QUANT.md 3.4: regret 32.55, bound 63.43; and the mixture's 1.609438 on the same draws."""
    rng = np.random.default_rng(42)
    p = rng.uniform(0.05, 0.95, 2000)
    rng.uniform(size=2000)
    rng.normal(size=500)
    rng.normal(size=500)
    assert len(p) == 2000
    losses = rng.uniform(size=(5000, 5))
    losses[:, 2] *= 0.8
    out, eta = np.empty(5000), math.sqrt(8 * math.log(5) / 5000)
    learners.hedge(losses, eta, 0.0, np.full(5, 0.2), np.empty(5), out)
    assert out.sum() - losses.sum(axis=0).min() == pytest.approx(32.54673004718143, rel=1e-9)
    p = np.clip(rng.uniform(size=(5000, 5)), 0.02, 0.98)
    rose = (rng.uniform(size=5000) < p[:, 1]).astype(np.int64)
    regret = nats(mix(p, rose), rose).sum() - nats(p.T, rose).sum(axis=1).min()
    assert regret == pytest.approx(1.6094379124342595, abs=1e-9)


def slices(n: int, size: int) -> Iterator[slice]:
    """Parts of n rows."""
    return (slice(start, start + size) for start in range(0, n, size))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_weights_carry_on_from_block_to_block(eta: float) -> None:
    """Sleepers, shares and all: the size of a block leaves no trace in the weights."""
    rng = np.random.default_rng(9)
    p = np.where(rng.random((500, 4)) < 0.2, np.nan, rng.uniform(size=(500, 4)))
    rose = rng.integers(0, 2, 500)
    found = []
    for size in (1, 13, 500):
        weights, out = np.full(4, 0.25), np.empty(500)
        for part in slices(500, size):
            learners.mixture(p[part], rose[part], eta, 0.01, weights, np.empty(4), out[part])
        found.append(weights.tobytes() + out.tobytes())
        assert weights.sum() == pytest.approx(1.0, rel=1e-12)
    assert len(set(found)) == 1


def test_nobody_awake_changes_nothing() -> None:
    """Nothing is said, and no weight moves but by the share."""
    weights, out = np.array([0.7, 0.3]), np.empty(1)
    rose = np.ones(1, np.int64)
    learners.mixture(np.full((1, 2), np.nan), rose, 1.0, 0.0, weights, np.empty(2), out)
    assert np.isnan(out[0])
    assert weights.tolist() == [0.7, 0.3]
