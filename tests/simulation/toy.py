"""A stand-in for the chain that costs nothing and forgives nothing.

Its state is a running hash of every message stepped and of the versions that speak, and every row
carries it: a message lost, repeated or out of order, or a swap at another place, changes all rows
after it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from zlib import crc32

import numpy as np
import orjson

from agents.ports import Arrived, Stepped
from pipeline.bus.publisher import Outgoing
from pipeline.errors import StateError
from pipeline.models.following import Offer
from pipeline.stages.boosted import Activated, Boosted, nobody
from pipeline.store.live import PartitionBatch
from schemas.arrivals import Message, Reject
from schemas.blocks import Array, Rows, empty
from schemas.models import Activation
from schemas.ticks import Reason
from schemas.topics import REJECTED, SIGNALS

BLOCKS: Final = "bars"  # the topic that stands for all topics of blocks
_SYMBOLS: Final = ("A", "B", "C")
_FACTOR, _MASK = 6364136223846793005, 2**52 - 1  # the hash must survive as a float
_KINDS: Final = 8

Row = tuple[int, int, str, int]  # offset, index, symbol, hash
Refusal = tuple[int, int]  # offset, index


@dataclass(slots=True)
class State:
    """What a partition remembers; `symbols` in the order they were seen."""

    mixed: int = 1
    refused: int = 0
    symbols: list[str] = field(default_factory=list)
    activation: Activation | None = None

    def step(self, partition: int, message: Message) -> tuple[list[Row], list[Refusal]]:
        """The rows and refusals that one message makes."""
        sum_ = crc32(message.value or b"")
        spoken = 0 if self.activation is None else self.activation.generation
        self.mixed = (self.mixed * _FACTOR + sum_ + message.offset + 7 * spoken) & _MASK
        kind = sum_ % _KINDS
        if kind == 0 or message.value is None:
            self.refused += 1
            return [], [(message.offset, -1)]
        rows = []
        for index in range(1 if kind < _KINDS - 1 else 2):
            symbol = f"{_SYMBOLS[(sum_ // _KINDS + index) % len(_SYMBOLS)]}{partition}"
            if symbol not in self.symbols:
                self.symbols.append(symbol)
            rows.append((message.offset, index, symbol, self.mixed))
        return rows, []

    def packed(self) -> bytes:
        """The state as bytes that tell when they are damaged."""
        body = orjson.dumps([self.mixed, self.refused, self.symbols, self.activation])
        return b"%08x" % crc32(body) + body

    def copy(self) -> "State":
        """Another one that is the same."""
        return State(self.mixed, self.refused, list(self.symbols), self.activation)


def unpacked(data: bytes) -> State:
    """The state of `State.packed`.

    Raises:
        StateError: the bytes are damaged.
    """
    if data[:8] != b"%08x" % crc32(data[8:]):
        raise StateError("the checksum does not fit")
    mixed, refused, symbols, told = orjson.loads(data[8:])
    return State(mixed, refused, symbols, None if told is None else Activation(**told))


class ToyPartition:
    """`agents.ports.Owned` with the behaviour of `agents.partition.OwnedPartition`."""

    def __init__(self, partition: int, epoch: int) -> None:
        self.partition = partition
        self.epoch = epoch
        self.next_offset = 0
        self.snapshot_offset = -1
        self.published = 0
        self._state = State()
        self._planned: list[Activation] = []
        self._settled = (0, 0)  # symbols, refusals

    @property
    def symbols(self) -> Sequence[str]:
        """Symbols seen on this partition."""
        return self._state.symbols

    @property
    def activation(self) -> Activation | None:
        """The last one that is planned or applied."""
        return self._planned[-1] if self._planned else self._state.activation

    def plan(self, activated: Sequence[Activated]) -> None:
        """Apply these at their places."""
        self._planned += [one.activation for one in activated]

    def _step(self, message: Message) -> tuple[list[Row], list[Refusal]]:
        while self._planned and self._planned[0].offset <= message.offset:
            self._state.activation = self._planned.pop(0)
        return self._state.step(self.partition, message)

    def restore(self, offset: int, data: bytes) -> None:
        """Continue from a snapshot."""
        self._state = unpacked(data)
        self.next_offset = offset + 1
        self.snapshot_offset = offset

    def reset(self) -> None:
        """Start from nothing."""
        self._state = State()
        self.next_offset = 0
        self.snapshot_offset = -1

    def catch_up(self, arrived: Sequence[Arrived]) -> None:
        """Step messages whose rows are stored already."""
        fresh = [a.message for a in arrived if a.message.offset >= self.next_offset]
        for message in fresh:
            self._step(message)
        if fresh:
            self.next_offset = fresh[-1].offset + 1

    def settled(self) -> None:
        """Count facts from here on."""
        self._settled = (len(self._state.symbols), self._state.refused)

    def step(self, arrived: Sequence[Arrived], offer: Offer | None = None) -> Stepped | None:
        """Make rows of new messages; what is known is judged once, before the first."""
        fresh = [a for a in arrived if a.message.offset >= self.next_offset]
        if not fresh:
            return None
        activated = None if offer is None else offer.at(fresh[0].message.offset)
        if activated is not None:
            self.plan([activated])
        rows: list[Row] = []
        refusals: list[Refusal] = []
        for one in fresh:
            made, refused = self._step(one.message)
            rows += made
            refusals += refused
        self.next_offset = fresh[-1].message.offset + 1
        known, counted = self._settled
        self.settled()
        batch = PartitionBatch(
            partition=self.partition,
            epoch=self.epoch,
            mark=self.next_offset - 1,
            rows={"ticks": _rows(self.partition, rows)},
            rejects=[
                (Reject(offset, index, Reason.MALFORMED, ""), b"") for offset, index in refusals
            ],
            symbols=tuple(self._state.symbols[known:]),
            quality=[("", Reason.MALFORMED.value, self._state.refused)]
            if self._state.refused != counted
            else [],
            activation=None if activated is None else activated.activation,
        )
        return Stepped(batch, list(_records(self.partition, rows, refusals)))

    def copied(self) -> Callable[[], bytes]:
        """A copy of the state, to be packed at any later time."""
        return self._state.copy().packed


def _records(
    partition: int, rows: Sequence[Row], refusals: Sequence[Refusal]
) -> Iterator[Outgoing]:
    """A block of all rows, some as signals of a symbol, the refusals one by one."""
    if rows:
        yield Outgoing(BLOCKS, orjson.dumps(rows), str(partition).encode(), partition)
    for row in rows:
        if is_signal(row):
            yield Outgoing(SIGNALS, orjson.dumps([row]), row[2].encode())
    for offset, index in refusals:
        yield Outgoing(REJECTED, orjson.dumps([[offset, index, "", 0]]), None, partition)


def is_signal(row: Row) -> bool:
    """Whether a row is published as a signal too."""
    return row[3] % 3 == 0


@lru_cache(maxsize=256)
def _template(n: int) -> Mapping[str, Array]:
    columns = dict(empty("ticks", n).columns)
    columns["ts"] = columns["known_at"] = np.zeros(n, np.int64)
    columns["index"] = np.zeros(n, np.int32)
    return columns


def _rows(partition: int, rows: Sequence[Row]) -> Rows:
    """Rows of stage `ticks` whose price is the hash; all that does not matter is shared."""
    columns = dict(_template(len(rows)))
    symbols = list(dict.fromkeys(row[2] for row in rows))
    if rows:
        offsets, indexes, names, mixed = zip(*rows, strict=True)
        columns["partition"] = np.full(len(rows), partition, np.int32)
        columns["offset"] = np.array(offsets, np.int64)
        columns["index"] = np.array(indexes, np.int32)
        columns["symbol"] = np.array([symbols.index(name) for name in names], np.int32)
        columns["price"] = np.array(mixed, np.float64)
    return Rows("ticks", columns, symbols)


def rows_of(batch: PartitionBatch) -> list[Row]:
    """The rows of a batch as the tuples they were made of."""
    rows = batch.rows["ticks"]
    return [
        (offset, index, rows.symbols[code], int(price))
        for offset, index, code, price in zip(
            rows["offset"].tolist(),
            rows["index"].tolist(),
            rows["symbol"].tolist(),
            rows["price"].tolist(),
            strict=True,
        )
    ]


def offer_of(generation: int) -> Offer:
    """Versions that nobody hears of but by the hash."""
    version = Boosted(f"v{generation}", nobody().trees)
    return Offer("gbdt", generation, version, None, {"high": version})


@dataclass(slots=True)
class Clean:
    """What a partition's messages make when nothing goes wrong."""

    rows: list[Row] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    states: list[State] = field(default_factory=list)  # behind each offset
    ends: list[int] = field(default_factory=list)  # rows until then

    def rows_until(self, mark: int) -> int:
        """How many rows offsets up to `mark` make."""
        return self.ends[mark] if mark >= 0 else 0

    def state_behind(self, mark: int) -> State:
        """The state behind an offset."""
        return self.states[mark] if mark >= 0 else State()


def clean_replay(
    partition: int, messages: Sequence[Message], planned: Sequence[Activation] = ()
) -> Clean:
    """The truth that every schedule is compared with, by these versions."""
    state, clean = State(), Clean()
    places = {one.offset: one for one in planned}
    for message in messages:
        state.activation = places.get(message.offset, state.activation)
        rows, refusals = state.step(partition, message)
        clean.rows += rows
        clean.refusals += refusals
        clean.states.append(state.copy())
        clean.ends.append(len(clean.rows))
    return clean
