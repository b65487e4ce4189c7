"""`topics`, `migrate`, `doctor` and `schema`."""

import asyncio
import json
from pathlib import Path

import click

from pipeline.bus.topics import count_topics, ensure_topics
from pipeline.cache.latest import open_cache
from pipeline.cli.options import (
    DATA_DIR,
    JSON,
    SETS,
    default_data_dir,
    demand,
    named_or_running,
    run,
    servers_for,
    settings_of,
    with_pool,
)
from pipeline.errors import TickstreamError
from pipeline.settings import Settings
from pipeline.store.migrate import migrate as apply_migrations
from pipeline.store.pool import pooled
from schemas.blocks import COLUMNS
from schemas.ticks import tick_json_schema
from schemas.topics import TOPICS


@click.command()
@SETS
@DATA_DIR
@JSON
def topics(sets: tuple[str, ...], data_dir: Path | None, *, as_json: bool) -> None:
    """Make the topics that are missing and list all with their messages."""
    settings = settings_of(sets)
    (kafka,) = demand(named_or_running(settings, data_dir), "kafka")

    async def listing() -> dict[str, tuple[int, int]]:
        await ensure_topics(kafka, settings.topics)
        return await count_topics(kafka)

    found = run(listing())
    if as_json:
        names = {name: {"partitions": p, "messages": m} for name, (p, m) in found.items()}
        click.echo(json.dumps(names))
        return
    for topic in TOPICS:
        partitions, messages = found[topic.name]
        click.echo(
            f"{topic.name:16} {partitions:3} partitions {messages:>12,} messages  "
            f"key: {topic.key}; value: {topic.value}"
        )


@click.command()
@SETS
@DATA_DIR
def migrate(sets: tuple[str, ...], data_dir: Path | None) -> None:
    """Bring the tables of Postgres up to this version."""
    settings = settings_of(sets)
    applied = with_pool(settings, data_dir, apply_migrations)
    click.echo("\n".join(f"applied {name}" for name in applied) or "up to date")


@click.command()
@SETS
@DATA_DIR
@JSON
def doctor(sets: tuple[str, ...], data_dir: Path | None, *, as_json: bool) -> None:
    """One line per dependency: its address and whether it answers. Exit code 1 if one does not."""
    settings = settings_of(sets)
    found = named_or_running(settings, data_dir)
    if not any(found.values()) and data_dir is not None and data_dir.is_dir():
        with servers_for(settings, data_dir) as addresses:
            found = {
                "kafka": addresses.kafka,
                "postgres": addresses.postgres,
                "redis": addresses.redis,
            }
            report = run(_examine(settings, found))
    else:
        report = run(_examine(settings, found))
    if as_json:
        click.echo(json.dumps(report))
    else:
        for name, line in report.items():
            click.echo(
                f"{'ok ' if line['ok'] else 'BAD'} {name:9} {line['address']}  {line['note']}"
            )
    if not all(line["ok"] for line in report.values()):
        where = data_dir or default_data_dir()
        raise TickstreamError(f"not all is well (data directory {where})")


async def _examine(
    settings: Settings, found: dict[str, str | None]
) -> dict[str, dict[str, str | bool]]:
    checks = {"kafka": _kafka, "postgres": _postgres, "redis": _redis}
    report: dict[str, dict[str, str | bool]] = {}
    for name, check in checks.items():
        address = found[name]
        if address is None:
            note = f"not running; set TICKSTREAM_{name.upper()} or run `tickstream up`"
            report[name] = {"ok": False, "address": "-", "note": note}
            continue
        try:
            async with asyncio.timeout(10):
                note = await check(settings, address)
            report[name] = {"ok": True, "address": without_password(address), "note": note}
        except (TickstreamError, TimeoutError) as error:
            note = str(error) or "no answer within 10 s"
            report[name] = {"ok": False, "address": without_password(address), "note": note}
    return report


def without_password(address: str) -> str:
    """An address that may be shown."""
    scheme, _, rest = address.rpartition("://")
    login, at, host = rest.rpartition("@")
    if not at or ":" not in login:
        return address
    return f"{scheme}://{login.split(':', 1)[0]}:***@{host}"


async def _kafka(_: Settings, address: str) -> str:
    found = await count_topics(address)
    missing = [topic.name for topic in TOPICS if topic.name not in found]
    return f"{len(found)} topics" + (f", missing {', '.join(missing)}" if missing else "")


async def _postgres(settings: Settings, address: str) -> str:
    async with pooled(address, settings.store) as pool:
        version = str(await pool.fetchval("SHOW server_version"))
        there = await pool.fetchval("SELECT to_regclass('migrations') IS NOT NULL")
    return f"version {version}" + ("" if there else ", not migrated yet")


async def _redis(settings: Settings, address: str) -> str:
    cache = open_cache(address, settings.cache)
    try:
        await cache.ping()
        return "answers"
    finally:
        await cache.close()


@click.command()
@click.argument("stage", required=False, type=click.Choice(["tick", *COLUMNS]))
def schema(stage: str | None) -> None:
    """Print the JSON Schema of a tick, or the columns of a STAGE with unit and meaning."""
    if stage in {None, "tick"}:
        click.echo(json.dumps(tick_json_schema(), indent=2))
        return
    for column in COLUMNS[str(stage)]:
        words = f" ({' | '.join(column.labels)})" if column.labels else ""
        click.echo(f"{column.name:22} {column.kind:8} {column.unit:18} {column.meaning}{words}")
