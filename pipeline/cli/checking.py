"""Checks beside `up`, of parity and drift: a turn now and then; trouble is a line, not an end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from pipeline.cache.latest import Cache
from pipeline.cli.options import say
from pipeline.clock import now_ns
from pipeline.errors import UnavailableError
from pipeline.replay.warm import warm
from pipeline.waiting import set_within

_SHARE: Final = 0.5  # of the time; what is left after it waits for the next turn
_TURNS: Final = 3  # that the state of one is told
_AGAIN: Final = "again at the next turn"
_LONGEST: Final = 60.0  # seconds beyond it that a server may need to answer


class Turn(Protocol):
    """What a turn found: a word for its state, how many alerts, and lines for a log."""

    @property
    def state(self) -> str:
        """In a word."""

    @property
    def alerts(self) -> int:
        """How many."""

    def lines(self) -> list[str]:
        """None when there was nothing new."""


class Checks:
    """A turn of one kind of check every so many minutes, for so many seconds; zero is never."""

    def __init__(
        self, name: str, turn: Callable[[float], Awaitable[Turn]], cache: Cache, minutes: float
    ) -> None:
        self._name = name
        self._take = turn
        self._seconds = minutes * 60.0
        self._cache = cache
        self._alerts = 0
        self._last = "not yet checked"

    def states(self) -> Mapping[str, str]:
        """For the line of readiness: how the last turn ended, and how many alerts there were."""
        if not self._seconds:
            return {}
        alerts = self._alerts
        return {self._name: self._last + (f" (alerts: {alerts})" if alerts else "")}

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        if not self._seconds or await set_within(stop, self._seconds):
            return
        await asyncio.to_thread(warm)  # compiled by the workers: what is kept of it is read
        while True:
            await self._turn()
            await self._tell()
            if await set_within(stop, self._seconds):
                return

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(self._seconds * _SHARE + _LONGEST):
                turn = await self._take(self._seconds * _SHARE)
        except TimeoutError:
            self._last = "not checked"
            say(f"{self._name}: not checked: a server did not answer in time; {_AGAIN}")
        except Exception as error:  # noqa: BLE001 -- whatever a check meets, `up` goes on
            self._last = "not checked"
            reason = " ".join(str(error).split()) or type(error).__name__
            say(f"{self._name}: not checked: {reason}; {_AGAIN}")
        else:
            self._last = turn.state
            self._alerts += turn.alerts
            for line in turn.lines():
                say(f"{self._name}: {line}")

    async def _tell(self) -> None:
        """For readers of /readyz elsewhere; it is gone when nobody checks any more."""
        state = {"state": self._last, "alerts": self._alerts, "ts": now_ns()}
        with suppress(UnavailableError):
            await self._cache.keep_state(self._name, state, _TURNS * self._seconds + 2 * _LONGEST)
