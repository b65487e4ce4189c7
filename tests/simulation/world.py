"""The servers of a simulated world; they outlive every worker."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

import cramjam
import orjson

from pipeline.bus.publisher import Outgoing
from pipeline.cache.latest import IDENTITY_WIDTH, Entry
from pipeline.errors import FencedError
from pipeline.store.live import Claim, PartitionBatch
from schemas.arrivals import Message
from schemas.models import Activation
from schemas.topics import REJECTED, SIGNALS
from tests.simulation.faults import Faults
from tests.simulation.group import Group
from tests.simulation.invariants import (
    check_ahead,
    check_cached,
    check_epoch,
    check_facts,
    check_planned,
    check_published,
    check_snapshot,
    check_stored,
    demand,
)
from tests.simulation.loop import SimulatedLoop
from tests.simulation.toy import BLOCKS, Clean, Row, clean_replay, is_signal, rows_of

_KEPT: Final = 2  # snapshots

Stream = tuple[str, int, int]  # topic, its partition, partition of `prices`


@dataclass(slots=True)
class Progress:
    """What Postgres holds of one partition."""

    epoch: int = 0
    mark: int = -1
    rows: list[Row] = field(default_factory=list)
    refusals: list[tuple[int, int]] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    refused: int = 0
    snapshots: dict[int, bytes] = field(default_factory=dict)
    planned: list[Activation] = field(default_factory=list)
    checked: int = 0


class Postgres:
    """Progress, rows and snapshots; each method is one transaction."""

    def __init__(
        self,
        clean: Sequence[Clean],
        published: Callable[[int, int], None],
        swapped: Callable[[int, Sequence[Activation]], None],
    ) -> None:
        self.partitions = [Progress() for _ in clean]
        self.newest: dict[str, tuple[int, Row]] = {}
        self._clean = clean
        self._published = published
        self._swapped = swapped

    def mark(self, partition: int) -> int:
        """The stored mark."""
        return self.partitions[partition].mark

    def claim(self, partition: int) -> Claim:
        """Raise the epoch; the newest snapshot comes with it."""
        found = self.partitions[partition]
        check_epoch(partition, found.epoch, found.epoch + 1)
        found.epoch += 1
        offset = max((o for o in found.snapshots if o <= found.mark), default=-1)
        data = None if offset < 0 else bytes(cramjam.zstd.decompress(found.snapshots[offset]))
        return Claim(partition, found.epoch, found.mark, offset, data, list(found.planned))

    def holds(self, partition: int, epoch: int) -> bool:
        """Whether an epoch is the newest."""
        return self.partitions[partition].epoch == epoch

    def plan(self, batches: Sequence[PartitionBatch]) -> None:
        """Keep the activations that batches begin with; the truth is another one from there on.

        Raises:
            FencedError: a partition has a newer owner.
        """
        for batch in batches:
            if self._fenced(batch):
                raise FencedError(f"partition {batch.partition} has a newer owner")
        for batch in batches:
            found, one = self.partitions[batch.partition], batch.activation
            if one is not None and one.place not in [other.place for other in found.planned]:
                demand(one.offset > found.mark, "swapped behind the mark", one, found.mark)
                found.planned.append(one)
                self._swapped(batch.partition, found.planned)

    def commit(self, batches: Sequence[PartitionBatch]) -> None:
        """All batches or none: fenced by epoch, those whose mark is stored are skipped.

        Raises:
            FencedError: a partition has a newer owner.
        """
        for batch in self._fresh(batches):
            self._insert(batch)
            self._move(batch)
            self._check(batch.partition)

    def save_snapshot(self, partition: int, epoch: int, offset: int, data: bytes) -> None:
        """Keep a state and the one before, unless a newer owner is there."""
        found = self.partitions[partition]
        if found.epoch != epoch:
            return
        state = bytes(cramjam.zstd.decompress(data))
        check_snapshot(partition, self._clean[partition], offset, found.mark, state)
        found.snapshots[offset] = data
        for old in sorted(found.snapshots)[:-_KEPT]:
            del found.snapshots[old]

    def latest(self, stage: str, symbols: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """The newest row of each symbol."""
        if stage != "ticks":
            return {}
        return {s: document(*self.newest[s]) for s in symbols if s in self.newest}

    def _fresh(self, batches: Sequence[PartitionBatch]) -> list[PartitionBatch]:
        for batch in batches:
            if self._fenced(batch):
                raise FencedError(f"partition {batch.partition} has a newer owner")
        return [b for b in batches if b.mark > self.partitions[b.partition].mark]

    def _fenced(self, batch: PartitionBatch) -> bool:
        return self.partitions[batch.partition].epoch != batch.epoch

    def _insert(self, batch: PartitionBatch) -> None:
        found = self.partitions[batch.partition]
        rows = rows_of(batch)
        found.rows += rows
        found.refusals += [(reject.offset, reject.index) for reject, _ in batch.rejects]
        found.symbols += [s for s in batch.symbols if s not in found.symbols]
        for _, _, count in batch.quality:
            found.refused = count
        for row in rows:
            self.newest[row[2]] = (batch.partition, row)

    def _move(self, batch: PartitionBatch) -> None:
        self.partitions[batch.partition].mark = batch.mark

    def _check(self, partition: int) -> None:
        found, clean = self.partitions[partition], self._clean[partition]
        found.checked = check_stored(partition, clean, found.mark, found.rows, found.checked)
        check_facts(partition, clean, found.mark, found)
        self._published(partition, found.mark)


def document(partition: int, row: Row) -> dict[str, Any]:
    """A row as a reader of Postgres or Redis gets it."""
    offset, index, symbol, mixed = row
    return {
        "partition": partition,
        "offset": offset,
        "index": index,
        "symbol": symbol,
        "price": float(mixed),
    }


def is_cached(value: bytes, partition: int, row: Row) -> bool:
    """Whether a cached value shows a stored row."""
    shown = orjson.loads(value)
    return all(shown[name] == expected for name, expected in document(partition, row).items())


class Outputs:
    """The output topics, each judged with every record that it takes."""

    def __init__(self, clean: Sequence[Clean]) -> None:
        self.values: dict[tuple[str, int], list[bytes]] = {}
        self._partitions = len(clean)
        self._expected: dict[Stream, list[Row]] = {}
        for source, truth in enumerate(clean):
            self._expect(source, truth)
        self._known: dict[Stream, int] = defaultdict(int)

    def _expect(self, source: int, truth: Clean) -> None:
        for stream in [stream for stream in self._expected if stream[2] == source]:
            del self._expected[stream]
        for topic, rows in _published(truth).items():
            for row in rows:
                stream = (topic, self._place(topic, row[2].encode(), source), source)
                self._expected.setdefault(stream, []).append(row)

    def swap(self, partition: int, offset: int, truth: Clean) -> None:
        """From an offset on, of which nobody has published, other rows are the truth."""
        for stream, known in self._known.items():
            if stream[2] == partition:
                check_planned(stream, self._expected.get(stream, []), known, offset)
        self._expect(partition, truth)

    def append(self, record: Outgoing) -> None:
        """Take a record for good."""
        rows = [tuple(row) for row in orjson.loads(record.value)]
        place = self._place(record.topic, record.key or b"", record.partition)
        source = int(record.partition if record.partition is not None else rows[0][2][1:])
        stream = (record.topic, place, source)
        self.values.setdefault(stream[:2], []).append(record.value)
        demand(stream in self._expected, "published to a wrong place", stream)
        self._known[stream] = check_published(
            stream, self._expected[stream], self._known[stream], rows
        )

    def check(self, partition: int, mark: int) -> None:
        """All streams of a partition have what is stored."""
        for stream, expected in self._expected.items():
            if stream[2] == partition:
                check_ahead(stream, expected, self._known[stream], mark)

    def _place(self, topic: str, key: bytes, partition: int | None) -> int:
        if topic == SIGNALS or partition is None:
            return crc32(key) % self._partitions
        return partition


def _published(clean: Clean) -> dict[str, list[Row]]:
    return {
        BLOCKS: clean.rows,
        SIGNALS: [row for row in clean.rows if is_signal(row)],
        REJECTED: [(offset, index, "", 0) for offset, index in clean.refusals],
    }


class Redis:
    """Keys and values, as `pipeline/cache/latest.lua` treats them."""

    def __init__(self, clean: Sequence[Clean], mark: Callable[[int], int]) -> None:
        self.values: dict[str, bytes] = {}
        self._clean = clean
        self._mark = mark

    def put(self, found: Sequence[Entry]) -> int:
        """Write what is newer."""
        written = 0
        for key, value, _ in found:
            if self.values.get(key, b"")[:IDENTITY_WIDTH] < value[:IDENTITY_WIDTH]:
                row = orjson.loads(value)
                partition = row["partition"]
                check_cached(self._clean[partition], self._mark(partition), row)
                self.values[key] = value
                written += 1
        return written

    def is_new(self, name: str, life: bytes) -> bool:
        """Whether it was emptied, or asked by another life, since this one asked."""
        before = self.values.get(f"known:{name}")
        self.values[f"known:{name}"] = life
        return before != life

    def wipe(self) -> None:
        """Come back empty."""
        self.values.clear()


class World:
    """All servers, the faults that befall them, and what was seen."""

    def __init__(
        self,
        loop: SimulatedLoop,
        faults: Faults,
        log: Sequence[Sequence[Message]],
        postgres: type[Postgres] = Postgres,
    ) -> None:
        self.loop = loop
        self.faults = faults
        self.away: dict[str, float] = {}
        self.over = False
        self.trace: list[str] | None = None
        self.generation = 0  # of the model, so far
        self.listeners: Sequence[Callable[[], None]] = ()  # who hears of the next one
        self._log = log
        self.clean = [clean_replay(p, messages) for p, messages in enumerate(log)]
        self.outputs = Outputs(self.clean)
        self.postgres = postgres(self.clean, self.outputs.check, self._swap)
        self.redis = Redis(self.clean, self.postgres.mark)
        self.group = Group(log, faults, self.postgres.mark)

    def _swap(self, partition: int, planned: Sequence[Activation]) -> None:
        """What is stored so far, and was published, stays the truth: the rest is another one."""
        truth = clean_replay(partition, self._log[partition], planned)
        self.outputs.swap(partition, planned[-1].offset, truth)
        self.clean[partition] = truth

    def note(self, who: str, what: str, *facts: object) -> None:
        """One line of the trace."""
        if self.trace is not None:
            told = " ".join(map(str, facts))
            self.trace.append(f"{self.loop.time():9.4f} {who:10} {what} {told}".rstrip())

    def is_away(self, server: str) -> bool:
        """Whether a server does not answer now."""
        return self.away.get(server, 0.0) > self.loop.time()
