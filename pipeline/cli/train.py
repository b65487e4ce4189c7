"""`train`."""

import json
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import JSON
from pipeline.cli.progress import Progress, display
from pipeline.disk import write_whole
from pipeline.errors import MisuseError
from pipeline.models.training import train_hmm
from schemas.models import STATES_MOST

_NAMED = 6  # symbols


@click.group()
def train() -> None:
    """Fit a model on what a replay has written."""


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
