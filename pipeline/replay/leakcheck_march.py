"""Two chains over one input: one sees blocks far ahead, one never more than up to the next cut.

All that the second has been given when it makes a row is a prefix, so that one run over the input
is the prefix test of every cut point, and of every row. At each cut a third chain goes on from
a snapshot of the second with later ticks changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from pipeline.replay.leakcheck_cuts import NUDGED, SHOCKS, cuts_of, fresh, newcomers, tail
from pipeline.replay.leakcheck_plan import Make, Plan, Stretch
from pipeline.replay.leakcheck_rows import (
    WHOLE_ROW,
    Found,
    Leak,
    differences,
    keys,
    place_of,
    stages_of,
)
from pipeline.replay.leakcheck_stamps import STAMPED, Stamps, untimely
from pipeline.stages.base import Block
from pipeline.stages.chain import Chain
from schemas.arrivals import Arrivals
from schemas.blocks import Array, Rows

_SPARE: Final = 2**24  # bytes of state copied at each cut; with more, at fewer cuts
_ENDINGS: Final = 16  # a file ends at every so manieth cut
_HELD: Final = 256 * 2**20  # bytes of snapshots held for fresh processes


@dataclass(slots=True)
class Counts:
    """What was done so far."""

    ticks: int = 0
    cuts: int = 0
    shocks: int = 0
    rows: dict[str, int] = field(default_factory=dict)


class March:
    """Steps the chains over the input and collects what differs."""

    def __init__(self, make: Make, plan: Plan, total: int) -> None:
        self._plan = plan
        self._total = total
        self._rng = np.random.default_rng(plan.seed)
        self._far, self._near, self._spare = make(), make(), make()
        self._stamps = Stamps()
        self._known: set[str] = set()
        self._given: list[tuple[Rows, Rows]] = []
        self._stride = 1
        self.found = Found()
        self.counts = Counts()
        self.stretches: list[Stretch] = []

    @property
    def symbols(self) -> int:
        """How many there are."""
        return max(len(self._known), 1)

    def step(self, came: Arrivals) -> None:
        """One block of the run that sees far ahead, and all cuts in it."""
        whole = self._far.step(fresh(came, 0, len(came)))
        self.found.add(self._stamps.check(came, whole))
        counts = self.counts
        for stage, rows in whole.rows.items():
            counts.rows[stage] = counts.rows.get(stage, 0) + len(rows)
        n = len(came)
        wanted = -(-self._plan.cuts * n // max(self._total, 1))
        places = np.searchsorted(keys(came), keys(whole.rows["bars"]))
        ends = cuts_of(n, wanted, places[places < n], newcomers(came, self._known), self._rng)
        kept = self._kept(ends, n)
        part = _Part(came, whole)
        for start, end in pairwise([0, *ends.tolist()]):
            if start in kept:
                stop = min(start + self._plan.stretch, n)
                self._keep(counts.ticks + start, fresh(came, start, stop), part.rows(start, stop))
            if counts.cuts % self._stride == 0:
                self._shocked(part, start, end)
            self._cut(part, start, end)
            counts.cuts += 1
        counts.ticks += n

    def _kept(self, ends: Array, n: int) -> set[int]:
        """Cuts of this block at which a fresh process is to go on; of the block's share."""
        share = -(-self._plan.stretches * n // max(self._total, 1))
        starts = np.array([0, *ends[:-1].tolist()])
        return set(self._rng.choice(starts, min(share, len(starts)), replace=False).tolist())

    def _keep(self, start: int, came: Arrivals, rows: Mapping[str, Rows]) -> None:
        state = self._near.snapshot()
        if sum(len(stretch.state) for stretch in self.stretches) + len(state) < _HELD:
            kept = {stage: _copied(r) for stage, r in rows.items()}  # not the block around them
            self.stretches.append(Stretch(start, state, came, kept))

    def _cut(self, part: "_Part", start: int, end: int) -> None:
        """The prefix that ends at `end`: its last rows, and those given out before it."""
        block = self._near.step(fresh(part.came, start, end))
        self.found.add(_rewritten(self._given))
        whole = part.rows(start, end)
        for stage in stages_of(block.rows):
            rows = block.rows[stage]
            self.found.add(_late(rows, part.key(start), part.key(end)))
            self.found.add(differences(whole[stage], rows, "prefix"))
        self._given = [(rows, _copied(rows)) for rows in block.rows.values() if len(rows)]

    def _shocked(self, part: "_Part", start: int, cut: int) -> None:
        """From `start` on, with the ticks from `cut` on changed: what stands before must stay."""
        size = _pass_on(self._near, self._spare)
        self._stride = 1 + size // _SPARE
        counts = self.counts
        if counts.shocks % _ENDINGS == 0:
            self._ended(part, start)
            _pass_on(self._near, self._spare)
        name, change = SHOCKS[counts.shocks % len(SHOCKS)]
        counts.shocks += 1
        stop = min(cut + tail(self._rng), len(part.came))
        ticks = fresh(part.came, start, stop)
        if cut < stop:
            change(ticks, cut - start, self._rng)
        block = self._spare.step(ticks)
        whole = part.rows(start, cut)
        edge = part.key(cut)
        for stage in stages_of(block.rows):
            rows = block.rows[stage]
            self.found.add(differences(whole[stage], rows.take(keys(rows) < edge), "shock"))
        if name == NUDGED and cut < stop:
            before = int(part.came["ts"][cut:stop].min())
            behind = part.rows(cut, stop)
            theirs = {s: r.take(keys(r) >= edge) for s, r in block.rows.items() if s in STAMPED}
            self.found.add(untimely(behind, theirs, before))

    def _ended(self, part: "_Part", start: int) -> None:
        """A file that ends here makes rows of what is open, and none of what is past."""
        end = int(part.came["offset"][start])
        for rows in self._spare.finish(end).rows.values():
            if len(rows):
                self.found.add(_late(rows, part.key(start) - int(part.came["index"][start]), None))

    def finish(self, end_offset: int) -> None:
        """The input ends: both make the same of what is open, and what was given out stays."""
        whole, cut = self._far.finish(end_offset).rows, self._near.finish(end_offset).rows
        for stage in stages_of(whole):
            self.found.add(differences(whole[stage], cut[stage], "prefix"))
        self.found.add(_rewritten(self._given))


class _Part:
    """A block of the whole run: its rows by the ticks that triggered them."""

    def __init__(self, came: Arrivals, whole: Block) -> None:
        self.came = came
        self._keys = keys(came)
        self._rows = {stage: whole.rows[stage] for stage in stages_of(whole.rows)}
        self._at = {stage: np.maximum.accumulate(keys(r)) for stage, r in self._rows.items()}

    def key(self, at: int) -> int:
        """The identity of a tick by its place; one more than the last for the end."""
        return int(self._keys[at] if at < len(self._keys) else self._keys[-1] + 1)

    def rows(self, start: int, stop: int) -> dict[str, Rows]:
        """The rows that the ticks from start to stop triggered."""
        edges = [self.key(start), self.key(stop)]
        found = {}
        for stage, rows in self._rows.items():
            low, high = np.searchsorted(self._at[stage], edges)
            found[stage] = rows.take(slice(int(low), int(high)))
        return found


def _pass_on(source: Chain, target: Chain) -> int:
    """Give one chain the state of another; the bytes of it."""
    size = 0
    for ours, theirs in zip(source.stages, target.stages, strict=True):
        state = ours.snapshot()
        size += sum(array.nbytes for array in state.values())
        theirs.restore(state)
    return size


def _late(rows: Rows, low: int, high: int | None) -> Iterator[Leak]:
    """Rows that do not belong to the ticks from low to high, by identity."""
    found = keys(rows)
    wrong = found < low
    if high is not None:
        wrong |= found >= high
    wrong[1:] |= found[1:] < found[:-1]
    at = np.flatnonzero(wrong)
    if at.size:
        yield place_of(rows, int(at[0]), "late", WHOLE_ROW)


def _copied(rows: Rows) -> Rows:
    return Rows(rows.stage, {k: v.copy() for k, v in rows.columns.items()}, rows.symbols)


def _rewritten(given: list[tuple[Rows, Rows]]) -> Iterator[Leak]:
    """Rows that a stage changed after it had given them out."""
    for now, then in given:
        yield from differences(then, now, "rewritten")
