"""Parity checks beside `up`: a turn now and then, told in a line; trouble is a line, not an end."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from pipeline.cache.latest import PARITY, Cache
from pipeline.cli.guarding import stopped
from pipeline.cli.options import say
from pipeline.cli.stack import Stack
from pipeline.clock import now_ns
from pipeline.errors import UnavailableError
from pipeline.replay.parity_turns import Checker
from pipeline.replay.warm import warm
from pipeline.store.pool import Pool

_SHARE: Final = 0.5  # of the time; what is left after it waits for the next turn
_TURNS: Final = 3  # that the state of one is told
_LONGEST: Final = 60.0  # seconds beyond it that a server may need to answer


class Checks:
    """A turn every so many minutes; zero is never."""

    def __init__(self, running: Stack, pool: Pool, cache: Cache, minutes: float) -> None:
        self._seconds = minutes * 60.0
        self._cache = cache
        self._checker = Checker(running.addresses.kafka, pool, running.settings)
        self._found = Counter[str]()
        self._last = "not yet checked"

    def states(self) -> Mapping[str, str]:
        """For the line of readiness: how the last turn ended, and how many differed so far."""
        if not self._seconds:
            return {}
        differed = self._found["differs"]
        return {"parity": self._last + (f" (alerts: {differed})" if differed else "")}

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        if not self._seconds or await stopped(stop, self._seconds):
            return
        await asyncio.to_thread(warm)  # compiled by the workers: what is kept of it is read
        while True:
            await self._turn()
            await self._tell()
            if await stopped(stop, self._seconds):
                return

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(self._seconds * _SHARE + _LONGEST):
                turn = await self._checker.turn(self._seconds * _SHARE)
        except TimeoutError:
            self._last = "not checked"
            say("parity: not checked: a server did not answer in time; again at the next turn")
        except Exception as error:  # noqa: BLE001 -- whatever a check meets, `up` goes on
            self._last = "not checked"
            reason = " ".join(str(error).split()) or type(error).__name__
            say(f"parity: not checked: {reason}; again at the next turn")
        else:
            self._last = turn.state
            self._found["differs"] += len(turn.differences)
            for line in turn.lines():
                say(f"parity: {line}")

    async def _tell(self) -> None:
        """For readers of /readyz elsewhere; it is gone when nobody checks any more."""
        state = {"state": self._last, "alerts": self._found["differs"], "ts": now_ns()}
        with suppress(UnavailableError):
            await self._cache.keep_state(PARITY, state, _TURNS * self._seconds + 2 * _LONGEST)
