"""`replay` and `parity`."""

import json
from pathlib import Path
from typing import Any

import click

from pipeline.bus.ranges import ranges_by_time
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    FACTORS,
    FOLD,
    JSON,
    SETS,
    ZONE,
    demand,
    named_or_running,
    reading_of,
    run,
    servers_for,
    settings_of,
    time_option,
)
from pipeline.cli.progress import Progress, display
from pipeline.errors import MisuseError, TickstreamError
from pipeline.replay.engine import parse_input, replay_file, replay_topic
from pipeline.replay.parity import ParityReport, compare
from pipeline.replay.warm import warm
from pipeline.servers import Addresses
from pipeline.settings import Settings
from pipeline.sources.localtime import Fold
from pipeline.store import reads
from pipeline.store.pool import open_pool
from pipeline.store.statements import statement

FROM = click.option("--from", "start", metavar="TIME", help="RFC 3339 with zone, or epoch.")
TO = click.option("--to", "end", metavar="TIME", help="The same; not included.")
_MS = 1_000_000


@click.command()
@click.argument("source", metavar="INPUT")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@FROM
@TO
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
    factors: Path | None,
    zone: str | None,
    fold: Fold,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Replay INPUT, a tick file or kafka:prices, to one Parquet file per stage and a manifest.

    --from and --to bound a topic by the time at which its messages were published.
    """
    settings = settings_of(sets, bar)
    found = parse_input(source)
    warm()
    first, last = time_option(start, "--from"), time_option(end, "--to")
    with Progress(f"replaying {source}") as progress:
        if isinstance(found, Path):
            if first is not None or last is not None:
                raise MisuseError("--from and --to are for kafka:prices")
            manifest = replay_file(found, out, settings, progress, reading_of(factors, zone, fold))
        else:
            (kafka,) = demand(named_or_running(settings, data_dir), "kafka")
            manifest = run(replay_range(kafka, found, out, settings, first, last, progress))
        seconds = progress.seconds
    if as_json:
        click.echo(json.dumps(manifest))
        return
    rows = manifest["rows"]
    counts = ", ".join(f"{stage} {count:,}" for stage, count in rows.items())
    rate = rows["ticks"] / max(seconds, 1e-9)
    click.echo(f"{display(out)}: {counts}; {seconds:.2f} s, {rate:,.0f} ticks/s")


async def replay_range(
    kafka: str,
    topic: str,
    out: Path,
    settings: Settings,
    first: int | None,
    last: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Replay what was published to a topic between two times, None for no bound."""
    bounds = [None if at is None else -(-at // _MS) for at in (first, last)]
    ranges = await ranges_by_time(kafka, topic, bounds[0], bounds[1])
    return await replay_topic(kafka, ranges, out, settings, progress)


@click.command()
@FROM
@TO
@BAR
@SETS
@DATA_DIR
@JSON
def parity(
    start: str | None,
    end: str | None,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Replay a stretch and hold every stored live row against it, bit by bit.

    --from and --to bound the event time of the ticks; without them all that is stored is compared.
    Exit code 1 and the first difference if there is one.
    """
    settings = settings_of(sets, bar)
    first, last = time_option(start, "--from"), time_option(end, "--to")
    with servers_for(settings, data_dir) as addresses, Progress("comparing ticks") as progress:
        report = run(_parity(addresses, settings, first, last, progress))
    if as_json:
        difference = None if report.difference is None else str(report.difference)
        click.echo(json.dumps({"rows": report.rows, "difference": difference}))
    if report.difference is not None:
        raise TickstreamError(f"live and replay differ: {report.difference}")
    if not as_json:
        rows = ", ".join(f"{stage} {count:,}" for stage, count in report.rows.items())
        click.echo(f"bit-equal: {rows}")


async def _parity(
    addresses: Addresses,
    settings: Settings,
    first: int | None,
    last: int | None,
    progress: Progress,
) -> ParityReport:
    pool = await open_pool(addresses.postgres, settings.store)
    try:
        stored = await pool.fetch(statement("progress"), settings.worker.group)
        marks = {row["partition"]: row["mark"] for row in stored if row["mark"] >= 0}
        if not marks:
            raise TickstreamError("nothing is stored for this worker.group: there is no live run")
        if first is None and last is None:
            ranges = {partition: (0, mark + 1) for partition, mark in marks.items()}
        else:
            bounds = await reads.offset_bounds(pool, "ticks", first, last)
            ranges = {partition: (low, high + 1) for partition, (low, high) in bounds.items()}
            if not ranges:
                raise TickstreamError("no tick is stored between --from and --to")
        return await compare(addresses.kafka, pool, settings, ranges, progress)
    finally:
        await pool.close()
