"""`replay`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.bus.ranges import Limits, Request, first_ms
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    demand,
    named_or_running,
    offsets_option,
    run,
    settings_of,
    time_option,
    topics_cache,
)
from pipeline.cli.progress import Progress, display
from pipeline.cli.reading import FACTORS, FOLD, ZONE, reading_of
from pipeline.errors import MisuseError
from pipeline.replay.engine import (
    STORED,
    TOPIC,
    parse_input,
    replay_file,
    replay_request,
    replay_stored,
)
from pipeline.replay.warm import warm
from pipeline.settings import Settings
from pipeline.sources.localtime import Fold
from pipeline.store.pool import pooled
from schemas.topics import PRICES

Times = tuple[int | None, int | None]  # --from and --to in ns

FROM = click.option("--from", "start", metavar="TIME", help="RFC 3339 with zone, or epoch.")
TO = click.option("--to", "end", metavar="TIME", help="The same; not included.")
OFFSETS = click.option(
    "--offsets",
    multiple=True,
    metavar="PARTITION:FROM-TO",
    help="Offsets instead of times, TO not included; either may be left out. Repeatable.",
)
CACHE = click.option(
    "--cache",
    "cached",
    is_flag=True,
    help="Keep what is read of a topic; a second replay of it does without the broker.",
)


@click.command()
@click.argument("source", metavar="INPUT")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@FROM
@TO
@OFFSETS
@CACHE
@FACTORS
@ZONE
@FOLD
@BAR
@SETS
@DATA_DIR
@JSON
def replay(
    source: str,
    out: Path,
    start: str | None,
    end: str | None,
    offsets: tuple[str, ...],
    factors: Path | None,
    zone: str | None,
    fold: Fold,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    cached: bool,
    as_json: bool,
) -> None:
    """Replay INPUT to one Parquet file per stage and a manifest.

    INPUT is a tick file, kafka:prices or postgres:ticks. --from and --to bound a topic by the time
    at which its messages were published, stored ticks by event time.
    """
    settings = settings_of(sets, bar)
    found = parse_input(source)
    times = time_option(start, "--from"), time_option(end, "--to")
    fitting(source, found, times, offsets, cached=cached)
    limits = offsets_option(offsets)
    warm()
    with Progress(f"replaying {source}") as progress:
        if isinstance(found, Path):
            manifest = replay_file(found, out, settings, progress, reading_of(factors, zone, fold))
        else:
            manifest = replay_served(
                found, out, settings, data_dir, times, progress, limits, cached=cached
            )
        seconds = progress.seconds
    if as_json:
        click.echo(json.dumps(manifest))
        return
    rows = manifest["rows"]
    counts = ", ".join(f"{stage} {count:,}" for stage, count in rows.items())
    rate = rows["ticks"] / max(seconds, 1e-9)
    click.echo(f"{display(out)}: {counts}; {seconds:.2f} s, {rate:,.0f} ticks/s")


def replay_served(
    found: str,
    out: Path,
    settings: Settings,
    data_dir: Path | None,
    times: Times,
    progress: Progress,
    limits: Mapping[int, Limits] | None = None,
    *,
    cached: bool = False,
) -> dict[str, Any]:
    """Replay what a server has, TOPIC or STORED, between two times; None is no bound.

    Where a Postgres is named or running, the versions of gbdt speak as they did live.
    """
    first, last = times
    if found != TOPIC:
        (postgres,) = demand(named_or_running(settings, data_dir), "postgres")
        return run(_stored(postgres, out, settings, first, last, progress))
    addresses = named_or_running(settings, data_dir)
    kafka = addresses["kafka"]
    if kafka is None and not cached:
        demand({"kafka": kafka}, "kafka")
    request = Request(PRICES, first_ms(first), first_ms(last), limits)
    home = topics_cache() if cached else None
    return run(replay_request(kafka, addresses["postgres"], request, out, settings, progress, home))


def fitting(
    source: str,
    found: Path | str,
    times: Times,
    offsets: tuple[str, ...] = (),
    *,
    cached: bool = False,
) -> None:
    """Refuse options that mean nothing for this input.

    Raises:
        MisuseError: one does.
    """
    first, last = times
    bounded = first is not None or last is not None
    if isinstance(found, Path) and bounded:
        raise MisuseError(f"--from and --to are for {TOPIC} and {STORED}, not for a file")
    if found != TOPIC and (offsets or cached):
        raise MisuseError(f"--offsets and --cache are for {TOPIC}, not for {source}")
    if offsets and bounded:
        raise MisuseError("--offsets say what --from and --to would say: give one of them")
    if first is not None and last is not None and first > last:
        raise MisuseError("--from is later than --to")


async def _stored(
    dsn: str, out: Path, settings: Settings, first: int | None, last: int | None, progress: Progress
) -> dict[str, Any]:
    async with pooled(dsn, settings.store) as pool:
        return await replay_stored(pool, out, settings, progress, first, last)
