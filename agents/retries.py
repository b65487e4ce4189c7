"""Patience with a server that is away, slow or restarting, and its end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from pipeline.errors import UnavailableError
from pipeline.store.pool import RETRYABLE

LOG: Final = structlog.get_logger()
FAILURES: Final = (UnavailableError, *RETRYABLE)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

T = TypeVar("T")


def now() -> float:
    """Seconds on the clock of the running loop, which a simulator may own."""
    return asyncio.get_running_loop().time()


class Outage:
    """Tells of a server that is away in one line, however often it is asked."""

    def __init__(self, event: str) -> None:
        self._event = event
        self.times = 0

    def tell(self, error: BaseException) -> None:
        """It was away again."""
        if not self.times:
            LOG.warning(self._event, error=" ".join(str(error).split()))
        self.times += 1

    def over(self) -> None:
        """It has answered."""
        self.times = 0


async def insist(what: str, seconds: float, action: Callable[[], Awaitable[T]]) -> T:
    """Repeat an action whose repetition is harmless until it succeeds or time is up.

    Raises:
        UnavailableError: it failed for longer than `seconds`.
    """
    deadline = now() + seconds
    pause = _FIRST_PAUSE
    while True:
        try:
            return await action()
        except FAILURES as error:
            if now() + pause > deadline:
                raise UnavailableError(f"{what} failed for too long: {error}") from error
            LOG.warning("sink_failed", action=what, error=str(error), pause=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
