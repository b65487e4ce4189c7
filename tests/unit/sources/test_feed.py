"""How fast a file is published."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.feed import Pace


@given(st.integers(0, 10**9), st.integers(0, 10**18))
def test_without_a_pace_all_is_due_at_once(sent: int, since: int) -> None:
    """No rate and no speed: as fast as the broker takes it."""
    assert Pace().due(sent, since) == 0.0


@given(st.integers(0, 10**6), st.integers(0, 10**18), st.sampled_from([1.0, 250.0, 10_000.0]))
def test_a_rate_counts_ticks(sent: int, since: int, rate: float) -> None:
    """The n-th tick is due n / rate seconds after the start, whatever its time."""
    assert Pace(rate=rate).due(sent, since) == sent / rate


def test_speed_follows_event_time() -> None:
    """Ten times as fast: an hour of events takes six minutes, whatever their number."""
    hour = 3600 * 10**9
    assert Pace(speed=10).due(5, hour) == 360
    assert Pace(speed=1).due(10**6, hour) == 3600
    assert Pace(speed=0.5).due(0, hour) == 7200
    assert Pace(speed=10).due(7, 0) == 0


def test_a_rate_goes_before_a_speed() -> None:
    """Given both, the rate decides."""
    assert Pace(rate=100, speed=2).due(50, 10**12) == 0.5
