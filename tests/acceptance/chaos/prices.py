"""The published truth: random walks of several symbols as messages of all framings, and poison."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.codec import tick_bytes

PARTITIONS: Final = 4
SYMBOLS: Final = {number: (f"A{number}", f"B{number}") for number in range(PARTITIONS)}
WHOLE: Final = -1  # the index of a message that is rejected as a whole
_START: Final = 1_600_000_000 * 10**9
_POISON: Final = (
    b"",
    b"   ",
    b"\x00\x01garbage",
    b"not json",
    b'{"symbol": "A0", "ts": 16',
    b'[{"symbol": "A0"',
    b"\xff\xff\xff\xff truncated arrow",
    b'{"symbol": "\xff\xfe", "ts": 1600000000, "price": 1}',
    b"[" * 5000,
    b"x" * 200_000,
)
_BAD: Final[tuple[dict[str, Any], ...]] = (
    {"price": -1.0},
    {"price": 0},
    {"price": "12"},
    {"ts": "yesterday"},
    {"ts": 1},
    {"symbol": ""},
    {"symbol": "no spaces please"},
    {"symbol": "nul\x00"},
    {"size": -3.0},
    {"side": "neither"},
    {"id": ""},
)


def digest(value: bytes) -> bytes:
    """A short name of a message."""
    return hashlib.blake2b(value, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Publication:
    """A message and the coordinates that its ticks have within it."""

    partition: int
    value: bytes
    places: tuple[int, ...]


@dataclass(slots=True)
class _Walk:
    """A symbol on its way."""

    price: float = 100.0
    ts: int = _START
    number: int = 0


@dataclass(slots=True)
class Market:
    """Makes messages, and remembers the digest of each; the walks go on from run to run."""

    published: dict[bytes, tuple[int, ...]] = field(default_factory=dict)  # by digest
    _walks: dict[str, _Walk] = field(default_factory=dict)

    def messages(self, chance: random.Random, poison: float) -> Iterator[Publication]:
        """Messages without end."""
        while True:
            partition = chance.randrange(PARTITIONS)
            if chance.random() < poison:
                made = _poison(chance, partition)
            else:
                made = self._ticks(chance, partition, poison)
            self.published[digest(made.value)] = made.places
            yield made

    def _ticks(self, chance: random.Random, partition: int, poison: float) -> Publication:
        symbol = chance.choice(SYMBOLS[partition])
        count = chance.choice((1, 1, 5, 20, 40))
        ticks = [self._tick(chance, symbol) for _ in range(count)]
        framing = chance.choice(("json", "json", "arrow"))
        if framing == "json" and chance.random() < poison:
            ticks[chance.randrange(count)].update(chance.choice(_BAD))
        return Publication(partition, tick_bytes(ticks, framing), tuple(range(count)))

    def _tick(self, chance: random.Random, symbol: str) -> dict[str, Any]:
        walk = self._walks.setdefault(symbol, _Walk())
        walk.price = max(1.0, walk.price * (1.0 + chance.gauss(0.0, 2e-4)))
        walk.ts += chance.randrange(1, 60_000_000)
        walk.number += 1
        price = round(walk.price, 4)
        if chance.random() < 0.002:
            price = round(price * 1.2, 4)
        late = chance.random() < 0.01
        again = chance.random() < 0.005
        return {
            "symbol": symbol,
            "ts": walk.ts - (10**9 if late else 0),
            "price": price,
            "size": round(chance.expovariate(0.2), 3),
            "side": chance.choice(("buy", "sell")),
            "bid": round(price - 0.01, 4),
            "ask": round(price + 0.01, 4),
            "bid_size": float(chance.randrange(1, 50)),
            "ask_size": float(chance.randrange(1, 50)),
            "id": walk.number - (1 if again else 0),
        }


def _poison(chance: random.Random, partition: int) -> Publication:
    """A message that yields nothing; those of a table lack a column."""
    if chance.random() < 0.2:
        value = tick_bytes([{"symbol": "A0", "price": chance.random()}], "arrow")
        return Publication(partition, value, (WHOLE,))
    if chance.random() < 0.2:
        value = json.dumps([1, None, {}, {"price": chance.random()}]).encode()
        return Publication(partition, value, (0, 1, 2, 3))
    return Publication(partition, chance.choice(_POISON), (WHOLE,))
