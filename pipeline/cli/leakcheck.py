"""`leakcheck`."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from pipeline.cli.inputs import ticks_reader
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    settings_of,
    time_option,
)
from pipeline.cli.progress import Progress, display
from pipeline.cli.reading import FACTORS, FOLD, ZONE, reading_of
from pipeline.cli.replay import CACHE, FROM, OFFSETS, TO
from pipeline.disk import write_whole
from pipeline.errors import MisuseError, TickstreamError
from pipeline.replay.engine import parse_input
from pipeline.replay.leakcheck import STANDARD, LeakReport, check_file, check_shared
from pipeline.replay.shared_ticks import SharedTicks, TicksWriter
from pipeline.replay.sharing import Shared
from pipeline.replay.warm import warm
from pipeline.sources.localtime import Fold
from schemas.times import DAY

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
@FROM
@TO
@OFFSETS
@CACHE
@FACTORS
@ZONE
@FOLD
@BAR
@SETS
@DATA_DIR
@JSON
def leakcheck(
    source: str,
    start: str | None,
    end: str | None,
    offsets: tuple[str, ...],
    cuts: int,
    seed: int,
    report: Path | None,
    factors: Path | None,
    zone: str | None,
    fold: Fold,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    cached: bool,
    as_json: bool,
) -> None:
    """Prove that no column of any stage knows the future, over the ticks of INPUT.

    INPUT is what `replay` takes: a tick file, kafka:prices or postgres:ticks. Of a topic each
    partition is checked by a chain of its own.

    Exit code 1 and the name of the column with its first leaking row if one does.
    """
    settings = settings_of(sets, bar)
    plan = replace(STANDARD, cuts=cuts, seed=seed)
    times = time_option(start, "--from"), time_option(end, "--to")
    reading = reading_of(factors, zone, fold)
    read = ticks_reader(source, times, settings, data_dir, offsets, reading, cached=cached)
    path = parse_input(source)
    warm()
    with Progress(f"checking {source}") as progress:
        if isinstance(path, Path):
            found = check_file(path, settings.chain, plan, progress, reading)
        else:
            with tempfile.TemporaryDirectory(prefix="tickstream-") as folder:
                found = check_shared(_gathered(read, folder), settings.chain, plan, progress)
    facts = json.dumps(found.facts(), allow_nan=False)
    if report is not None:
        write_whole(report, facts + "\n", MisuseError)
    if as_json:
        click.echo(facts)
    if found.leaks:
        raise TickstreamError(found.line())
    if not as_json:
        _tell(found, report)


def _gathered(read: Callable[[TicksWriter], Shared], folder: str) -> SharedTicks:
    with TicksWriter(Path(folder), DAY) as writer:
        return read(writer)[0]


def _tell(found: LeakReport, report: Path | None) -> None:
    click.echo(found.line() + (f"; {display(report)}" if report is not None else ""))
    slow = found.slow()
    if slow:
        longest = max(one.bars for one in found.startups)
        more = f" and {len(slow) - _NAMED} more" if len(slow) > _NAMED else ""
        click.echo(
            f"not settled {longest} bars after a start: {', '.join(slow[:_NAMED])}{more}", err=True
        )
