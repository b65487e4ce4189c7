"""`models`: the registry."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pipeline.cli.changing import with_registry
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    settings_of,
    with_pool,
)
from pipeline.errors import MisuseError
from pipeline.models import announce, choosing, registry, selection
from pipeline.models.announce import Announced
from pipeline.models.choosing import Choice
from pipeline.models.comparison import Comparison
from pipeline.models.registry import Change, Shadowed
from pipeline.models.selection import Selection
from pipeline.models.settling import compared
from pipeline.settings import Settings
from pipeline.store import scores
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from schemas.blocks import VOL_REGIMES

T = TypeVar("T")
Row = Mapping[str, Any]
_TOP: Final = 10  # features
_CHANGES: Final = 100  # of the shadow, of selections
_DAYS: Final = 60  # of scores on the stream, the newest, live and shadow
_REASON: Final = click.option("--reason", default="", help="Why, for the log.")


@click.group()
def models() -> None:
    """Versions of models: what they come from, how they do, and which of them speak."""


@models.command("list")
@click.argument("name", required=False)
@SETS
@DATA_DIR
@JSON
def list_all(
    name: str | None, sets: tuple[str, ...], data_dir: Path | None, *, as_json: bool
) -> None:
    """Every version, or those of the model NAME; `*` marks the active one, `~` the shadow."""
    found = with_pool(settings_of(sets), data_dir, lambda pool: registry.versions(pool, name))
    if as_json:
        click.echo(json.dumps(found, default=str))
        return
    for row in found:
        held = row["metrics"]["held_out"]
        click.echo(
            f"{_mark(row)} {row['version']:18} {row['model']:10}"
            f" {row['made_at']:%Y-%m-%d %H:%M}Z  horizon {row['horizon']}"
            f"  log loss {held['log_loss']:.6f} on {held['n']:,} rows held out"
            f" ({held['log_loss'] - held['null_log_loss']:+.6f} to the base rate)"
            + (f"  speaks in {', '.join(row['regimes'])}" if row["regimes"] else "")
        )


def _mark(row: Mapping[str, Any]) -> str:
    if row["is_active"]:
        return "*"
    return "~" if row["is_shadow"] else " "


@models.command()
@click.argument("version")
@SETS
@DATA_DIR
@JSON
def show(version: str, sets: tuple[str, ...], data_dir: Path | None, *, as_json: bool) -> None:
    """All that is known of a VERSION."""
    told = with_pool(settings_of(sets), data_dir, lambda pool: _all_of(pool, version))
    if as_json:
        click.echo(json.dumps(told, default=str))
        return
    for name, value in told.items():
        if name in _LINES:
            for one in value:
                click.echo(_LINES[name](one))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            click.echo(f"{name:16} {text}")


async def _all_of(pool: Pool, version: str) -> dict[str, Any]:
    found = await registry.version_of(pool, version)
    rows = await pool.fetch(statement("importance"), version, _TOP)
    found["importance"] = [dict(row) for row in rows]
    found["scores"] = await scores.by_day(pool, version, _DAYS)
    found["history"] = await registry.history(pool, found["model"])
    found["shadows"] = (await registry.shadows(pool, found["model"], _CHANGES))[::-1]
    found["selections"] = (await selection.changes(pool, found["model"], _CHANGES))[::-1]
    return found


def _by_regime(row: Row) -> str:
    told = ", ".join(f"{regime} by {version}" for regime, version in row["selected"].items())
    return told or "all by the active version"


def _important(row: Row) -> str:
    return (
        f"{row['method']:12} {row['symbol']:12} {row['place']:3} {row['feature']:24}"
        f" {row['value']:.6g}"
    )


def _scored(row: Row) -> str:
    when = "" if row["day"] is None else f" {row['day']}"
    return (
        f"{row['rows']}{when}  log loss {row['log_loss']:.6f} on {row['n']:,} rows"
        f" ({row['log_loss'] - row['null_log_loss']:+.6f} to the base rate)"
    )


def _promoted(row: Row) -> str:
    how = "rolled back to" if row["rolled_back"] else "promoted"
    judged = f" [{row['verdict']}: {row['why']}]" if row["verdict"] else ""
    return f"{_moment(row)} {how} {row['version']} {row['reason']}{judged}"


def _shadowed(row: Row) -> str:
    return f"{_moment(row)} shadow {row['version'] or 'none'} {row['reason']}"


def _selected(row: Row) -> str:
    return f"{_moment(row)} {_by_regime(row)} {row['reason']}"


def _moment(row: Row) -> str:
    return f"{row['at']:%Y-%m-%d %H:%M:%S}Z"


_LINES: Final[Mapping[str, Callable[[Row], str]]] = {
    "importance": _important,
    "scores": _scored,
    "history": _promoted,
    "shadows": _shadowed,
    "selections": _selected,
}
"""What is told of a version in several lines."""


@models.command()
@click.argument("version")
@click.argument("other")
@click.argument("run", type=click.Path(path_type=Path))
@SETS
@DATA_DIR
@JSON
def compare(
    version: str,
    other: str,
    run: Path,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Hold VERSION against OTHER on rows of the replay in RUN that neither was trained on.

    What came is kept beside the comparisons of trainings; nothing becomes active by it.
    """
    found = with_pool(settings_of(sets), data_dir, lambda pool: compared(pool, version, other, run))
    if as_json:
        apart = {regime: asdict(one) for regime, one in found.regimes.items()}
        click.echo(json.dumps({**asdict(found.comparison), "regimes": apart}))
        return
    click.echo(f"{version} is {_verdict(found.comparison)} {other}: {found.comparison.why}")
    for regime, one in found.regimes.items():
        click.echo(f"in {regime} {_verdict(one)} it: {one.why}")


