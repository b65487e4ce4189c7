"""Leak check: no row of any stage may know more than had arrived by then (QUANT.md 4.4).

Two chains go over the input side by side (`leakcheck_march`). Fresh processes go on from snapshots,
run again from the start, and look at warm-up and chance (`leakcheck_jobs`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipeline.clock import monotonic
from pipeline.errors import MisuseError
from pipeline.replay.leakcheck_canary import Score, totals
from pipeline.replay.leakcheck_jobs import Task
from pipeline.replay.leakcheck_march import March
from pipeline.replay.leakcheck_plan import Make, Plan, Source
from pipeline.replay.leakcheck_processes import apart
from pipeline.replay.leakcheck_rows import Found, Leak
from pipeline.replay.leakcheck_warmup import Startup, together
from pipeline.replay.shared_ticks import SharedTicks
from pipeline.sources.files import AS_IT_IS, Reading, read_arrivals
from pipeline.stages.chain import Chain, ChainSettings
from schemas.blocks import COLUMNS

_PROCESSES: Final = 2
_TASKS: Final = 4  # into which the stretches are split
_WIDE: Final = 16 * 2**20  # bytes of state: with more, warm-up is tried at one place only
STANDARD: Final = Plan()


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What was done and found; `leaks` is empty when nothing knew too much.

    `cuts` counts the prefixes whose rows were compared, `shocks` those whose later ticks were also
    changed, `restarts` and `reruns` what fresh processes did; `rows` and `columns` are by stage.
    """

    ticks: int
    cuts: int
    shocks: int
    restarts: int
    reruns: int
    rows: Mapping[str, int]
    columns: Mapping[str, int]
    leaks: Sequence[Leak]
    startups: Sequence[Startup]
    scores: Sequence[Score]
    seconds: float

    def line(self) -> str:
        """It in one line."""
        if self.leaks:
            more = len(self.leaks) - 1
            return f"leak: {self.leaks[0]}" + (f"; and {more} more columns" if more else "")
        columns = sum(self.columns.values())
        return (
            f"no leak: {columns} columns of {len(self.columns)} stages, {self.ticks:,} ticks, "
            f"{self.cuts:,} cut points, {self.shocks:,} shocks, {self.restarts} restarts, "
            f"{self.reruns} reruns; {self.seconds:.1f} s"
        )

    def facts(self) -> dict[str, Any]:
        """It for programs: JSON values only."""
        facts = asdict(self)
        facts["leaks"] = [{**asdict(leak), "text": str(leak)} for leak in self.leaks]
        for one in facts["startups"]:
            one["largest"] = None if one["largest"] == float("inf") else one["largest"]
        facts["scores"] = [{**asdict(score), "z": score.z} for score in self.scores]
        return facts

    def slow(self) -> list[str]:
        """Columns that still differ after the longest warm-up: they remember the whole run."""
        longest = max((one.bars for one in self.startups), default=0)
        return [
            f"{one.stage}.{one.column}"
            for one in self.startups
            if one.bars == longest and one.differing
        ]


def check_file(
    path: Path,
    settings: ChainSettings,
    plan: Plan = STANDARD,
    progress: Callable[[int], None] = lambda _: None,
    reading: Reading = AS_IT_IS,
) -> LeakReport:
    """Check a chain of these settings over a tick file.

    Raises:
        MisuseError: the file cannot be read or holds no tick.
    """
    source = partial(_read, path, reading)
    return check(partial(Chain, settings), source, plan, progress)


