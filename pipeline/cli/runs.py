"""What `sweep` and `walkforward` share: the choice of runs, the input, and who does them."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial, reduce, wraps
from pathlib import Path
from typing import Any, Final

import click

from pipeline.cli.inputs import ticks_reader
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    sets_of,
    settings_of,
    time_option,
)
from pipeline.cli.reading import FACTORS, FOLD, ZONE, reading_of
from pipeline.cli.replay import FROM, TO
from pipeline.errors import MisuseError
from pipeline.replay.executors import Places, cluster, processes
from pipeline.replay.experiment import Plan, Variant
from pipeline.replay.grid import Parameters, combinations, read_grid, vary_option
from pipeline.replay.shared_ticks import SharedTicks, TicksWriter
from pipeline.replay.sharing import Shared
from pipeline.replay.trial_figures import BETTER
from pipeline.settings import Settings, load_settings
from pipeline.sources.localtime import Fold
from pipeline.stages.chain import Chain, ChainSettings
from pipeline.stages.equity import parse_period
from schemas.blocks import own_columns

LONGEST: Final = 100 * 366 * 86_400 * 10**9  # ns of a window

_OPTIONS: Final = (
    click.argument("source", metavar="INPUT"),
    click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path)),
    FROM,
    TO,
    click.option(
        "--vary",
        multiple=True,
        metavar="KEY=A,B,C",
        help="Values of a setting, as in signals.cost_bp=0.1,0.2; LOW..HIGH with --sample.",
    ),
    click.option(
        "--grid",
        type=click.Path(path_type=Path),
        help="TOML or JSON file: settings, each with a list of values.",
    ),
    click.option(
        "--sample", type=click.IntRange(1, 100_000), help="So many runs by chance, not all."
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of chance."),
    click.option(
        "--metric",
        type=click.Choice(list(BETTER)),
        default="sharpe",
        show_default=True,
        metavar="NAME",
        help="The figure to choose by: " + ", ".join(BETTER) + ".",
    ),
    click.option(
        "--period", default="1d", show_default=True, help="Of the returns: 1d, 1h, 5m ..."
    ),
    click.option(
        "--year",
        type=click.FloatRange(0, min_open=True),
        help="Periods of a year; told from the times of the input if not given.",
    ),
    click.option(
        "--processes", type=click.IntRange(1, 1024), help="How many; one for each core if not told."
    ),
    click.option(
        "--scheduler", metavar="tcp://HOST:PORT", help="A Dask cluster instead of processes."
    ),
    FACTORS,
    ZONE,
    FOLD,
    BAR,
    SETS,
    DATA_DIR,
    JSON,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """INPUT and the options that both commands have."""

    source: str
    out: Path
    start: str | None
    end: str | None
    vary: tuple[str, ...]
    grid: Path | None
    sample: int | None
    seed: int
    metric: str
    period: str
    year: float | None
    processes: int | None
    scheduler: str | None
    factors: Path | None
    zone: str | None
    fold: Fold
    bar: str | None
    sets: tuple[str, ...]
    data_dir: Path | None
    as_json: bool

    @property
    def settings(self) -> Settings:
        """What all runs share."""
        return settings_of(self.sets, self.bar)

    def reader(self) -> Callable[[TicksWriter], Shared]:
        """What reads the input.

        Raises:
            MisuseError: options that mean nothing for it, or a server that is not there.
        """
        times = time_option(self.start, "--from"), time_option(self.end, "--to")
        reading = reading_of(self.factors, self.zone, self.fold)
        return ticks_reader(self.source, times, self.settings, self.data_dir, reading=reading)

    def plan(self, kind: str, **facts: Any) -> Plan:
        """The runs, each tried once; `facts` are what else the manifest says of their choice.

        Raises:
            MisuseError: a setting, a value or the clock of the returns is none.
        """
        sets = sets_of(self.sets, self.bar)
        varied = {
            **(read_grid(self.grid) if self.grid is not None else {}),
            **vary_option(self.vary),
        }
        chosen = combinations(varied, self.sample, self.seed)
        for key in varied:
            if key.split(".")[0] not in ChainSettings.model_fields:
                raise MisuseError(f"{key} decides no figure of a run: vary a setting of a stage")
        by_chance = {} if self.sample is None else {"sample": self.sample, "seed": self.seed}
        told = {"kind": kind, "varied": list(varied), **by_chance, "metric": self.metric, **facts}
        variants = [_variant(sets, parameters) for parameters in chosen]
        return Plan(variants, period_option(self.period, "--period"), self.year, told)

    def places(self, runs: int) -> Callable[[SharedTicks], AbstractContextManager[Places]]:
        """Where so many runs are done.

        Raises:
            MisuseError: both processes and a scheduler are given.
        """
        if self.scheduler is not None:
            if self.processes is not None:
                raise MisuseError("--processes and --scheduler: give one of them")
            return partial(cluster, self.scheduler)
        return partial(processes, min(self.processes or os.cpu_count() or 1, max(runs, 1)))


_NAMES: Final = tuple(field.name for field in fields(Asked))


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """INPUT and the options of both commands, handed to the command as one `Asked`."""

    @wraps(command)
    def collected(**given: Any) -> None:
        asked = Asked(**{name: given.pop(name) for name in _NAMES})
        command(asked, **given)

    return reduce(lambda made, option: option(made), reversed(_OPTIONS), collected)


def _variant(sets: Sequence[str], parameters: Parameters) -> Variant:
    """One run's settings, tried once: a value that cannot be run is told before the first run.

    Raises:
        MisuseError: one cannot.
    """
    more = [f"{key}={json.dumps(value)}" for key, value in parameters.items()]
    with own_columns():
        settings = load_settings((*sets, *more)).chain
        Chain(settings)
    return Variant(parameters, settings)


def period_option(text: str, name: str, longest: int | None = None) -> int:
    """A period as ns.

    Raises:
        MisuseError: it is none.
    """
    try:
        return parse_period(text) if longest is None else parse_period(text, longest)
    except ValueError as error:
        raise MisuseError(f"{name}: {error}") from error