def _verdict(found: Comparison) -> str:
    return "better than" if found.better else "not better than"


@models.command()
@click.argument("version")
@_REASON
@BAR
@SETS
@DATA_DIR
@JSON
def promote(
    version: str,
    reason: str,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make VERSION the active one of its model, from the next block of the stream on.

    Give the --bar and --set of the live run: a version that was trained on other features is
    refused. The version that was active goes on as the shadow, and takes its place back when it is
    better, unless models.watch is false.
    """
    settings = settings_of(sets, bar)
    change = partial(announce.promote, watch=settings.models.watch)
    changed = _changed(settings, data_dir, change, version, reason)
    _tell(changed, f"{changed.version} is active", as_json=as_json)


@models.command()
@click.argument("name")
@_REASON
@BAR
@SETS
@DATA_DIR
@JSON
def rollback(
    name: str,
    reason: str,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make that version of the model NAME active again that was it before the active one.

    Give the --bar and --set of the live run.
    """
    settings = settings_of(sets, bar)
    changed = _changed(settings, data_dir, announce.rollback, name, reason)
    _tell(changed, f"{changed.version} is active", as_json=as_json)


@models.command()
@click.argument("name")
@click.option("--none", "ends", is_flag=True, help="NAME is a model: none predicts beside it.")
@_REASON
@BAR
@SETS
@DATA_DIR
@JSON
def shadow(
    name: str,
    reason: str,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    ends: bool,
    as_json: bool,
) -> None:
    """Have the version NAME predict beside the active one of its model, without trading.

    Its predictions are the column shadow_p, from the next block of the stream on. Give the --bar
    and --set of the live run.
    """
    change = announce.unshadow if ends else announce.shadow
    changed = _changed(settings_of(sets, bar), data_dir, change, name, reason)
    _tell(changed, f"{changed.shadow or 'none'} is the shadow", as_json=as_json)


@models.command()
@click.argument("name")
@click.option(
    "--regime", "regimes", multiple=True, type=click.Choice(VOL_REGIMES), help="More than once."
)
@click.option(
    "--none", "ends", is_flag=True, help="NAME is a model: the active version speaks there again."
)
@click.option(
    "--auto",
    "run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="NAME is a model: in each regime the version of least log loss on the replay in RUN.",
)
@_REASON
@BAR
@SETS
@DATA_DIR
@JSON
def select(
    name: str,
    regimes: tuple[str, ...],
    reason: str,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    run: Path | None,
    *,
    ends: bool,
    as_json: bool,
) -> None:
    """Have the version NAME speak in volatility regimes, in the place of the active one.

    A symbol's version changes when its vol_regime has been another one for
    predictions.selection_hold bars in a row. With --none or --auto and no --regime it is about all
    of them. --auto selects a version where it is better than the active one by the rule of
    `compare`, on rows that no version was trained on, and none elsewhere. Give the --bar and --set
    of the live run.
    """
    if run is not None and ends:
        raise MisuseError("--none and --auto are two wishes")
    change = (selection.active_in if ends else selection.speaking_in)(regimes)
    if run is not None:
        change = choosing.best_in(regimes, run, _quiet if as_json else _tell_choice)
    found = _changed(settings_of(sets, bar), data_dir, change, name, reason)
    _tell_selection(found, as_json=as_json)


def _changed(
    settings: Settings, data_dir: Path | None, change: Announced[T], name: str, reason: str
) -> T:
    """Change who speaks."""
    of = settings.chain.feature_set
    return with_registry(
        settings, data_dir, lambda pool, kafka: change(pool, kafka, name, of, reason)
    )


def _tell(change: Change | Shadowed, so: str, *, as_json: bool) -> None:
    """Say what is `so` now, since when or instead of what."""
    if as_json:
        click.echo(json.dumps(asdict(change)))
        return
    instead = f", instead of {change.former}" if change.former else ""
    was = f" since generation {change.generation}" if not change.changed else instead
    click.echo(f"{change.model}: {so}{was}")


def _tell_choice(regime: str, choice: Choice) -> None:
    if choice.comparison is None:
        click.echo(f"in {regime}: nothing to hold against the active version")
        return
    told = choice.comparison
    click.echo(f"in {regime} {choice.version} is {_verdict(told)} the active version: {told.why}")


def _quiet(_: str, __: Choice) -> None:
    pass


def _tell_selection(found: Selection, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    was = "" if found.changed else ", as it was"
    click.echo(f"{found.model}: {_by_regime(asdict(found))}{was}")
