"""What the feed of the process brings, fanned out to bounded queues."""

import asyncio
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog

QUEUE: Final = 256
_REMEMBERED: Final = 10_000  # symbols
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
    """Gives each row to those who want its symbol, once, though an emptied cache tells it again."""

    def __init__(self) -> None:
        self.dropped = 0
        """Rows that slow clients of this process lost."""
        self._last: OrderedDict[str, tuple[int, int, int]] = OrderedDict()
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
        symbol, place = row["symbol"], (row["partition"], row["offset"], row["index"])
        if self._last.get(symbol) == place:
            return
        self._last[symbol] = place
        self._last.move_to_end(symbol)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        for wanted in (symbol, None):
            for listener in self._listeners.get(wanted, ()):
                self.dropped += not listener.offer(row)
