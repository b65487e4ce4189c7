"""Turns of parity beside `up`: what each outcome is told as, and that none ends the loop."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from pipeline.cache.latest import PARITY, open_cache
from pipeline.cli.checking import Checks
from pipeline.errors import UnavailableError
from pipeline.replay import parity_turns
from pipeline.replay.differences import Difference
from pipeline.replay.parity_turns import Checker, Turn
from pipeline.settings import CacheSettings, load_settings
from pipeline.store.pool import Pool

MINUTES = 1e-4
DIFFERENCE = Difference("bars", "A", 5, 0, 7, 2, "close", 1.5, None)
OUTCOMES: Sequence[Turn | Exception] = (
    Turn(ranges={0: (0, 9)}, rows={"ticks": 12}),
    UnavailableError("Postgres does not answer:\nno such file"),
    Turn(ranges={0: (9, 20)}, differences=[DIFFERENCE]),
    ValueError(""),
    Turn(unchecked=["partition 1: retention"]),
    TimeoutError(),
    Turn(),
)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
    """Turns that end as listed; the event says that all have been."""
    waiting, done = list(OUTCOMES), asyncio.Event()

    async def turn(_self: Any, _seconds: float) -> Turn:
        found = waiting.pop(0)
        if not waiting:
            done.set()
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(parity_turns.Checker, "turn", turn)
    monkeypatch.setattr("pipeline.cli.checking.warm", lambda: None)
    yield done
    assert not waiting


def _checks(minutes: float) -> Checks:
    # Nobody listens there: what is told of a turn is lost, which ends nothing.
    cache = open_cache("redis://127.0.0.1:1/0", CacheSettings())
    checker = Checker("k", cast("Pool", None), load_settings())
    return Checks(PARITY, checker.turn, cache, minutes)


async def test_each_outcome_is_told_and_the_next_turn_comes(
    outcomes: asyncio.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference, a range that is gone, a server that is away: three words, never an end."""
    checks, stop = _checks(MINUTES), asyncio.Event()
    assert checks.states() == {"parity": "not yet checked"}
    running = asyncio.create_task(checks.run(stop))
    await outcomes.wait()
    stop.set()
    await running
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "parity: bit-equal: 12 rows of offsets 0:0-9",
        "parity: not checked: Postgres does not answer: no such file; again at the next turn",
        f"parity: ALERT: live and replay differ: {DIFFERENCE}",
        "parity: not checked: ValueError; again at the next turn",
        "parity: not checked: partition 1: retention",
        "parity: not checked: a server did not answer in time; again at the next turn",
    ]
    assert checks.states() == {"parity": "equal (alerts: 1)"}


async def test_never_is_never() -> None:
    """Without an interval there is no turn and no word about it."""
    checks = _checks(0.0)
    await checks.run(asyncio.Event())
    assert checks.states() == {}
