"""Several partitions in one order: a chain for each, their rows merged by event time."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.models.activations import NONE_PLANNED, Planned
from pipeline.stages.boosted import Activated
from pipeline.stages.chain import Chain, ChainSettings
from schemas.arrivals import Arrivals, Reject
from schemas.blocks import COLUMNS, STAGES, Array, Rows

Portion = tuple[Arrivals, Sequence[Reject]]  # decoded ticks, and what decoding turned away
Portions = AsyncGenerator[Portion, None]
_BEFORE: Final = -(2**63)  # the event time of a partition that has had no tick yet
_INDEX_BITS: Final = 24


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows of every stage and rejects of all partitions in order; `ticks` came in for them."""

    rows: Mapping[str, Rows]
    rejects: Sequence[tuple[int, Reject]]  # each with its partition
    ticks: int


def _codes(offset: Array, index: Array, base: int) -> Array:
    """Identities within a partition as sortable numbers, int64 (n,)."""
    return ((offset - base) << _INDEX_BITS) + index


def _places_of(rows: Mapping[str, Rows], places: Array, base: int) -> dict[str, Array]:
    """For the rows of each stage, one past the place of the tick that triggered each of them."""
    found: dict[str, Array] = {}
    known: dict[int, Array] = {}  # most stages take the identities of an earlier one as they are
    for stage, some in rows.items():
        offset = some["offset"]
        if id(offset) not in known:
            known[id(offset)] = np.searchsorted(
                places, _codes(offset, some["index"], base), "right"
            )
        found[stage] = known[id(offset)]
    return found


class _Lane:
    """The chain of one partition, and its rows that wait for those of others.

    A row's key is the event time of the tick that triggered it, or of an earlier tick of the
    partition if that is later: so keys never fall, though a clock may.
    """

    def __init__(
        self,
        partition: int,
        settings: ChainSettings,
        portions: Portions,
        planned: Sequence[Activated],
    ) -> None:
        self.partition = partition
        self.last = _BEFORE
        self.ended = False
        self.came = 0
        self._chain = Chain(settings, partition)
        for one in planned:
            self._chain.plan(one)
        self._portions = portions
        self._rows: dict[str, Rows] = {}
        self._keys: dict[str, Array] = {}
        self._rejects: list[Reject] = []
        self._reject_keys = np.empty(0, np.int64)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._rejects and not any(len(keys) for keys in self._keys.values())

    async def steps(self) -> AsyncGenerator[Merged, None]:
        """All of the partition when there is no other: it is in order already."""
        async for came, unread in self._portions:
            block = self._chain.step(came, unread)
            self.came += len(came)
            rejects = sorted(block.rejects, key=lambda reject: (reject.offset, reject.index))
            yield Merged(block.rows, [(self.partition, one) for one in rejects], self.came)

    async def refill(self) -> None:
        """Step the next portion of the partition."""
        portion = await anext(self._portions, None)
        if portion is None:
            self.ended = True
            return
        block = self._chain.step(*portion)
        self.came += len(block.arrivals)
        ticks = block.rows["ticks"]
        base = int(ticks["offset"][0]) if len(ticks) else 0
        places = _codes(ticks["offset"], ticks["index"], base)
        # One in front: the key of what stands before the first tick.
        keys = np.maximum.accumulate(np.concatenate([[self.last], ticks["ts"]]))
        self._rows = dict(block.rows)
        self._keys = {stage: keys[at] for stage, at in _places_of(block.rows, places, base).items()}
        self._rejects = sorted(block.rejects, key=lambda reject: (reject.offset, reject.index))
        at = [(reject.offset, reject.index) for reject in self._rejects]
        offset, index = np.array(at, np.int64).reshape(-1, 2).T
        self._reject_keys = keys[np.searchsorted(places, _codes(offset, index, base), "right")]
        self.last = int(keys[-1])

    async def close(self) -> None:
        """Let go of the partition's input."""
        await self._portions.aclose()

    def take(self, bound: tuple[int, int] | None) -> "_Taken":
        """Remove and return what is at or before (event time, partition); None: everything."""
        rows: dict[str, Rows] = {}
        kept: dict[str, Array] = {}
        for stage, keys in self._keys.items():
            n = self._count(keys, bound)
            rows[stage] = self._rows[stage].take(slice(n))
            kept[stage] = keys[:n]
            self._rows[stage] = self._rows[stage].take(slice(n, None))
            self._keys[stage] = keys[n:]
        n = self._count(self._reject_keys, bound)
        rejects = [(self.partition, reject) for reject in self._rejects[:n]]
        taken = _Taken(rows, kept, rejects, self._reject_keys[:n])
        self._rejects, self._reject_keys = self._rejects[n:], self._reject_keys[n:]
        return taken

    def _count(self, keys: Array, bound: tuple[int, int] | None) -> int:
        if bound is None:
            return len(keys)
        time, partition = bound
        return int(keys.searchsorted(time, "right" if self.partition <= partition else "left"))


