"""The names of instruments: complete, or read again."""

from api.instruments import Instruments
from api.mirror import STALE
from tests.unit.api.conftest import FakeLives


def followed() -> tuple[Instruments, FakeLives]:
    """Names over a feed that follows ticks."""
    lives = FakeLives()
    lives.lives["ticks"], lives.seconds = 1, 0.1
    return Instruments(lives), lives


def test_they_are_all_until_another_is_met() -> None:
    """All names are known from a reading to the first tick of another one, or to a gap."""
    names, lives = followed()
    assert names.all() is None
    names.keep(["A", "B"], names.begin())
    assert lives.wanted == ["ticks"]
    names.meet("B")
    assert names.all() == ["A", "B"]
    lives.seconds = STALE + 1
    assert names.all() is None
    lives.seconds = 0.1
    lives.lives["ticks"] = 2
    assert names.all() is None
    names.keep(["A", "B"], names.begin())
    names.meet("C")
    assert names.all() is None
    names.keep(["A", "B", "C"], names.begin())
    assert names.all() == ["A", "B", "C"]


def test_one_that_was_met_while_they_were_read() -> None:
    """It may not be among them."""
    names, _ = followed()
    ticket = names.begin()
    names.meet("C")
    names.keep(["A"], ticket)
    assert names.all() is None


def test_names_that_are_asked_for() -> None:
    """Those that were ever read are known, whatever the feed does; an unknown one is looked for."""
    names, lives = followed()
    names.keep(["A", "B", "C"], names.begin())
    lives.lives.clear()
    assert names.named(["C", "A", "C"]) == ["A", "C"]
    assert names.named(["A", "D"]) is None
    assert "B" in names
    assert "D" not in names


def test_without_a_feed_nothing_is_complete() -> None:
    """Names that were read while ticks were not followed are not taken for all."""
    names, lives = followed()
    lives.lives.clear()
    names.keep(["A"], names.begin())
    lives.lives["ticks"] = 1
    assert names.all() is None
