"""What the feed of the process brings, a hub for each stage, fanned out to bounded queues."""

import asyncio
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import orjson

from api.names import FOLLOWED
from pipeline.cache.documents import identity_of, symbol_of

QUEUE: Final = 256
_REMEMBERED: Final = 10_000  # symbols
Row = dict[str, Any]


class Listener:
    """What waits for one who listens; when it is full the oldest row gives way and is counted."""

    def __init__(self, size: int = QUEUE) -> None:
        self.size = size
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
    """Gives rows to those who want their symbol."""

    def __init__(self, size: int = QUEUE) -> None:
        self.dropped = 0
        """Rows that gave way, as those who listen did not take them in time."""
        self._size = size
        # By symbol; those who want all symbols are under None.
        self._listeners: dict[str | None, set[Listener]] = defaultdict(set)

    @property
    def clients(self) -> int:
        """How many listen."""
        return len({listener for group in self._listeners.values() for listener in group})

    @contextmanager
    def subscribed(self, symbols: Collection[str] | None) -> Iterator[Listener]:
        """A listener to these symbols, or to all, for the length of a block."""
        listener = Listener(self._size)
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

    def wanting(self, symbol: str | None) -> list[Listener]:
        """Who wants a symbol; what is of no symbol goes to those who want all."""
        found = [*self._listeners.get(None, ())]
        if symbol is not None:
            found += self._listeners.get(symbol, ())
        return found

    def give(self, listeners: Iterable[Listener], row: Row) -> None:
        """Give a row to some."""
        for listener in listeners:
            self.dropped += not listener.offer(row)


class LatestHub(Hub):
    """Gives each row that becomes the latest once, though an emptied cache tells it again."""

    def __init__(self) -> None:
        super().__init__()
        self._last: OrderedDict[str, bytes] = OrderedDict()  # identities by symbol

    def publish(self, text: bytes) -> None:
        """Give the row of a document to all who want it; it is read when there is one.

        Raises:
            ValueError: it is none.
        """
        symbol, identity = symbol_of(text), identity_of(text)
        if self._last.get(symbol) == identity:
            return
        self._last[symbol] = identity
        self._last.move_to_end(symbol)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        wanting = self.wanting(symbol)
        if wanting:
            self.give(wanting, orjson.loads(text))


class Hubs:
    """The hub of each stage that can be subscribed to.

    Args:
        hold: follows a stage for the length of a block.
    """

    def __init__(self, hold: Callable[[str], AbstractContextManager[None]]) -> None:
        self._hold = hold
        self._hubs = {stage: LatestHub() for stage in FOLLOWED}

    def __getitem__(self, stage: str) -> LatestHub:
        """The hub of a stage."""
        return self._hubs[stage]

    @property
    def clients(self) -> int:
        """How many listen."""
        return sum(hub.clients for hub in self._hubs.values())

    @contextmanager
    def subscribed(self, stage: str, symbols: Collection[str] | None) -> Iterator[Listener]:
        """A listener to a stage, which is followed as long as there is one."""
        with self._hold(stage), self._hubs[stage].subscribed(symbols) as listener:
            yield listener

    def publish(self, stage: str, text: bytes) -> None:
        """Give a row to all who want it; nobody can want one of another stage.

        Raises:
            ValueError: it is no document of a row.
        """
        hub = self._hubs.get(stage)
        if hub is not None:
            hub.publish(text)
