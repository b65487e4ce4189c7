"""How much a column depends on where a run begins: no leak, but worth knowing before a backtest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.replay.leakcheck_cuts import fresh
from pipeline.replay.leakcheck_plan import Make, Source, Stretch
from pipeline.replay.leakcheck_rows import WHOLE_ROW, differing, keys, stages_of
from pipeline.stages.chain import Chain
from schemas.blocks import COLUMNS, Array, Rows

_HEAD: Final = frozenset({"partition", "offset", "index", "symbol", "ts", "known_at"})
_PIECE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Startup:
    """A column after a warm-up of so many bars, against the whole history.

    `rows` were compared, `differing` of them were not bit-equal; `largest` is the greatest relative
    difference of two numbers, infinite where one of two values is null, a word or missing.
    """

    stage: str
    column: str
    bars: int
    rows: int
    differing: int
    largest: float


class _Run:
    """A chain that begins some way before a stretch."""

    def __init__(self, chain: Chain, bars: int, start: int, stretch: Stretch) -> None:
        self.bars = bars
        self.stretch = stretch
        self.start = start
        self.stop = stretch.start + len(stretch.came)
        self.chain: Chain | None = chain
        self.rows: list[Mapping[str, Rows]] = []


def startups(
    make: Make,
    source: Source,
    lengths: Sequence[int],
    stretches: Sequence[Stretch],
    ticks_per_bar: float,
) -> tuple[Startup, ...]:
    """Every column of every stage but `ticks` after warm-ups of these lengths, in bars.

    `ticks_per_bar` counts ticks of all symbols to a bar of one. A length that does not fit before
    any of the stretches is left out.
    """
    runs = [
        _Run(make(), bars, stretch.start - int(bars * ticks_per_bar), stretch)
        for bars in lengths
        for stretch in stretches
        if bars * ticks_per_bar < stretch.start
    ]
    _step(runs, source)
    return together(one for run in runs for one in _measured(run))


def together(some: Iterable[Startup]) -> tuple[Startup, ...]:
    """One for each column and length, over all places at which it was tried."""
    found: dict[tuple[int, str, str], Startup] = {}
    for one in some:
        place = (one.bars, one.stage, one.column)
        known = found.get(place)
        found[place] = one if known is None else _sum(known, one)
    return tuple(found.values())


def _step(runs: Sequence[_Run], source: Source) -> None:
    """One reading of the input for all runs."""
    at, end = 0, max((run.stop for run in runs), default=0)
    for came in source(_PIECE) if end else ():
        for run in runs:
            low, high = max(run.start - at, 0), min(run.stop - at, len(came))
            if run.chain is None or low >= high:
                continue
            rows = run.chain.step(fresh(came, low, high)).rows
            if at + high > run.stretch.start:
                run.rows.append(rows)
            if at + high == run.stop:
                run.chain = None  # its state is needed no more
        at += len(came)
        if at >= end:
            break


def _measured(run: _Run) -> list[Startup]:
    found = []
    edge = int(keys(run.stretch.came)[0])
    for stage in stages_of(run.stretch.rows):
        if stage == "ticks":
            continue
        whole = run.stretch.rows[stage]
        parts = [part[stage].take(keys(part[stage]) >= edge) for part in run.rows]
        columns = {n: np.concatenate([part[n] for part in parts]) for n in whole.columns}
        late = Rows(stage, columns, parts[-1].symbols)
        _, ours, theirs = np.intersect1d(keys(whole), keys(late), return_indices=True)
        extra = len(whole) + len(late) - 2 * len(ours)
        found.append(
            Startup(stage, WHOLE_ROW, run.bars, len(whole), extra, np.inf if extra else 0.0)
        )
        one, other = whole.take(ours), late.take(theirs)
        for column in COLUMNS[stage]:
            if column.name in _HEAD:
                continue
            wrong = differing(one, other, column)
            size = _largest(one[column.name][wrong], other[column.name][wrong])
            found.append(Startup(stage, column.name, run.bars, len(one), len(wrong), size))
    return found


def _largest(ours: Array, theirs: Array) -> float:
    if not len(ours):
        return 0.0
    if ours.dtype.kind != "f" or (np.isnan(ours) | np.isnan(theirs)).any():
        return np.inf
    return float(np.max(np.abs(theirs - ours) / np.maximum(np.abs(ours), np.abs(theirs))))


def _sum(one: Startup, other: Startup) -> Startup:
    rows, wrong = one.rows + other.rows, one.differing + other.differing
    largest = max(one.largest, other.largest)
    return Startup(one.stage, one.column, one.bars, rows, wrong, largest)
