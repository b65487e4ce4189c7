"""Walk-forward: parameters chosen in each training window trade the window behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.disk import digest
from pipeline.replay import metrics
from pipeline.replay.experiment import RUNS, Experiment, Open, Plan, Progress, experiment
from pipeline.replay.grid import Parameters
from pipeline.replay.kept_trials import finished
from pipeline.replay.runs_table import (
    best_first,
    deflated,
    figure_columns,
    parameter_columns,
    write_table,
)
from pipeline.replay.shared_ticks import SharedTicks, TicksWriter
from pipeline.replay.sharing import Shared
from pipeline.replay.splits import Fold, Window
from pipeline.replay.sweep import write_page
from pipeline.replay.trial import Told
from pipeline.replay.trial_figures import Outcome
from schemas.blocks import Array

EQUITY: Final = "equity.parquet"
Split = Callable[[SharedTicks], Sequence[Fold]]


@dataclass(frozen=True, slots=True)
class Choice:
    """A fold: what its training said of every variant, the place of the best, what came of it.

    `chosen` and `test` are None where no variant has the figure: nothing is traded then.
    """

    fold: Fold
    train: Sequence[Outcome]
    chosen: int | None
    test: Outcome | None


@dataclass(frozen=True, slots=True)
class Stitched:
    """Test windows one behind the other, each beginning with what the one before had left.

    `ts` (ns) are ends of periods, `equity` begins with 1 at the first start, both of shape (n,)
    and (n + 1,); `fold` says which window a period belongs to. What a window still holds at its end
    is sold there at the last price, at the costs of its settings.
    """

    ts: Sequence[int]
    fold: Sequence[int]
    equity: Sequence[float]


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk-forward found."""

    manifest: Mapping[str, Any]
    metric: str
    parameters: Sequence[Parameters]
    choices: Sequence[Choice]
    stitched: Stitched
    figures: Mapping[str, Any]


def walkforward(
    out: Path,
    plan: Plan,
    read: Callable[[TicksWriter], Shared],
    places: Open,
    draw: Callable[[Walked], str],
    told: Progress,
    *,
    metric: str,
    split: Split,
) -> dict[str, Any]:
    """Choose, trade, stitch; write `runs.parquet`, `equity.parquet`, the page and a manifest.

    Books begin anew in each window, over a chain that has seen all ticks before it and none behind
    its end. The choice of a fold depends on nothing at or behind the start of its test, but for
    folds that train on both sides of it.

    Args:
        out: the directory that appears when all of it is there; resumed as a sweep is.
        plan: the variants to choose from.
        read: reads the input for all runs.
        places: where they are done.
        draw: makes the page's text.
        told: how many runs were done now, and which share of those that were to do.
        metric: the figure to choose by, one of BETTER.
        split: makes the folds.

    Returns how many runs were done now and kept from before, and the figures out of sample.

    Raises:
        MisuseError: what `experiment` or `split` raises.
        TickstreamError: a run failed; what is done is kept.
    """
    with experiment(out, plan, read, places, told) as runs:
        folds = split(runs.ticks)
        trained = _trained(runs, folds)
        choices = _tested(runs, folds, trained, metric)
        stitched = stitch(choices, runs.periods)
        found = _figures(stitched, choices, runs.year, len(plan.variants))
        _write(runs, choices, trained, stitched)
        sums = {name: digest(runs.folder / name) for name in (RUNS, EQUITY)}
        manifest = {**runs.manifest(sums), "out_of_sample": found}
        parameters = [variant.parameters for variant in plan.variants]
        walked = Walked(manifest, metric, parameters, choices, stitched, found)
        write_page(runs, draw(walked), manifest)
        finished(runs.folder, out)
        return {
            "runs": runs.done + runs.kept,
            "done": runs.done,
            "kept": runs.kept,
            "metric": metric,
            "out_of_sample": found,
        }


def _trained(runs: Experiment, folds: Sequence[Fold]) -> list[Told]:
    """Every variant over all training windows; one run each."""
    windows = tuple(fold.train for fold in folds)
    return runs.outcomes(runs.trials(dict.fromkeys(range(len(runs.plan.variants)), windows)))


def _tested(
    runs: Experiment, folds: Sequence[Fold], trained: Sequence[Told], metric: str
) -> list[Choice]:
    """Each fold's best variant over its test window; one run for each variant that was chosen."""
    train = [[one.outcomes[k] for one in trained] for k in range(len(folds))]
    best = [best_first((one.figures for one in some), metric)[:1] for some in train]
    windows: dict[int, list[Window]] = {}
    for fold, found in zip(folds, best, strict=True):
        for place in found:
            windows.setdefault(place, []).append(fold.test)
    told = dict(zip(windows, runs.outcomes(runs.trials(windows)), strict=True))
    choices = []
    for fold, some, found in zip(folds, train, best, strict=True):
        chosen = found[0] if found else None
        test = None
        if chosen is not None:
            test = told[chosen].outcomes[windows[chosen].index(fold.test)]
        choices.append(Choice(fold, some, chosen, test))
    return choices


