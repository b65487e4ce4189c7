"""`keys`: who may use the API."""

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from pipeline.cli.options import DATA_DIR, JSON, SETS, settings_of, with_pool
from pipeline.store.keys import NewKey, Role, create_key, list_keys, revoke_key, rotate_key

_ID: Final = click.argument("key_id", metavar="ID")
_LONGEST: Final = 36_500  # days
_OVERLAP: Final = 60  # minutes


def _show(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(made)))
        return
    click.echo(f"key {made.id} of {made.name}, {made.role}; it is shown this once:", err=True)
    click.echo(made.text)


@click.group()
def keys() -> None:
    """Keys of the API: who may use it, and for what."""


@keys.command()
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="reader: queries; operator: mutations too; admin: everything.",
)
@click.option("--days", type=click.IntRange(1, _LONGEST), help="Days it is valid; else for ever.")
@SETS
@DATA_DIR
@JSON
def create(
    name: str,
    role: str,
    days: int | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make a key for NAME and print it: the only time that it can be seen."""
    lifetime = None if days is None else timedelta(days=days)
    made = with_pool(
        settings_of(sets), data_dir, lambda pool: create_key(pool, name, Role(role), lifetime)
    )
    _show(made, as_json=as_json)


@keys.command("list")
@SETS
@DATA_DIR
@JSON
def list_all(sets: tuple[str, ...], data_dir: Path | None, *, as_json: bool) -> None:
    """Every key with its role and state; never the key itself."""
    found = with_pool(settings_of(sets), data_dir, list_keys)
    if as_json:
        click.echo(json.dumps(found, default=str))
        return
    for one in found:
        until = f"until {one['expires_at']:%Y-%m-%d %H:%M}Z" if one["expires_at"] else "for ever"
        old = f", instead of {one['replaces']}" if one["replaces"] else ""
        click.echo(f"{one['id']}  {one['role']:8}  {one['state']:7}  {one['name']}, {until}{old}")


@keys.command()
@_ID
@click.option(
    "--overlap",
    default=_OVERLAP,
    show_default=True,
    type=click.IntRange(0, _LONGEST),
    help="Minutes that the old key is still valid.",
)
@SETS
@DATA_DIR
@JSON
def rotate(
    key_id: str, overlap: int, sets: tuple[str, ...], data_dir: Path | None, *, as_json: bool
) -> None:
    """Make a key that replaces the valid key ID, and print it."""
    span = timedelta(minutes=overlap)
    made = with_pool(settings_of(sets), data_dir, lambda pool: rotate_key(pool, key_id, span))
    _show(made, as_json=as_json)


@keys.command()
@_ID
@SETS
@DATA_DIR
def revoke(key_id: str, sets: tuple[str, ...], data_dir: Path | None) -> None:
    """End the key ID at once: requests are refused and open sockets closed within seconds."""
    with_pool(settings_of(sets), data_dir, lambda pool: revoke_key(pool, key_id))
    click.echo(f"revoked {key_id}")
