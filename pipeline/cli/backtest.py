"""`backtest`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    settings_of,
    time_option,
)
from pipeline.cli.progress import Progress, display, figures_line
from pipeline.cli.reading import FACTORS, FOLD, ZONE, reading_of
from pipeline.cli.replay import FROM, TO, fitting, replay_served
from pipeline.replay.backtest import REPORT
from pipeline.replay.backtest import backtest as run_backtest
from pipeline.replay.engine import parse_input, replay_file
from pipeline.replay.report import report
from pipeline.replay.warm import warm
from pipeline.sources.localtime import Fold


@click.command()
@click.argument("source", metavar="INPUT")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@FROM
@TO
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many runs this one was chosen from, for the deflated Sharpe ratio.",
)
@click.option(
    "--year",
    type=click.IntRange(1, 366),
    help="Days of a year: 252, or 365 where there is no weekend, unless told.",
)
@FACTORS
@ZONE
@FOLD
@BAR
@SETS
@DATA_DIR
@JSON
def backtest(
    source: str,
    out: Path,
    start: str | None,
    end: str | None,
    trials: int,
    year: int | None,
    factors: Path | None,
    zone: str | None,
    fold: Fold,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Replay INPUT and say what paper trading would have brought: figures, trades, a report.

    INPUT is what `replay` takes: a tick file, kafka:prices or postgres:ticks. DIR gets what
    `replay` writes, metrics.json, trades.parquet and report.html; all of it or nothing.
    `--set fills.mode=...`, `fills.taker_bp`, `fills.sizing` and others say how it trades.
    """
    settings = settings_of(sets, bar)
    found = parse_input(source)
    times = time_option(start, "--from"), time_option(end, "--to")
    fitting(source, found, times)
    warm()
    with Progress(f"backtesting {source}") as progress:

        def replay(into: Path) -> Mapping[str, Any]:
            if isinstance(found, Path):
                reading = reading_of(factors, zone, fold)
                return replay_file(found, into, settings, progress, reading)
            return replay_served(found, into, settings, data_dir, times, progress)

        figures = run_backtest(out, replay, report, trials=trials, year=year)
    if as_json:
        click.echo(json.dumps(figures))
        return
    for text in figures["warnings"]:
        click.echo(f"note: {text}", err=True)
    click.echo(f"{display(out / REPORT)}: {_line(figures)}")


def _line(figures: Mapping[str, Any]) -> str:
    performance, trading = figures["performance"], figures["trading"]
    shown = {
        "return": (performance.get("total_return"), "{:.2%}"),
        "Sharpe": (performance.get("sharpe"), "{:.2f}"),
        "max drawdown": (performance.get("max_drawdown"), "{:.2%}"),
        "trades": (trading["trades"], "{:,}"),
        "win rate": (trading["win_rate"], "{:.1%}"),
    }
    return figures_line(shown)
