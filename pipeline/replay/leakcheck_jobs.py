"""The parts of a leak check that fresh processes do: restarts, reruns, warm-up, canary."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from pipeline.replay.leakcheck_audit import Audit
from pipeline.replay.leakcheck_canary import Score, scores, telling
from pipeline.replay.leakcheck_cuts import fresh
from pipeline.replay.leakcheck_plan import Make, Plan, Source, Stretch
from pipeline.replay.leakcheck_rows import Found, Kind, Leak, differences, keys, stages_of
from pipeline.replay.leakcheck_warmup import Startup, startups
from pipeline.stages.chain import Chain
from schemas.blocks import Rows

_SMALLEST, _LARGEST = 1000, 20_000  # ticks in a block of a rerun


@dataclass(frozen=True, slots=True)
class Task:
    """What one fresh process is to do: any of the parts, in this order."""

    make: Make
    source: Source
    plan: Plan
    stretches: Sequence[Stretch] = ()
    rerun: Stretch | None = None
    warm_up: Sequence[Stretch] = ()
    ticks_per_bar: float = 1.0
    canary: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What it found."""

    leaks: Sequence[Leak]
    startups: Sequence[Startup] = ()
    scores: Sequence[Score] = field(default=())


def work(task: Task) -> Result:
    """Do a task; called in a process that has run nothing of the input before."""
    audit, found = Audit(), Found()
    rng = np.random.default_rng(task.plan.seed)
    with audit.watching():
        chain = task.make()
    for stretch in task.stretches:
        with audit.watching():
            rows = _gone_on(task.make, stretch, rng)
        found.add(_compared(stretch.rows, rows, "fresh"))
    if task.rerun is not None:
        rows = _from_the_start(chain, task.source, task.rerun, rng)
        found.add(_compared(task.rerun.rows, rows, "rerun"))
    begun = startups(task.make, task.source, task.plan.warm_up, task.warm_up, task.ticks_per_bar)
    seen = scores(task.make, task.source, task.plan) if task.canary else ()
    found.add(telling(seen))
    found.add(audit.leaks(chain))
    return Result(found.leaks(), begun, seen)


def _compared(whole: Mapping[str, Rows], cut: Mapping[str, Rows], kind: Kind) -> Iterator[Leak]:
    for stage in stages_of(whole):
        yield from differences(whole[stage], cut[stage], kind)


def _gone_on(make: Make, stretch: Stretch, rng: np.random.Generator) -> dict[str, Rows]:
    """The rows of a stretch by a new chain from its snapshot, in blocks of any size."""
    chain = make()
    chain.restore(stretch.state)
    n = len(stretch.came)
    edges = np.unique([0, n, *rng.integers(0, n + 1, 3).tolist()]).tolist()
    return _joined([chain.step(fresh(stretch.came, a, b)).rows for a, b in pairwise(edges)])


def _from_the_start(
    chain: Chain, source: Source, until: Stretch, rng: np.random.Generator
) -> dict[str, Rows]:
    """The rows of a stretch by a run from the start that ends with it, in blocks of any size."""
    end = until.start + len(until.came)
    edge = int(keys(until.came)[0])
    kept: list[Mapping[str, Rows]] = []
    at = 0
    for came in source(int(rng.integers(_SMALLEST, _LARGEST))):
        part = fresh(came, 0, min(len(came), end - at))
        rows = chain.step(part).rows
        at += len(part)
        if at > until.start:
            kept.append({stage: r.take(keys(r) >= edge) for stage, r in rows.items()})
        if at >= end:
            break
    return _joined(kept)


def _joined(parts: Sequence[Mapping[str, Rows]]) -> dict[str, Rows]:
    found = {}
    for stage in stages_of(parts[-1]):
        each = [part[stage] for part in parts]
        columns = {name: np.concatenate([rows[name] for rows in each]) for name in each[-1].columns}
        found[stage] = Rows(stage, columns, each[-1].symbols)
    return found
