"""The posterior of the run length against a library, its own formulas by scipy, and the Nile."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import bayesian_changepoint_detection.online_changepoint_detection as library
import numpy as np
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import t as student
from statsmodels.datasets import nile

from pipeline.kernels import bocpd as pieces
from schemas.blocks import Array
from tests.fixtures.pieces import standalone

bocpd = standalone(pieces)
FLAT = np.array([0.0, 1.0, 1.0, 1.0])  # mu, kappa, alpha, beta
HAZARD = 1 / 250


def river() -> Array:
    """The Nile at Aswan, 1871 to 1970, z-scored."""
    volume = nile.load_pandas().data["volume"].to_numpy()
    return np.asarray((volume - volume.mean()) / volume.std())


class Follower:
    """The runs of one series as they go."""

    def __init__(self, prior: Array = FLAT, room: int = 1000, prune: float = 0.0) -> None:
        self.prior, self.prune = prior, prune
        self.runs, self.floats = np.zeros(room, np.int64), np.zeros((3, room))
        self.n = bocpd.begin(prior, self.runs, self.floats)
        self.llf = 0.0

    def posteriors(self, y: Array, length: int) -> Iterator[Array]:
        """P(r) for r = 0 .. length - 1 after each observation."""
        for value in y:
            self.n, density = bocpd.observe(
                HAZARD, self.prior, self.prune, value, self.n, self.runs, self.floats
            )
            self.llf += density
            p = np.zeros(length)
            p[self.runs[: self.n]] = np.exp(self.floats[0, : self.n])
            yield p


def by_scipy(y: Array, prior: Array) -> tuple[Array, float]:
    """The recursion of Adams and MacKay as it is written, with every run kept."""
    mu, kappa, alpha, beta = prior[:, None]
    weights, llf, rows = np.zeros(1), 0.0, []
    for value in y:
        width = np.sqrt(beta * (kappa + 1) / (alpha * kappa))
        joint = weights + student.logpdf(value, 2 * alpha, mu, width)
        grown, changed = joint + np.log1p(-HAZARD), logsumexp(joint) + np.log(HAZARD)
        weights = np.append(changed, grown)
        llf += logsumexp(weights)
        weights -= logsumexp(weights)
        beta = np.append(prior[3], beta + kappa * (value - mu) ** 2 / (2 * (kappa + 1)))
        mu = np.append(prior[0], (kappa * mu + value) / (kappa + 1))
        kappa, alpha = np.append(prior[1], kappa + 1), np.append(prior[2], alpha + 0.5)
        rows.append(np.exp(weights))
    return np.array([np.pad(row, (0, len(y) + 1 - len(row))) for row in rows]), llf


def test_the_nile_as_the_library_has_it() -> None:
    """The whole matrix of the library, and the evidence of it."""
    y = river()
    follower = Follower()
    ours = np.array(list(follower.posteriors(y, len(y) + 1)))
    hazard = partial(library.constant_hazard, 250)
    theirs, _ = library.online_changepoint_detection(y, hazard, library.StudentT(1, 1, 1, 0))
    np.testing.assert_allclose(ours.T, theirs[:, 1:], rtol=0, atol=1e-12)
    assert follower.llf == pytest.approx(-127.079477, abs=5e-7)


@pytest.mark.parametrize("prior", [FLAT, np.array([0.5, 0.01, 2.0, 0.3])], ids=["flat", "other"])
def test_any_prior_as_scipy_has_it(prior: Array) -> None:
    """Every probability and the evidence over 400 observations with three changes."""
    rng = np.random.default_rng(5)
    y = rng.normal(np.repeat([0, 3, 3, -1], 100), np.repeat([1, 1, 5, 0.2], 100))
    follower = Follower(prior)
    ours = np.array(list(follower.posteriors(y, 401)))
    truth, llf = by_scipy(y, prior)
    np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-12)
    assert follower.llf == pytest.approx(llf, rel=1e-12)


def test_the_dam_is_told_six_years_late() -> None:
    """In 1904 the likeliest run begins in 1899; what is recent rises as it is published."""
    rows = dict(zip(range(1871, 1971), Follower().posteriors(river(), 101), strict=True))
    likeliest = {year: int(p.argmax()) for year, p in rows.items()}
    drops = [year for year in range(1898, 1971) if likeliest[year] < likeliest[year - 1]]
    assert drops[0] == 1904
    assert 1904 - likeliest[1904] + 1 == 1899
    recent = [round(float(rows[year][:10].sum()), 3) for year in range(1900, 1906)]
    assert recent == [0.081, 0.154, 0.565, 0.57, 0.787, 0.944]
    # Whatever is observed, P(r = 0) is the hazard.
    np.testing.assert_allclose([p[0] for p in rows.values()], HAZARD, rtol=1e-14)


def test_forgotten_runs_change_little() -> None:
    """Below 1e-8 forgotten: 84 runs at most, the evidence moves by 5e-8; probabilities sum to 1."""
    y = river()
    whole, pruned = Follower(), Follower(prune=1e-8)
    truth, most = list(whole.posteriors(y, 101)), 0
    for p, other in zip(truth, pruned.posteriors(y, 101), strict=True):
        np.testing.assert_allclose(other, p, rtol=0, atol=1e-6)
        assert other.sum() == pytest.approx(1, abs=1e-14)
        most = max(most, pruned.n)
    assert most == 84
    assert pruned.llf - whole.llf == pytest.approx(4.5e-8, abs=1e-9)


def test_a_full_room_forgets_the_least_probable() -> None:
    """Thirty runs of ten thousand: the likeliest run is the one that all runs would tell."""
    y = np.random.default_rng(3).normal(np.repeat([0.0, 2.0], 300), 1)
    small, large = Follower(room=30), Follower()
    for p, q in zip(small.posteriors(y, 601), large.posteriors(y, 601), strict=True):
        assert small.n <= 29
        assert (np.diff(small.runs[: small.n]) > 0).all()
        assert p.argmax() == q.argmax()
        assert p[0] >= HAZARD


def rows_of(z: Array, **options: Any) -> tuple[Array, Array]:
    """Tags and outputs of the loop over one symbol."""
    n = len(z)
    given: dict[str, Any] = {"recent": 10, "level": 0.5, "prune": 1e-8, "room": 256, **options}
    state = np.zeros((1, pieces.INT_STATE), np.int64), np.zeros((1, given["room"]), np.int64)
    floats, out = np.zeros((1, 3, given["room"])), np.empty((2, n))
    tags, zeros = np.empty(n, np.int32), np.zeros(n, np.int32)
    pieces.bocpd(
        HAZARD, FLAT, given["prune"], given["recent"], given["level"], zeros, zeros, z, *state,
        floats, tags, out,
    )  # fmt: skip
    return tags, out


def test_alarms_on_the_nile() -> None:
    """What is recent passes one half in 1902, the likeliest run falls in 1904; none before."""
    tags, out = rows_of(river())
    first = {1871 + int(i): int(tags[i]) for i in np.flatnonzero(tags >= 0)[:2]}
    assert first == {1902: pieces.IS_RECENT, 1904: pieces.IS_DROP}
    assert out[pieces.P_RECENT, :9].tolist() == pytest.approx([1.0] * 9)
    assert out[pieces.RUN, 33] == 6


def test_a_null_says_nothing_and_changes_nothing() -> None:
    """A series with nulls between is the series."""
    y = river()
    gaps = np.insert(y, [0, 7, 7, 50], np.nan)
    held = ~np.isnan(gaps)
    tags, out = rows_of(gaps)
    alone = rows_of(y)
    assert (tags[~held] == -1).all()
    assert np.isnan(out[:, ~held]).all()
    assert (tags[held].tobytes(), out[:, held].tobytes()) == (
        alone[0].tobytes(),
        alone[1].tobytes(),
    )


@pytest.mark.parametrize("a", [0.01, 0.5, 1.0, 7.5, 19.99, 20.0, 33.0, 1e3, 1e6, 1e9])
def test_the_quotient_of_gamma_functions(a: float) -> None:
    """ln(gamma(a + 1/2) / gamma(a)) by scipy, as far as its difference has digits."""
    lost = 4e-16 * abs(gammaln(a))  # of the difference of two large numbers
    assert bocpd.gamma_half(a) == pytest.approx(gammaln(a + 0.5) - gammaln(a), abs=4e-15 + 4 * lost)
