"""Random walks of a few symbols as messages of `prices`, published at once or at a rate."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.clock import monotonic
from schemas.blocks import Array
from schemas.codec import table_bytes, tick_bytes
from schemas.topics import PRICES

SYMBOLS: Final = 8
EVENT_RATE: Final = 10_000  # ticks of all symbols in a second of event time
_START: Final = 1_600_000_000 * 10**9
_MOVE: Final = 1e-4  # of a price from tick to tick: far below what the guard calls a spike
_CHUNK: Final = 1000  # ticks of a symbol that are drawn at once
_BYTES: Final = 8 * 2**20  # that are on their way to the broker at once
_NAP: Final = 0.001


@dataclass(frozen=True, slots=True)
class Framing:
    """How ticks are packed into messages, each of one symbol."""

    ticks: int
    arrow: bool = False


class Market:
    """Symbols in turn; a symbol stays on its partition."""

    def __init__(self, framing: Framing, partitions: int) -> None:
        self._framing = framing
        self._partitions = partitions
        self._walk = np.random.default_rng(1)
        self._names = [f"S{number}" for number in range(SYMBOLS)]
        self._columns = [pa.array([name] * framing.ticks) for name in self._names]

    def messages(self) -> Iterator[Outgoing]:
        """Messages without end."""
        size = self._framing.ticks
        chunk = size * -(-_CHUNK // size)
        level = np.full(SYMBOLS, np.log(100.0))
        step = 10**9 // EVENT_RATE
        first = 0
        while True:
            moves = self._walk.normal(0.0, _MOVE, (SYMBOLS, chunk)).cumsum(axis=1)
            prices = np.round(np.exp(level[:, None] + moves), 4)
            level += moves[:, -1]
            sizes = self._walk.integers(1, 500, (SYMBOLS, chunk)).astype(float)
            times = _START + (first + np.arange(chunk)) * SYMBOLS * step
            first += chunk
            for start in range(0, chunk, size):
                part = slice(start, start + size)
                for symbol in range(SYMBOLS):
                    ts = times[part] + symbol * step
                    value = self._value(symbol, ts, prices[symbol, part], sizes[symbol, part])
                    key = self._names[symbol].encode()
                    yield Outgoing(PRICES, value, key, symbol % self._partitions)

    def _value(self, symbol: int, ts: Array, price: Array, size: Array) -> bytes:
        if self._framing.arrow:
            columns = {"symbol": self._columns[symbol], "ts": ts, "price": price, "size": size}
            return table_bytes(pa.table(columns))
        name = self._names[symbol]
        rows = zip(ts.tolist(), price.tolist(), size.tolist(), strict=True)
        return tick_bytes([{"symbol": name, "ts": t, "price": p, "size": q} for t, p, q in rows])


async def publish(bootstrap: str, framing: Framing, partitions: int, messages: int) -> None:
    """As fast as the broker takes them."""
    left = islice(Market(framing, partitions).messages(), messages)
    async with Publisher(bootstrap) as publisher:
        while portion := list(_portion(left)):
            await publisher.deliver(portion)


def _portion(messages: Iterator[Outgoing]) -> Iterator[Outgoing]:
    held = 0
    while held < _BYTES:
        one = next(messages, None)
        if one is None:
            return
        held += len(one.value)
        yield one


async def paced(rate: float, seconds: float) -> AsyncIterator[int]:
    """About every ms how many are due since the last time, `rate` a second in all."""
    begin, told, total = monotonic(), 0, round(rate * seconds)
    while told < total:
        due = min(int((monotonic() - begin) * rate), total) - told
        if due > 0:
            told += due
            yield due
        await asyncio.sleep(_NAP)
