"""Publishing a tick file to `prices`: framed by symbol, paced or as fast as the broker takes it."""

import asyncio
import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.clock import monotonic
from pipeline.errors import MisuseError
from pipeline.sources.files import AS_IT_IS, Reading, read_documents
from schemas.codec import tick_bytes
from schemas.times import NO_TIME, parse_time
from schemas.topics import PRICES

_IN_FLIGHT: Final = 256
_NAP: Final = 0.01  # shorter waits are not worth a sleep


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `rate` ticks a second, or `speed` times the event time; neither means at once."""

    rate: float | None = None
    speed: float | None = None

    def due(self, sent: int, since_first_ns: int) -> float:
        """Seconds after the start at which the next tick is due."""
        if self.rate is not None:
            return sent / self.rate
        if self.speed is not None:
            return since_first_ns / 1e9 / self.speed
        return 0.0


async def publish_file(
    path: Path,
    publisher: Publisher,
    *,
    pace: Pace,
    frame: int = 1,
    framing: Literal["json", "arrow"] = "json",
    topic: str = PRICES,
    reading: Reading = AS_IT_IS,
    reorder_ns: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Publish every row of a file, `frame` ticks of one symbol a message; returns the ticks sent.

    The key is the symbol, so the order of a symbol's ticks is kept. Ticks that come up to
    `reorder_ns` behind later ones are put in order before they are sent; the chain never reorders.

    Raises:
        MisuseError: the file cannot be read.
        UnavailableError: the broker does not take it.
    """
    feed = _Feed(publisher, topic, frame, framing)
    start = monotonic()
    first: int | None = None
    sent = 0
    documents = reordered(read_documents(path, reading), reorder_ns)
    while True:
        document = next(documents, None)
        if document is None:
            break
        if pace.speed is not None:
            ts = parse_time(document.get("ts"))
            if ts == NO_TIME:
                raise MisuseError(f"{path}: row {sent + 1} has no time to be paced by")
            first = ts if first is None else first
        wait = start + pace.due(sent, 0 if first is None else ts - first) - monotonic()
        if wait > _NAP:
            await feed.flush()
            progress(sent)
            await asyncio.sleep(wait)
        await feed.add(document)
        sent += 1
        if sent % 1000 == 0:
            progress(sent)
    await feed.finish()
    progress(sent)
    return sent


def reordered(documents: Iterator[dict[str, Any]], window_ns: int) -> Iterator[dict[str, Any]]:
    """Documents in the order of time, as far as a window of event time can mend it."""
    if window_ns <= 0:
        yield from documents
        return
    waiting: list[tuple[int, int, dict[str, Any]]] = []
    newest = NO_TIME
    for number, document in enumerate(documents):
        ts = parse_time(document.get("ts"))
        if ts == NO_TIME:
            yield document  # the guard will name it; it has no place in the order
            continue
        heapq.heappush(waiting, (ts, number, document))
        newest = max(newest, ts)
        while waiting[0][0] <= newest - window_ns:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


class _Feed:
    def __init__(self, publisher: Publisher, topic: str, frame: int, framing: str) -> None:
        self._publisher = publisher
        self._topic = topic
        self._frame = frame
        self._framing = framing
        self._waiting: dict[str, list[Mapping[str, Any]]] = {}
        self._pending: set[asyncio.Future[Any]] = set()

    async def add(self, document: Mapping[str, Any]) -> None:
        symbol = str(document.get("symbol", ""))
        waiting = self._waiting.setdefault(symbol, [])
        waiting.append(document)
        if len(waiting) >= self._frame:
            await self._send(symbol, self._waiting.pop(symbol))

    async def flush(self) -> None:
        """Send what waits for a full frame."""
        for symbol in list(self._waiting):
            await self._send(symbol, self._waiting.pop(symbol))

    async def finish(self) -> None:
        await self.flush()
        await asyncio.gather(*self._pending)

    async def _send(self, symbol: str, ticks: list[Mapping[str, Any]]) -> None:
        value = tick_bytes(ticks, self._framing)
        delivery = await self._publisher.send(Outgoing(self._topic, value, symbol.encode()))
        self._pending.add(delivery)
        if len(self._pending) >= _IN_FLIGHT:
            done, self._pending = await asyncio.wait(
                self._pending, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                one.result()  # a failed delivery ends the publishing
