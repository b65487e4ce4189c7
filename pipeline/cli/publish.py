"""`publish`: tick files to `prices`."""

from pathlib import Path
from typing import Literal

import click

from pipeline.bus.publisher import Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.cli.options import DATA_DIR, SETS, demand, named_or_running, run, settings_of
from pipeline.cli.progress import Progress
from pipeline.errors import MisuseError
from pipeline.settings import Settings
from pipeline.sources.feed import Pace, publish_file
from schemas.topics import PRICES


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--speed", default="max", help="Multiple of the event time, or max.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Ticks per second.")
@click.option("--frame", default=100, type=click.IntRange(1, 10_000), help="Ticks per message.")
@click.option(
    "--format", "framing", default="json", type=click.Choice(["json", "arrow"]), help="Of messages."
)
@click.option("--topic", default=PRICES, show_default=True)
@SETS
@DATA_DIR
def publish(
    files: tuple[Path, ...],
    speed: str,
    rate: float | None,
    frame: int,
    framing: Literal["json", "arrow"],
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
    pace = Pace(rate, _speed(speed))
    sent = run(_publish(files, kafka, settings, pace, frame, framing, topic))
    click.echo(f"published {sent:,} ticks to {topic}")


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


async def _publish(
    files: tuple[Path, ...],
    kafka: str,
    settings: Settings,
    pace: Pace,
    frame: int,
    framing: Literal["json", "arrow"],
    topic: str,
) -> int:
    await ensure_topics(kafka, settings.topics)
    sent = 0
    async with Publisher(kafka, linger_ms=5) as publisher:
        for path in files:
            with Progress(f"publishing {path.name}") as progress:
                sent += await publish_file(
                    path,
                    publisher,
                    pace=pace,
                    frame=frame,
                    framing=framing,
                    topic=topic,
                    progress=progress,
                )
    return sent
