"""`models`: the registry."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    demand,
    named_or_running,
    settings_of,
    with_pool,
)
from pipeline.models import announce, registry, remembered
from pipeline.models.announce import Announced
from pipeline.models.registry import Change, Shadowed
from pipeline.models.settling import compared
from pipeline.settings import Settings
from pipeline.store import scores
from pipeline.store.pool import Pool
from pipeline.store.statements import statement

T = TypeVar("T")
_TOP: Final = 10  # features
_CHANGES: Final = 100  # of the shadow
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
        if name == "importance":
            _tell_importance(value)
        elif name == "history":
            for one in value:
                how = "rolled back to" if one["rolled_back"] else "promoted"
                judged = f" [{one['verdict']}: {one['why']}]" if one["verdict"] else ""
                click.echo(
                    f"{one['at']:%Y-%m-%d %H:%M:%S}Z {how} {one['version']} {one['reason']}{judged}"
                )
        elif name == "scores":
            for one in value:
                when = "" if one["day"] is None else f" {one['day']}"
                click.echo(
                    f"{one['rows']}{when}  log loss {one['log_loss']:.6f} on {one['n']:,} rows"
                    f" ({one['log_loss'] - one['null_log_loss']:+.6f} to the base rate)"
                )
        elif name == "shadows":
            for one in value:
                who = one["version"] or "none"
                click.echo(f"{one['at']:%Y-%m-%d %H:%M:%S}Z shadow {who} {one['reason']}")
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
    return found


def _tell_importance(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        click.echo(
            f"{row['method']:12} {row['symbol']:12} {row['place']:3} {row['feature']:24}"
            f" {row['value']:.6g}"
        )


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
        click.echo(json.dumps(asdict(found)))
        return
    verdict = "better than" if found.better else "not better than"
    click.echo(f"{version} is {verdict} {other}: {found.why}")


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


def _changed(
    settings: Settings, data_dir: Path | None, change: Announced[T], name: str, reason: str
) -> T:
    """Change who speaks; both stores of the news are demanded before the first is touched."""
    addresses = named_or_running(settings, data_dir)
    _, kafka = demand(addresses, "postgres", "kafka")

    async def work(pool: Pool) -> T:
        async with remembered.changing(addresses["redis"], settings.cache):
            return await change(pool, kafka, name, settings.chain.feature_set, reason)

    return with_pool(settings, data_dir, work)


def _tell(change: Change | Shadowed, so: str, *, as_json: bool) -> None:
    """Say what is `so` now, since when or instead of what."""
    if as_json:
        click.echo(json.dumps(asdict(change)))
        return
    instead = f", instead of {change.former}" if change.former else ""
    was = f" since generation {change.generation}" if not change.changed else instead
    click.echo(f"{change.model}: {so}{was}")