@dataclass(frozen=True, slots=True)
class _Taken:
    rows: Mapping[str, Rows]
    keys: Mapping[str, Array]
    rejects: Sequence[tuple[int, Reject]]
    reject_keys: Array


class _Words:
    """One numbering for the symbols of all partitions; codes are only ever added."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    @property
    def symbols(self) -> list[str]:
        """The symbols by code."""
        return list(self._codes)

    def recoded(self, codes: Array, symbols: Sequence[str]) -> Array:
        """Codes into `symbols` as codes of this numbering."""
        table = [self._codes.setdefault(name, len(self._codes)) for name in symbols]
        return np.array(table, np.int32)[codes] if table else codes


async def merged(
    sources: Mapping[int, Portions],
    settings: ChainSettings,
    planned: Planned = NONE_PLANNED,
) -> AsyncGenerator[Merged, None]:
    """Rows of all partitions by (event time, partition, offset, index), through a chain for each.

    The order within a partition stays that of its topic: where event time falls there, a row counts
    as late as the one before it. It depends on the messages alone, not on how they are portioned.
    At most one portion of each partition is held. `planned` are the activations of each partition.
    """
    lanes = [
        _Lane(number, settings, sources[number], planned.get(number, ()))
        for number in sorted(sources)
    ]
    words = _Words()
    try:
        if len(lanes) == 1:
            async for step in lanes[0].steps():
                yield step
            return
        while True:
            for lane in lanes:
                while lane.empty and not lane.ended:
                    await lane.refill()
            last = [(lane.last, lane.partition) for lane in lanes if not lane.ended]
            parts = [lane.take(min(last) if last else None) for lane in lanes]
            yield _joined(parts, sum(lane.came for lane in lanes), words)
            if not last:
                return
    finally:
        for lane in lanes:
            await lane.close()


def _joined(parts: Sequence[_Taken], ticks: int, words: _Words) -> Merged:
    rows = {}
    for stage in STAGES:
        some = [part for part in parts if part.rows and len(part.keys[stage])]
        if len(some) == 1:
            rows[stage] = some[0].rows[stage]
        elif some:
            order = np.argsort(np.concatenate([part.keys[stage] for part in some]), kind="stable")
            rows[stage] = _ordered(stage, [part.rows[stage] for part in some], order, words)
    keys = np.concatenate([part.reject_keys for part in parts]) if parts else np.empty(0, np.int64)
    rejects = [reject for part in parts for reject in part.rejects]
    return Merged(rows, [rejects[i] for i in np.argsort(keys, kind="stable").tolist()], ticks)


def _ordered(stage: str, parts: Sequence[Rows], order: Array, words: _Words) -> Rows:
    columns = {}
    for column in COLUMNS[stage]:
        values = [part[column.name] for part in parts]
        if column.kind == "symbol":
            values = [words.recoded(v, p.symbols) for v, p in zip(values, parts, strict=True)]
        columns[column.name] = np.concatenate(values)[order]
    return Rows(stage, columns, words.symbols)
