"""Series that stand for functions of libm, against 80-bit floats."""

import numpy as np
import pytest

from pipeline.kernels import daytime, layout, tickwise
from schemas.times import DAY
from tests.fixtures.pieces import standalone

Long = np.longdouble
TURN = 2 * Long("3.14159265358979323846264338327950288")
ULP = 2.0**-52
pytestmark = pytest.mark.skipif(np.finfo(Long).nmant < 60, reason="no 80-bit floats here")


@pytest.mark.parametrize("size", [1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.0195])
def test_logs_of_near_prices_have_all_their_digits(size: float) -> None:
    """Within two units of the last place; libm's log of the rounded quotient has 1e-12 at 1e-4."""
    log_ratio = standalone(layout).log_ratio
    chance = np.random.default_rng(1)
    for b in chance.uniform(1e-3, 1e6, 500):
        a = float(b) * (1.0 + size * float(chance.choice([-1.0, 1.0]) * chance.uniform(0.5, 1.0)))
        truth = np.log1p((Long(a) - Long(b)) / Long(b))
        assert abs(Long(log_ratio(a, float(b))) - truth) <= 2 * ULP * abs(truth)


@pytest.mark.parametrize(
    ("a", "b"), [(1.7e308, 1.69e308), (5e-324, 1e-323), (2.0, 1.0), (1e200, 1e-200), (1.03, 1.0)]
)
def test_logs_of_other_prices(a: float, b: float) -> None:
    """Far apart, or where the sum of both overflows: as libm says, to the rounding of a / b."""
    truth = np.log(Long(a)) - np.log(Long(b))
    # 1e-14: near 0.03 the quotient's rounding is that much of its logarithm.
    assert standalone(layout).log_ratio(a, b) == pytest.approx(float(truth), rel=1e-14)


def test_equal_prices_have_the_return_zero() -> None:
    """Exactly, and with a plus: a window of them has no variance."""
    found = standalone(layout).log_ratio(0.1, 0.1)
    assert found == 0.0
    assert not np.signbit(found)


def test_the_time_of_day_is_on_the_circle() -> None:
    """Within a unit of the last place of 1, at every kind of minute, and on either side of one."""
    on_circle = standalone(daytime).on_circle
    minutes = np.arange(0, DAY, DAY // 1440)
    chance = np.random.default_rng(2)
    times = [*minutes, *(minutes[1:] - 1), *chance.integers(0, DAY, 2000), DAY - 1]
    for at in map(int, times):
        angle = TURN * at / DAY
        sine, cosine = on_circle(at + 3 * DAY)
        assert abs(Long(sine) - np.sin(angle)) <= ULP
        assert abs(Long(cosine) - np.cos(angle)) <= ULP
    assert on_circle(0) == (0.0, 1.0)
    assert on_circle(DAY // 4) == (1.0, 0.0)
    assert on_circle(DAY // 2) == (0.0, -1.0)


def test_what_time_leaves_of_a_weight() -> None:
    """exp(-age) within a unit of the last place, on both sides of where the series ends."""
    kept = standalone(tickwise)._kept
    for age in (0.0, 1e-300, 1e-9, 1e-4, 0.005, 0.0099999, 0.01, 0.0100001, 0.5, 30.0, 700.0):
        truth = np.exp(-Long(age))
        assert abs(Long(kept(age)) - truth) <= ULP * truth