def check_shared(
    ticks: SharedTicks,
    settings: ChainSettings,
    plan: Plan = STANDARD,
    progress: Callable[[int], None] = lambda _: None,
) -> LeakReport:
    """Check chains of these settings over ticks that were read once, a chain for each partition.

    Cut points are shared out by the number of ticks.

    Raises:
        MisuseError: there is no tick.
    """
    if not ticks.rows:
        raise MisuseError("there is no tick to check")
    counts = {n: sum(map(len, ticks.blocks(n))) for n in ticks.symbols}
    reports: list[LeakReport] = []
    for partition, count in counts.items():
        before = sum(report.ticks for report in reports)
        report = check(
            partial(Chain, settings, partition),
            partial(_shared, ticks, partition),
            replace(plan, cuts=-(-plan.cuts * count // ticks.rows)),
            lambda done, before=before: progress(before + done),  # type: ignore[misc]  # it binds
        )
        reports.append(report)
    return _together(reports)


def _shared(ticks: SharedTicks, partition: int, block: int) -> Iterator[Any]:
    for came in ticks.blocks(partition):
        for start in range(0, len(came), block):
            yield came.slice(start, min(start + block, len(came)))


def _together(reports: Sequence[LeakReport]) -> LeakReport:
    """Checks of several partitions as one: of each column the first leak of the first of them."""
    found = Found()
    for report in reports:
        found.add(report.leaks)
    return LeakReport(
        ticks=sum(report.ticks for report in reports),
        cuts=sum(report.cuts for report in reports),
        shocks=sum(report.shocks for report in reports),
        restarts=sum(report.restarts for report in reports),
        reruns=sum(report.reruns for report in reports),
        rows={s: sum(report.rows[s] for report in reports) for s in reports[0].rows},
        columns=reports[0].columns,
        leaks=found.leaks(),
        startups=together(one for report in reports for one in report.startups),
        scores=totals(score for report in reports for score in report.scores),
        seconds=sum(report.seconds for report in reports),
    )


def _read(path: Path, reading: Reading, block: int) -> Iterator[Any]:
    return read_arrivals(path, block, reading)


def check(
    make: Make,
    source: Source,
    plan: Plan = STANDARD,
    progress: Callable[[int], None] = lambda _: None,
) -> LeakReport:
    """Check the chains that `make` makes over the ticks that `source` reads.

    Both are called again in fresh processes. `progress` is told the ticks done.

    Raises:
        MisuseError: there is no tick.
    """
    begin = monotonic()
    total = sum(len(came) for came in source(plan.block))
    if total == 0:
        raise MisuseError("there is no tick to check")
    march = March(make, plan, total)
    with ThreadPoolExecutor(_PROCESSES) as pool:  # each thread waits for a process
        doing = []
        if plan.canary:
            doing.append(pool.submit(apart, Task(make, source, plan, canary=True)))
        end = 0
        for came in source(plan.block):
            march.step(came)
            end = int(came["offset"][-1]) + 1
            progress(march.counts.ticks)
        march.finish(end)
        tasks = _tasks(make, source, plan, march)
        doing += [pool.submit(apart, task) for task in tasks]
        results = [future.result() for future in doing]
    for result in results:
        march.found.add(result.leaks)
    return LeakReport(
        ticks=march.counts.ticks,
        cuts=march.counts.cuts,
        shocks=march.counts.shocks,
        restarts=sum(len(task.stretches) for task in tasks),
        reruns=sum(task.rerun is not None for task in tasks),
        rows=march.counts.rows,
        columns={stage: len(COLUMNS[stage]) for stage in march.counts.rows},
        leaks=march.found.leaks(),
        startups=[one for result in results for one in result.startups],
        scores=[one for result in results for one in result.scores],
        seconds=monotonic() - begin,
    )


def _tasks(make: Make, source: Source, plan: Plan, march: March) -> list[Task]:
    """What is left for fresh processes once the stretches are known: the longest first."""
    stretches, counts = march.stretches, march.counts
    late = stretches[:: -max(len(stretches) // max(plan.reruns, 1), 1)][: plan.reruns]
    tasks = [Task(make, source, plan, rerun=stretch) for stretch in late]
    if plan.warm_up:
        places = 1 if any(len(stretch.state) > _WIDE for stretch in stretches) else plan.warm_ups
        # Ticks of all symbols that pass while one of them closes a bar.
        per_bar = counts.ticks * march.symbols / max(counts.rows.get("bars", 0), 1)
        begun = Task(make, source, plan, warm_up=stretches[-places:], ticks_per_bar=per_bar)
        tasks.append(begun)
    shares = [stretches[place::_TASKS] for place in range(_TASKS)]
    return tasks + [Task(make, source, plan, stretches=share) for share in shares if share]
