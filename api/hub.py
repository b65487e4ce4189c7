"""One subscription to the cache for the whole process, fanned out to bounded queues."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog

from pipeline.errors import UnavailableError

QUEUE: Final = 256
_PAUSES: Final = (0.1, 0.25, 0.5, 1.0, 2.0)  # seconds between attempts; the last one repeats
_log: Final = structlog.get_logger("api")
Row = dict[str, Any]


class Listener:
    """What waits for one client; when it is full the oldest row gives way and is counted."""

    def __init__(self, size: int = QUEUE) -> None:
        self.dropped = 0
        self._rows: deque[Row] = deque(maxlen=size)
        self._filled = asyncio.Event()

    def offer(self, row: Row) -> bool:
        """Add a row, never waiting; false when one was dropped for it."""
        full = len(self._rows) == self._rows.maxlen
        self.dropped += full
        self._rows.append(row)
        self._filled.set()
        return not full

    async def take(self) -> Row:
        """The oldest row, as soon as there is one."""
        while not self._rows:
            self._filled.clear()
            await self._filled.wait()
        return self._rows.popleft()


class Hub:
    """Listens once for all clients, and again whenever the cache comes back."""

    def __init__(self, listen: Callable[[], AsyncIterator[tuple[str, Row]]]) -> None:
        self.dropped = 0
        """Rows that slow clients of this process lost."""
        self._listen = listen
        # By symbol; those who want all symbols are under None.
        self._listeners: dict[str | None, set[Listener]] = defaultdict(set)

    @property
    def clients(self) -> int:
        """How many subscriptions are open."""
        return len({listener for group in self._listeners.values() for listener in group})

    @contextmanager
    def subscribed(self, symbols: Collection[str] | None) -> Iterator[Listener]:
        """A listener to these symbols, or to all, for the length of a block."""
        listener = Listener()
        wanted = {None} if symbols is None else set(symbols)
        for symbol in wanted:
            self._listeners[symbol].add(listener)
        try:
            yield listener
        finally:
            for symbol in wanted:
                self._listeners[symbol].discard(listener)
                if not self._listeners[symbol]:
                    del self._listeners[symbol]
            if listener.dropped:
                _log.warning("subscriber_lagged", dropped=listener.dropped)

    def publish(self, row: Row) -> None:
        """Give a row to all who want it."""
        for wanted in (row["symbol"], None):
            for listener in self._listeners.get(wanted, ()):
                self.dropped += not listener.offer(row)

    async def run(self) -> None:
        """Listen until cancelled."""
        attempt = 0
        while True:
            try:
                async for _, row in self._listen():
                    attempt = 0
                    self.publish(row)
            except UnavailableError as error:
                if attempt == 0:
                    _log.warning("feed_broken", error=str(error))
            except Exception:  # noqa: BLE001 - a fault in one message must not end the feed for good
                _log.exception("feed_failed")
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1
