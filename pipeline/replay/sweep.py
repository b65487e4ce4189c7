"""Sweep: a backtest for each set of parameters, all of them as one table and one page."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.disk import MANIFEST, digest, write_whole
from pipeline.replay.experiment import REPORT, RUNS, Experiment, Open, Plan, Progress, experiment
from pipeline.replay.grid import Parameters
from pipeline.replay.kept_trials import finished
from pipeline.replay.runs_table import (
    best_first,
    deflated,
    figure_columns,
    parameter_columns,
    write_table,
)
from pipeline.replay.shared_ticks import TicksWriter
from pipeline.replay.sharing import Shared
from pipeline.replay.splits import Window
from pipeline.replay.trial_figures import Outcome


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found, run by run in the order of the grid, and the places of the best."""

    manifest: Mapping[str, Any]
    metric: str
    parameters: Sequence[Parameters]
    figures: Sequence[Mapping[str, Any]]
    outcomes: Sequence[Outcome]
    order: Sequence[int]


def sweep(
    out: Path,
    plan: Plan,
    read: Callable[[TicksWriter], Shared],
    places: Open,
    draw: Callable[[Swept], str],
    told: Progress,
    *,
    metric: str,
) -> dict[str, Any]:
    """Run all variants over the whole input, write `runs.parquet`, the page and a manifest.

    Args:
        out: the directory that appears when all of it is there; until then outcomes are kept
            beside it, and the next call goes on from them.
        plan: the runs.
        read: reads the input for all of them.
        places: where they are done.
        draw: makes the page's text.
        told: how many runs were done now, and which share of those that were to do.
        metric: the figure by which the best are told, one of BETTER.

    Returns how many runs there are, were done now and kept from before, and the best.

    Raises:
        MisuseError: what `experiment` raises.
        TickstreamError: a run failed; what is done is kept.
    """
    with experiment(out, plan, read, places, told) as runs:
        trials = runs.trials(dict.fromkeys(range(len(plan.variants)), (Window(None, None),)))
        all_told = runs.outcomes(trials)
        outcomes = [one.outcomes[0] for one in all_told]
        figures = [
            {**one.figures, "dsr": dsr}
            for one, dsr in zip(outcomes, deflated(outcomes), strict=True)
        ]
        parameters = [variant.parameters for variant in plan.variants]
        write_table(
            runs.folder / RUNS,
            {
                "run": pa.array(range(len(trials)), pa.int64()),
                **parameter_columns(parameters),
                **figure_columns(figures),
                "settings_hash": [one.settings_hash for one in all_told],
                "identity": [trial.key(runs.ticks) for trial in trials],
            },
        )
        order = best_first(figures, metric)
        manifest = runs.manifest({RUNS: digest(runs.folder / RUNS)})
        swept = Swept(manifest, metric, parameters, figures, outcomes, order)
        write_page(runs, draw(swept), manifest)
        finished(runs.folder, out)
        best = order[0] if order else None
        return {
            "runs": len(trials),
            "done": runs.done,
            "kept": runs.kept,
            "metric": metric,
            "best": None
            if best is None
            else {"run": best, "parameters": parameters[best], "figures": figures[best]},
        }


def write_page(runs: Experiment, text: str, manifest: Mapping[str, Any]) -> None:
    """Write the page, and the manifest with its hash; keep the outcomes of these runs only."""
    write_whole(runs.folder / REPORT, text)
    sums = {**manifest["sha256"], REPORT: digest(runs.folder / REPORT)}
    told = json.dumps({**manifest, "sha256": sums}, indent=1)
    write_whole(runs.folder / MANIFEST, told + "\n")
    runs.clean()
