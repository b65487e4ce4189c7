"""`train range`: what a schedule does; a range is replayed, trained on, compared and promoted."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from pipeline.cli.changing import with_registry
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    demand,
    named_or_running,
    settings_of,
    time_option,
)
from pipeline.cli.progress import Progress, display
from pipeline.cli.replay import FROM, TO, Times, fitting, replay_served
from pipeline.disk import unwritable, write_whole
from pipeline.errors import (
    ConflictError,
    MisuseError,
    TemporaryError,
    TooFewError,
    UnavailableError,
)
from pipeline.models.boosting import DEFAULTS, lightgbm_module
from pipeline.models.jobs import RESULT, Wish, train_gbdt
from pipeline.models.scheduled import Came, Outcome, judge
from pipeline.replay.engine import parse_input
from pipeline.replay.warm import warm
from pipeline.settings import Settings
from pipeline.store.pool import RETRYABLE, Pool

_REPLAY = "replay"


@click.command("range")
@click.argument("source", metavar="INPUT")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="What was trained, and what came of it; the replay is removed.",
)
@FROM
@TO
@BAR
@SETS
@DATA_DIR
@JSON
def train_range_command(
    source: str,
    out: Path,
    start: str | None,
    end: str | None,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Replay a range of INPUT, train boosted trees on it, and promote them if they are better.

    INPUT is kafka:prices or postgres:ticks. It is what the service `training` does every
    `training.every`, by the settings of `training`. Too few rows are no error: nothing is trained.
    Exit code 75: a server was away, the same command may do it later.
    """
    settings = settings_of(sets, bar)
    found = parse_input(source)
    if isinstance(found, Path):
        raise MisuseError(f"{source}: replay a file first, then `tickstream train gbdt` on that")
    times = time_option(start, "--from"), time_option(end, "--to")
    fitting(source, found, times)
    lightgbm_module()
    try:
        told = _trained(found, out, settings, data_dir, times)
    except (UnavailableError, ConflictError, *RETRYABLE) as error:
        raise TemporaryError(" ".join(str(error).split())) from error
    if as_json:
        click.echo(json.dumps(told))
        return
    training = told["training"]
    click.echo(f"{display(out)}: {training['outcome']}: {training['why']}")


def _trained(
    source: str, out: Path, settings: Settings, data_dir: Path | None, times: Times
) -> dict[str, Any]:
    """What came of it, as it is written to the output."""
    demand(named_or_running(settings, data_dir), "postgres", "kafka")
    run = out / _REPLAY
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error, MisuseError) from error
    try:
        warm()
        with Progress(f"replaying {source}") as progress:
            manifest = replay_served(source, run, settings, data_dir, times, progress)
        told = {
            "rows": list(manifest["rows"].items()),
            "fingerprint": manifest["settings_hash"],
            "figures": None,
            "training": asdict(_judged(run, out / "gbdt.json", settings, data_dir)),
        }
        write_whole(out / RESULT, json.dumps(told, allow_nan=False) + "\n")
    finally:
        shutil.rmtree(run, ignore_errors=True)
    return told


def _judged(run: Path, kept: Path, settings: Settings, data_dir: Path | None) -> Came:
    """Train on a replay; too few rows are an outcome."""
    asked = settings.training
    wish = Wish(
        run,
        asked.features,
        symbols=asked.symbols,
        held_out=asked.held_out,
        hyperparameters=replace(DEFAULTS, embargo=asked.embargo),
        # The live workers come first, and threads that wait for one another on a busy machine spin.
        threads=max(1, (os.cpu_count() or 1) // 2),
    )
    try:
        with Progress("growing trees", DEFAULTS.trees * DEFAULTS.folds) as progress:
            trained, _ = train_gbdt(wish, kept, progress)
    except TooFewError as error:
        return Came(Outcome.SKIPPED, str(error).removeprefix(f"{run}: "))
    of_live, watch = settings.chain.feature_set, settings.models.watch

    async def work(pool: Pool, kafka: str) -> Came:
        return await judge(
            pool, kafka, asked.model, trained, of_live, promote=asked.promote, watch=watch
        )

    return with_registry(settings, data_dir, work)
