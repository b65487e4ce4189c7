"""INPUT of commands that read it once for many passes: a file, the topic or the stored ticks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.bus.ranges import Request, first_ms
from pipeline.cli.options import demand, named_or_running, offsets_option, run, topics_cache
from pipeline.cli.replay import Times, fitting
from pipeline.replay.engine import TOPIC, parse_input
from pipeline.replay.kept import open_topic
from pipeline.replay.shared_ticks import TicksWriter
from pipeline.replay.sharing import Shared, share_file, share_stored, share_topic
from pipeline.settings import Settings
from pipeline.sources.files import AS_IT_IS, Reading
from pipeline.store.pool import pooled
from schemas.topics import PRICES


def ticks_reader(
    source: str,
    times: Times,
    settings: Settings,
    data_dir: Path | None,
    offsets: tuple[str, ...] = (),
    reading: Reading = AS_IT_IS,
    *,
    cached: bool = False,
) -> Callable[[TicksWriter], Shared]:
    """What reads an input as the options of `replay` name it.

    Raises:
        MisuseError: options that mean nothing for it, or a server that is not there.
    """
    found = parse_input(source)
    fitting(source, found, times, offsets, cached=cached)
    limits = offsets_option(offsets)
    if isinstance(found, Path):
        return partial(_file, found, reading)
    first, last = times
    addresses = named_or_running(settings, data_dir)
    if found != TOPIC:
        (postgres,) = demand(addresses, "postgres")
        return lambda writer: run(_stored(postgres, settings, first, last, writer))
    if not cached:
        demand(addresses, "kafka")
    request = Request(PRICES, first_ms(first), first_ms(last), limits)
    home = topics_cache() if cached else None
    return lambda writer: run(_topic(addresses["kafka"], request, home, writer))


def _file(path: Path, reading: Reading, writer: TicksWriter) -> Shared:
    return share_file(path, writer, reading)


async def _topic(
    kafka: str | None, request: Request, home: Path | None, writer: TicksWriter
) -> Shared:
    stretch, read = await open_topic(kafka, request, home)
    return await share_topic(stretch.ranges, read, writer)


async def _stored(
    postgres: str, settings: Settings, first: int | None, last: int | None, writer: TicksWriter
) -> Shared:
    async with pooled(postgres, settings.store) as pool:
        return await share_stored(pool, writer, first, last)
