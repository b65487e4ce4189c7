"""`train`."""

import json
import os
import re
from pathlib import Path
from typing import Any

import click

from pipeline.cli.changing import with_registry
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    settings_of,
)
from pipeline.cli.progress import Progress, display
from pipeline.cli.train_range import train_range_command
from pipeline.disk import write_whole
from pipeline.errors import MisuseError, UnavailableError
from pipeline.models.boosting import DEFAULTS, Hyperparameters
from pipeline.models.jobs import Trained, Wish, train_gbdt
from pipeline.models.settling import Settled, settle
from pipeline.models.training import train_hmm
from pipeline.store.pool import Pool
from schemas.gbdt import GBDT, HORIZON_MOST
from schemas.models import NAME, STATES_MOST

_NAMED = 6  # symbols


@click.group()
def train() -> None:
    """Fit a model on what a replay has written."""


train.add_command(train_range_command)


@train.command("hmm")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The artifact."
)
@click.option(
    "--states", default=2, show_default=True, type=click.IntRange(2, STATES_MOST), help="Of each."
)
@click.option("--symbol", "symbols", multiple=True, help="Only this one. Repeatable.")
@JSON
def train_hmm_command(
    source: Path, out: Path, states: int, symbols: tuple[str, ...], *, as_json: bool
) -> None:
    """Fit a hidden Markov model to the bar returns of each symbol in INPUT.

    INPUT is the directory of a replay. What is written is named by `regimes.hmm`.
    """
    with Progress(f"fitting {source}") as progress:
        artifact = train_hmm(source, states, symbols, progress)
    write_whole(out, json.dumps(artifact, indent=1, allow_nan=False) + "\n", MisuseError)
    if as_json:
        click.echo(json.dumps(artifact, allow_nan=False))
        return
    click.echo(f"{display(out)}: {artifact['version']}, {states} states")
    _tell(artifact)


def _tell(artifact: dict[str, Any]) -> None:
    """What each model gains over one normal distribution, in nats a return."""
    metrics = artifact["metrics"]
    for symbol in list(metrics)[:_NAMED]:
        one = metrics[symbol]
        held = one["held_out"]
        stays = " / ".join(f"{bars:.1f}" for bars in one["durations"])
        click.echo(
            f"{symbol}: {one['returns']:,} returns, {one['hmm'] - one['normal']:+.4f} nats each"
            f" over one normal, {held['hmm'] - held['normal']:+.4f} on {held['returns']:,} held"
            f" out; stays of {stays} bars"
        )
    if len(metrics) > _NAMED:
        click.echo(f"and {len(metrics) - _NAMED} more symbols")
    left_out = artifact["data"]["left_out"]
    if left_out:
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        click.echo(f"too short, left out: {', '.join(left_out[:_NAMED])}{more}", err=True)


@train.command("gbdt")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--name", default=GBDT, show_default=True, help="Of the model in the registry.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Only write the artifact to this file, and leave the registry alone.",
)
@click.option("--promote", is_flag=True, help="Make it active if it is better than the active one.")
@click.option("--feature", "features", multiple=True, help="Look at this column. Repeatable.")
@click.option("--symbol", "symbols", multiple=True, help="Only this one. Repeatable.")
@click.option(
    "--horizon", type=click.IntRange(1, HORIZON_MOST), help="Bars; else that of the replay."
)
@click.option(
    "--held-out",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0.01, 0.9),
    help="Share of the rows, the last ones, that it is judged by.",
)
@click.option("--trees", default=DEFAULTS.trees, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--leaves", default=DEFAULTS.leaves, show_default=True, type=click.IntRange(2, 1024))
@click.option("--rate", default=DEFAULTS.rate, show_default=True, type=click.FloatRange(1e-4, 1.0))
@click.option(
    "--folds",
    default=DEFAULTS.folds,
    show_default=True,
    type=click.IntRange(2, 50),
    help="Stretches of the training that say how many trees do best.",
)
@click.option(
    "--embargo",
    default=DEFAULTS.embargo,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Bars behind a fold that teach nothing, beside the horizon.",
)
@click.option("--seed", default=DEFAULTS.seed, show_default=True, type=click.IntRange(0))
@BAR
@SETS
@DATA_DIR
@JSON
def train_gbdt_command(
    source: Path,
    name: str,
    out: Path | None,
    features: tuple[str, ...],
    symbols: tuple[str, ...],
    horizon: int | None,
    held_out: float,
    trees: int,
    leaves: int,
    rate: float,
    folds: int,
    embargo: int,
    seed: int,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    promote: bool,
    as_json: bool,
) -> None:
    """Train boosted trees on what a replay wrote to INPUT, and put them into the registry.

    They are compared with the active version on rows that neither was trained on. Give the --bar
    and --set of the live run with --promote. What was trained is kept in INPUT: if the registry
    cannot be reached, the same command goes on from there.
    """
    if not re.fullmatch(NAME, name):
        raise MisuseError(f"--name {name!r}: a small letter, then small letters, digits and _")
    settings = settings_of(sets, bar)
    wish = Wish(
        source,
        features,
        symbols,
        horizon,
        held_out,
        Hyperparameters(
            trees=trees, leaves=leaves, rate=rate, folds=folds, embargo=embargo, seed=seed
        ),
        threads=os.cpu_count() or 1,
    )
    kept = out or source / "gbdt.json"
    with Progress("growing trees", trees * folds) as progress:
        trained, fitted = train_gbdt(wish, kept, progress)
    if not as_json:
        click.echo(f"{display(kept)}: {'' if fitted else 'found '}{_line(trained)}")
    if out is not None:
        if as_json:
            click.echo(trained.body.decode())
        return
    of, watch = settings.chain.feature_set, settings.models.watch

    async def work(pool: Pool, kafka: str) -> Settled:
        return await settle(pool, kafka, name, trained, of, promote=promote, watch=watch)

    try:
        settled = with_registry(settings, data_dir, work)
    except UnavailableError as error:
        raise UnavailableError(f"{error}; the same command goes on from {display(kept)}") from error
    _tell_settled(settled, as_json=as_json)


def _line(trained: Trained) -> str:
    held = trained.version.metrics.held_out
    return (
        f"{trained.version.version}, {len(trained.version.trees.trees.root)} trees, log loss"
        f" {held.log_loss:.6f} on {held.n:,} rows held out"
        f" ({held.log_loss - held.null_log_loss:+.6f} to the base rate)"
    )


def _tell_settled(settled: Settled, *, as_json: bool) -> None:
    better = settled.comparison.better if settled.comparison else None
    if as_json:
        told = {
            "version": settled.version,
            "champion": settled.champion,
            "better": better,
            "promoted": settled.change is not None,
            "why": settled.why,
        }
        click.echo(json.dumps(told))
        return
    opponent = settled.champion or "the base rate"
    verdict = {True: "better than", False: "not better than", None: "beside"}[better]
    click.echo(f"{verdict} {opponent}: {settled.why}")
    if settled.change is not None:
        click.echo(f"{settled.change.model}: {settled.version} is active")
