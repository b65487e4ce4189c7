"""Options of commands that read tick files, and how to read by them."""

from pathlib import Path
from typing import Final

import click

from pipeline.sources.factors import read_factors
from pipeline.sources.files import Reading
from pipeline.sources.localtime import Fold, LocalTimes

FACTORS: Final = click.option(
    "--factors",
    type=click.Path(path_type=Path),
    help="CSV of corporate actions: symbol, date, price_factor, split_factor.",
)
ZONE: Final = click.option("--zone", help="Zone of times that name none, as America/Chicago.")
FOLD: Final = click.option(
    "--fold",
    default="refuse",
    show_default=True,
    type=click.Choice(["first", "second", "refuse"]),
    help="Which one of a local time that comes twice.",
)


def reading_of(factors: Path | None, zone: str | None, fold: Fold) -> Reading:
    """How to read a tick file, by the options."""
    return Reading(
        read_factors(factors) if factors is not None else None,
        LocalTimes(zone, fold) if zone is not None else None,
    )
