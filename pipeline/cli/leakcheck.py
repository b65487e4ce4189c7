"""`leakcheck`."""

import json
from dataclasses import replace
from pathlib import Path

import click

from pipeline.cli.options import BAR, FACTORS, FOLD, JSON, SETS, ZONE, reading_of, settings_of
from pipeline.cli.progress import Progress, display
from pipeline.errors import MisuseError, TickstreamError
from pipeline.replay.engine import parse_input
from pipeline.replay.leakcheck import STANDARD, LeakReport, check_file
from pipeline.replay.output import unwritable
from pipeline.replay.warm import warm
from pipeline.sources.localtime import Fold

_NAMED = 6  # columns


@click.command()
@click.argument("source", metavar="INPUT")
@click.option(
    "--cuts",
    default=STANDARD.cuts,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Random cut points; a short input has fewer.",
)
@click.option("--seed", default=STANDARD.seed, show_default=True, type=click.IntRange(0))
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all that was found as JSON.",
)
@FACTORS
@ZONE
@FOLD
@BAR
@SETS
@JSON
def leakcheck(
    source: str,
    cuts: int,
    seed: int,
    report: Path | None,
    factors: Path | None,
    zone: str | None,
    fold: Fold,
    bar: str | None,
    sets: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Prove that no column of any stage knows the future, over the ticks of the file INPUT.

    Exit code 1 and the name of the column with its first leaking row if one does.
    """
    settings = settings_of(sets, bar)
    path = parse_input(source)
    if not isinstance(path, Path):
        raise MisuseError(f"{source}: leakcheck takes a tick file")
    warm()
    plan = replace(STANDARD, cuts=cuts, seed=seed)
    with Progress(f"checking {source}") as progress:
        found = check_file(path, settings.chain, plan, progress, reading_of(factors, zone, fold))
    facts = json.dumps(found.facts(), allow_nan=False)
    if report is not None:
        _write(report, facts)
    if as_json:
        click.echo(facts)
    if found.leaks:
        raise TickstreamError(found.line())
    if not as_json:
        _tell(found, report)


def _tell(found: LeakReport, report: Path | None) -> None:
    click.echo(found.line() + (f"; {display(report)}" if report is not None else ""))
    slow = found.slow()
    if slow:
        longest = max(one.bars for one in found.startups)
        more = f" and {len(slow) - _NAMED} more" if len(slow) > _NAMED else ""
        click.echo(
            f"not settled {longest} bars after a start: {', '.join(slow[:_NAMED])}{more}", err=True
        )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise unwritable(path, error, MisuseError) from error
