"""Publishing a tick file to `prices`: framed by symbol, paced or as fast as the broker takes it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.clock import monotonic
from pipeline.errors import MisuseError
from pipeline.sources.files import read_documents
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
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Publish every row of a file, `frame` ticks of one symbol a message; returns the ticks sent.

    The key is the symbol, so the order of a symbol's ticks is kept.

    Raises:
        MisuseError: the file cannot be read.
        UnavailableError: the broker does not take it.
    """
    feed = _Feed(publisher, topic, frame, framing)
    start = monotonic()
    first: int | None = None
    sent = 0
    documents = read_documents(path)
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
