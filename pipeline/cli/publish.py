"""`publish`: tick files to `prices`."""

import re
from pathlib import Path
from typing import Literal

import click

from pipeline.bus.publisher import Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.cli.options import (
    DATA_DIR,
    SETS,
    demand,
    named_or_running,
    run,
    settings_of,
)
from pipeline.cli.progress import Progress
from pipeline.cli.reading import FACTORS, FOLD, ZONE, reading_of
from pipeline.errors import MisuseError
from pipeline.sources.feed import Pace, publish_file
from pipeline.sources.localtime import Fold
from schemas.topics import PRICES


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--speed", default="max", help="Multiple of the event time, or max.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Ticks per second.")
@click.option("--frame", default=100, type=click.IntRange(1, 10_000), help="Ticks per message.")
@click.option(
    "--format", "framing", default="json", type=click.Choice(["json", "arrow"]), help="Of messages."
)
@click.option("--reorder", default="0s", help="Window in which to order ticks, as 200ms.")
@FACTORS
@ZONE
@FOLD
@click.option("--topic", default=PRICES, show_default=True)
@SETS
@DATA_DIR
def publish(
    files: tuple[Path, ...],
    speed: str,
    rate: float | None,
    frame: int,
    framing: Literal["json", "arrow"],
    reorder: str,
    factors: Path | None,
    zone: str | None,
    fold: Fold,
    topic: str,
    sets: tuple[str, ...],
    data_dir: Path | None,
) -> None:
    """Publish tick FILES (CSV, gzipped too, Parquet or Arrow with symbol, ts, price)."""
    settings = settings_of(sets)
    for path in files:
        if not path.is_file():
            raise MisuseError(f"{path}: no such file")
    (kafka,) = demand(named_or_running(settings, data_dir), "kafka")
    reading = reading_of(factors, zone, fold)

    async def publishing() -> int:
        await ensure_topics(kafka, settings.topics)
        sent = 0
        async with Publisher(kafka, linger_ms=5) as publisher:
            for path in files:
                with Progress(f"publishing {path.name}") as progress:
                    sent += await publish_file(
                        path,
                        publisher,
                        pace=Pace(rate, _speed(speed)),
                        frame=frame,
                        framing=framing,
                        topic=topic,
                        reading=reading,
                        reorder_ns=_duration(reorder),
                        progress=progress,
                    )
        return sent

    sent = run(publishing())
    click.echo(f"published {sent:,} ticks to {topic}")
    if reading.local is not None and (reading.local.ambiguous or reading.local.nonexistent):
        click.echo(
            f"{reading.local.ambiguous:,} ambiguous local times ({fold}), "
            f"{reading.local.nonexistent:,} that no clock showed",
            err=True,
        )


def _duration(text: str) -> int:
    """A window of time in ns."""
    found = re.fullmatch(r"(\d{1,9})(ns|us|ms|s)", text)
    if found is None:
        raise MisuseError(f"--reorder takes a time, as 200ms; got {text!r}")
    return int(found[1]) * {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}[found[2]]


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise MisuseError(f"--speed takes a positive number or max; got {text!r}")
    return speed