def stitch(choices: Sequence[Choice], periods: Array) -> Stitched:
    """The windows as one curve; where nothing was traded, it lies flat.

    `periods` (ns, ascending) are the ends of those in which a tick came.
    """
    level = 1.0
    found: dict[int, tuple[int, float]] = {}  # of two windows in one period the later one's end
    for number, choice in enumerate(choices):
        if choice.test is None or not choice.test.ts:
            found |= dict.fromkeys(_within(periods, choice.fold.test), (number, level))
            continue
        capital = choice.test.figures["capital"]
        curve = np.array(choice.test.equity) / capital
        curve[-1] -= choice.test.figures["closing_cost"] / capital
        for ts, value in zip(choice.test.ts, (level * curve).tolist(), strict=True):
            found[ts] = number, value
        level *= float(curve[-1])
    times = sorted(found)
    equity = [1.0, *(found[time][1] for time in times)]
    return Stitched(times, [found[time][0] for time in times], equity)


def _within(periods: Array, window: Window) -> list[int]:
    """The ends of periods that lie in a window."""
    low = 0 if window.start is None else int(periods.searchsorted(window.start, "right"))
    high = None if window.end is None else int(periods.searchsorted(window.end, "right"))
    found: list[int] = periods[low:high].tolist()
    return found


def _figures(
    stitched: Stitched, choices: Sequence[Choice], year: float, trials: int
) -> dict[str, Any]:
    """Figures out of sample; DSR as if the whole of it were the best of as many trials."""
    tests = [choice.test.figures for choice in choices if choice.test is not None]
    held = [one["buy_and_hold"] for one in tests if one["buy_and_hold"] is not None]
    return {
        "folds": len(choices),
        "variants": trials,
        "periods": len(stitched.ts),
        **metrics.performance(np.array(stitched.equity), year, trials),
        "trades": sum(one["trades"] for one in tests),
        "fills": sum(one["fills"] for one in tests),
        "buy_and_hold": float(np.prod([1.0 + one for one in held]) - 1.0) if held else None,
    }


def _write(
    runs: Experiment, choices: Sequence[Choice], trained: Sequence[Told], stitched: Stitched
) -> None:
    """A row for each variant in each training window, and one for each test."""
    rows: list[dict[str, Any]] = []
    figures: list[dict[str, Any]] = []
    for number, choice in enumerate(choices):
        for place, (one, dsr) in enumerate(zip(choice.train, deflated(choice.train), strict=True)):
            rows.append(_row(number, "train", choice.fold.train, place, choice, trained))
            figures.append({**one.figures, "dsr": dsr})
        if choice.chosen is not None and choice.test is not None:
            rows.append(_row(number, "test", choice.fold.test, choice.chosen, choice, trained))
            figures.append({**choice.test.figures, "dsr": None})
    variants = [runs.plan.variants[row["run"]].parameters for row in rows]
    head = {name: pa.array([row[name] for row in rows], kind) for name, kind in _HEAD.items()}
    hashes = pa.array([row["settings_hash"] for row in rows], pa.utf8())
    write_table(
        runs.folder / RUNS,
        {
            **head,
            **parameter_columns(variants),
            **figure_columns(figures),
            "settings_hash": hashes,
        },
    )
    write_table(
        runs.folder / EQUITY,
        {
            "ts": pa.array(stitched.ts, pa.int64()),
            "fold": pa.array(stitched.fold, pa.int64()),
            "equity": pa.array(stitched.equity[1:], pa.float64()),
        },
    )


_HEAD: Final = {
    "fold": pa.int64(), "role": pa.utf8(), "start": pa.int64(), "end": pa.int64(),
    "left_out": pa.int64(), "skipped": pa.int64(), "run": pa.int64(), "chosen": pa.bool_(),
}  # fmt: skip


def _row(
    number: int, role: str, window: Window, place: int, choice: Choice, trained: Sequence[Told]
) -> dict[str, Any]:
    return {
        "fold": number,
        "role": role,
        "start": window.start,
        "end": window.end,
        "left_out": window.left_out,
        "skipped": window.skipped,
        "run": place,
        "chosen": place == choice.chosen,
        "settings_hash": trained[place].settings_hash,
    }
