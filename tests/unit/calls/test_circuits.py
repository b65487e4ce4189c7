"""Who fails again and again is left alone, for longer and longer, and then tried by one call."""

import pytest

from pipeline.calls import circuits as module
from pipeline.calls.circuits import Circuits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Monotonic seconds, set by the test."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_four_failures_are_borne_and_the_fifth_opens(clock: list[float]) -> None:
    """30 s, then one trial; each that fails doubles the rest, up to the longest."""
    found = Circuits(longest=100.0, trial=10.0)
    for _ in range(4):
        found.failed("a")
        assert found.rest("a") == 0.0
    rests = []
    for _ in range(4):
        found.failed("a")
        rests.append(found.rest("a"))
        clock[0] += rests[-1]
        assert found.rest("a") == 0.0
        found.begin("a")
        assert found.rest("a") == 10.0  # others wait for the one that tries
    assert rests == [30.0, 60.0, 100.0, 100.0]
    assert found.rest("b") == 0.0


def test_a_trial_that_never_ends_is_followed_by_another(clock: list[float]) -> None:
    """A call that was cancelled does not close the circuit for ever."""
    found = Circuits(longest=30.0, trial=10.0)
    for _ in range(5):
        found.failed("a")
    clock[0] += 30.0
    found.begin("a")
    clock[0] += 10.0
    assert found.rest("a") == 0.0


def test_success_forgets(clock: list[float]) -> None:
    """Failures count in a row only."""
    found = Circuits(longest=30.0, trial=10.0)
    for _ in range(3):
        for _ in range(4):
            found.failed("a")
        found.succeeded("a")
    assert found.rest("a") == 0.0
    assert not found._circuits
    assert clock == [100.0]


def test_who_asks_to_be_left_alone_is(clock: list[float]) -> None:
    """After the first failure already."""
    found = Circuits(longest=30.0, trial=10.0)
    found.failed("a", 77.0)
    assert found.rest("a") == 77.0
    clock[0] += 80.0
    assert found.rest("a") == 0.0


def test_memory_is_bounded() -> None:
    """The oldest troubles are forgotten."""
    found = Circuits(longest=30.0, trial=10.0)
    for number in range(5000):
        found.failed(str(number), 1000.0)
    assert len(found._circuits) == 1024
    assert found.rest("4999") > 0.0
