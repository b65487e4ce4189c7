"""Migrations, applied in the order of their names, and the daily partitions of the stage tables."""

import hashlib
from collections.abc import Iterable
from datetime import date, timedelta
from importlib.resources import files
from typing import Final

import asyncpg

from pipeline.errors import StateError
from pipeline.store.pool import Connection, Pool
from schemas.blocks import COLUMNS, STAGES

_LOCK: Final = 7_216_455_301  # any number, the same for all of us


def migrations() -> list[tuple[str, str]]:
    """Name and text of every migration, in order."""
    folder = files("pipeline.store") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name, (folder / name).read_text()) for name in names]


async def migrate(pool: Pool) -> list[str]:
    """Apply what is missing; returns the names applied. Safe with several processes at once.

    Raises:
        StateError: a migration that was applied reads differently now, or the server refuses one.
    """
    applied = []
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await _apply(
            connection,
            "the table of migrations",
            "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, digest text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())",
        )
        rows = await connection.fetch("SELECT name, digest FROM migrations")
        known = {row["name"]: row["digest"] for row in rows}
        for name, text in migrations():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if name not in known:
                await _apply(connection, f"migration {name}", text)
                await connection.execute("INSERT INTO migrations VALUES ($1, $2)", name, digest)
                applied.append(name)
            elif known[name] != digest:
                raise StateError(
                    f"migration {name} was applied with another text; this database belongs to "
                    "another version of tickstream"
                )
        await _add_user_columns(connection)
    return applied


async def _apply(connection: Connection, what: str, text: str) -> None:
    try:
        await connection.execute(text)
    except asyncpg.SyntaxOrAccessError as error:
        raise StateError(f"Postgres: {what} cannot be applied: {error}") from error


async def _add_user_columns(connection: Connection) -> None:
    """Columns of a user's own features: the migrations do not know them."""
    for stage in STAGES:
        known = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0",
            stage,
        )
        present = {row["attname"] for row in known}
        for column in COLUMNS[stage]:
            if column.name not in present:
                # Names of user columns are Python identifiers: nothing to quote but case.
                await connection.execute(
                    f'ALTER TABLE {stage} ADD COLUMN "{column.name}" double precision'
                )


def leaf(stage: str, day: date) -> str:
    """The name of a stage's table for one day of writing."""
    return f"{stage}_{day:%Y%m%d}"


async def ensure_days(connection: Connection, days: Iterable[date]) -> list[str]:
    """Make the tables of these days of writing, within a transaction; returns the names made."""
    made = []
    for day in days:
        for stage in STAGES:
            # Names come from closed lists and dates, never from outside.
            table = leaf(stage, day)
            if await _exists(connection, table):
                continue
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if await _exists(connection, table):  # somebody else was faster
                continue
            # PARTITION OF would lock out every reader and writer of the stage; ATTACH does not.
            await connection.execute(
                f"CREATE TABLE {table} (LIKE {stage} INCLUDING DEFAULTS INCLUDING STORAGE)"
            )
            await connection.execute(
                f"ALTER TABLE {stage} ATTACH PARTITION {table}"
                f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
            )
            made.append(table)
    return made


async def _exists(connection: Connection, table: str) -> bool:
    # to_regclass would answer from a cache of names, which may not have heard of another's commit.
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1"
        " AND relnamespace = current_schema()::regnamespace)",
        table,
    )
    return found
