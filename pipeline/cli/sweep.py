"""`sweep` and `walkforward`."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from pipeline.cli.progress import Progress, display, figures_line
from pipeline.cli.runs import LONGEST, Asked, period_option, run_options
from pipeline.errors import MisuseError
from pipeline.replay.experiment import REPORT
from pipeline.replay.shared_ticks import SharedTicks
from pipeline.replay.splits import Fold as Split
from pipeline.replay.splits import Scheme, edges_of, even_edges, folds_of, kfolds_of
from pipeline.replay.sweep import sweep as run_sweep
from pipeline.replay.sweep_report import sweep_report, told_parameters
from pipeline.replay.walkforward import walkforward as run_walkforward
from pipeline.replay.walkforward_report import walkforward_report
from pipeline.replay.warm import warm

_WINDOWS: Final = 5


@click.command()
@run_options
def sweep(asked: Asked) -> None:
    """Backtest INPUT once for each set of parameters: runs.parquet and one page.

    Every setting that a backtest takes can be varied, and the parameters of your own features
    (user.parameters.NAME). Interrupted, the same command goes on where it was.
    """
    plan, read = asked.plan("sweep"), asked.reader()
    places = asked.places(len(plan.variants))
    warm()
    with Progress(f"sweeping {asked.source}, runs") as progress:
        found = run_sweep(
            asked.out, plan, read, places, sweep_report, progress, metric=asked.metric
        )
    _tell(asked, found, _best)


def _tell(asked: Asked, found: Mapping[str, Any], said: Callable[[Mapping[str, Any]], str]) -> None:
    if asked.as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{display(asked.out / REPORT)}: {_counts(found)}; {said(found)}")


def _counts(found: Mapping[str, Any]) -> str:
    kept = f", {found['kept']:,} of them kept from before" if found["kept"] else ""
    return f"{found['runs']:,} runs{kept}"


def _best(found: Mapping[str, Any]) -> str:
    best, metric = found["best"], found["metric"]
    if best is None:
        return f"none has a {metric}"
    figures = best["figures"]
    dsr = figures["dsr"]
    told = f"{metric} {figures[metric]:.4g}, DSR {'null' if dsr is None else f'{dsr:.1%}'}"
    return f"best {told} with {told_parameters(best['parameters'])}"


@click.command()
@run_options
@click.option(
    "--scheme",
    type=click.Choice(["anchored", "rolling", "kfold"]),
    default="anchored",
    show_default=True,
    help="Training from the first tick on, on a window of fixed length, or on all but the test.",
)
@click.option(
    "--windows",
    type=click.IntRange(1, 1000),
    help=f"How many test windows, all of the same length; {_WINDOWS} if nothing is told.",
)
@click.option("--train", metavar="SPAN", help="Length of the (first) training, as 30d or 6h.")
@click.option("--test", metavar="SPAN", help="Length of each test.")
@click.option(
    "--purge",
    type=click.IntRange(0, 100_000),
    help="Bars before a test that teach nothing; the longest predictions.horizon if not told.",
)
@click.option(
    "--embargo",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="So many bars more; of kfold, behind a test.",
)
def walkforward(
    asked: Asked,
    scheme: Scheme,
    windows: int | None,
    train: str | None,
    test: str | None,
    purge: int | None,
    embargo: int,
) -> None:
    """Choose parameters in each training window, trade the window behind it, and say what came.

    The bars just before a test, whose outcome may lie in it, teach nothing (purge). Books begin
    anew with each window; features have seen all ticks before it. With --scheme kfold each of
    --windows parts is the test once, and what lies around it teaches, also what came later: it
    tells how much a choice depends on its training, not what it would have earned.
    """
    plan = asked.plan(
        "walkforward", scheme=scheme, purge=purge, embargo=embargo, windows=windows, train=train,
        test=test,
    )  # fmt: skip
    horizons = [variant.settings.predictions.horizon for variant in plan.variants]
    away = max(horizons) if purge is None else purge, embargo
    split = _split(scheme, windows, train, test, away, plan.period)
    read, places = asked.reader(), asked.places(len(plan.variants))
    warm()
    with Progress(f"walking over {asked.source}, runs") as progress:
        found = run_walkforward(
            asked.out, plan, read, places, walkforward_report, progress,
            metric=asked.metric, split=split,
        )  # fmt: skip
    _tell(asked, found, _out_of_sample)


def _split(
    scheme: Scheme,
    windows: int | None,
    train: str | None,
    test: str | None,
    away: tuple[int, int],
    period: int,
) -> Callable[[SharedTicks], Sequence[Split]]:
    """What makes the folds, by the options; `away` are purge and embargo.

    Raises:
        MisuseError: both a number of windows and their length are given, or only one length; or
            what does not go with kfold.
    """
    if scheme == "kfold":
        return _kfold(windows or _WINDOWS, train or test, away, period)
    left_out = sum(away)
    if (train is None) != (test is None):
        raise MisuseError("--train and --test: give both, or neither and --windows")
    if train is not None and windows is not None:
        raise MisuseError("--windows says what --train and --test would say: give one of them")
    lengths = None
    if train is not None and test is not None:
        lengths = period_option(train, "--train", LONGEST), period_option(test, "--test", LONGEST)

    def split(ticks: SharedTicks) -> Sequence[Split]:
        if not ticks.rows:
            raise MisuseError("the input has no tick")
        first, last = ticks.first, ticks.last
        if lengths is None:
            edges = even_edges(first, last, windows or _WINDOWS, period)
            return folds_of(edges, first, scheme, left_out)
        edges = edges_of(first, last, *lengths, period)
        return folds_of(edges, first, scheme, left_out, lengths[0])

    return split


def _kfold(
    windows: int, length: str | None, away: tuple[int, int], period: int
) -> Callable[[SharedTicks], Sequence[Split]]:
    if length is not None:
        raise MisuseError("--scheme kfold: --windows says how many; --train and --test say nothing")
    if windows == 1:
        raise MisuseError("--scheme kfold: --windows 1 leaves nothing to train on: take 2 or more")

    def split(ticks: SharedTicks) -> Sequence[Split]:
        if not ticks.rows:
            raise MisuseError("the input has no tick")
        return kfolds_of(even_edges(ticks.first, ticks.last, windows - 1, period), *away)

    return split


def _out_of_sample(found: Mapping[str, Any]) -> str:
    figures = found["out_of_sample"]
    shown = {
        "return": (figures["total_return"], "{:.2%}"),
        "Sharpe": (figures["sharpe"], "{:.2f}"),
        "max drawdown": (figures["max_drawdown"], "{:.2%}"),
        "DSR": (figures["dsr"], "{:.1%}"),
    }
    return f"out of sample in {figures['folds']} windows: {figures_line(shown)}"
