"""`parity`: what was stored live against its replay."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from pipeline.bus.ranges import Limits, Range
from pipeline.cli.options import (
    BAR,
    DATA_DIR,
    JSON,
    SETS,
    offsets_option,
    run,
    servers_for,
    settings_of,
    time_option,
)
from pipeline.cli.progress import Progress
from pipeline.cli.replay import FROM, OFFSETS, TO
from pipeline.errors import (
    MisuseError,
    StateError,
    TickstreamError,
    UnavailableError,
    UncheckedError,
)
from pipeline.replay.parity import ParityReport, compare, first_kept, stored_marks
from pipeline.replay.warm import warm
from pipeline.servers import Addresses
from pipeline.settings import Settings
from pipeline.store import reads
from pipeline.store.pool import Pool, pooled


@click.command()
@FROM
@TO
@OFFSETS
@BAR
@SETS
@DATA_DIR
@JSON
def parity(
    start: str | None,
    end: str | None,
    offsets: tuple[str, ...],
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Replay a stretch and hold every stored live row against it, bit by bit.

    --from and --to bound the event time of the ticks, --offsets their messages; without them all
    that is stored is compared. Give the --bar and --set of the live run.

    Exit code 0: equal; 1: the first difference is named; 3: it could not be compared.
    """
    settings = settings_of(sets, bar)
    times = time_option(start, "--from"), time_option(end, "--to")
    limits = offsets_option(offsets)
    if limits is not None and times != (None, None):
        raise MisuseError("--offsets say what --from and --to would say: give one of them")
    try:
        with servers_for(settings, data_dir) as addresses, Progress("comparing ticks") as progress:
            warm()
            report = run(_parity(addresses, settings, times, limits, progress))
    except (UnavailableError, StateError) as error:
        raise UncheckedError(str(error)) from error
    found = report.difference
    if as_json:
        difference = None if found is None else asdict(found)
        click.echo(json.dumps({"rows": report.rows, "difference": difference}))
    if found is not None:
        raise TickstreamError(f"live and replay differ: {found}")
    if not as_json:
        rows = ", ".join(f"{stage} {count:,}" for stage, count in report.rows.items())
        click.echo(f"bit-equal: {rows}")


async def _parity(
    addresses: Addresses,
    settings: Settings,
    times: tuple[int | None, int | None],
    limits: Mapping[int, Limits] | None,
    progress: Progress,
) -> ParityReport:
    async with pooled(addresses.postgres, settings.store) as pool:
        marks = await stored_marks(pool, settings)
        if not marks:
            raise UncheckedError("nothing is stored for this worker.group: there is no live run")
        if limits is not None:
            ranges = {
                partition: _within(partition, limits[partition], marks) for partition in limits
            }
        elif times == (None, None):
            ranges = await _all(pool, settings, marks)
        else:
            ranges = await _between(pool, times)
        return await compare(addresses.kafka, pool, settings, ranges, progress)


async def _all(pool: Pool, settings: Settings, marks: Mapping[int, int]) -> dict[int, Range]:
    """All that is stored."""
    return {
        partition: (await first_kept(pool, settings, partition), mark + 1)
        for partition, mark in marks.items()
    }


async def _between(pool: Pool, times: tuple[int | None, int | None]) -> dict[int, Range]:
    bounds = await reads.offset_bounds(pool, "ticks", *times)
    if not bounds:
        raise UncheckedError("no tick is stored between --from and --to")
    return {partition: (low, high + 1) for partition, (low, high) in bounds.items()}


def _within(partition: int, limits: Limits, marks: Mapping[int, int]) -> Range:
    if partition not in marks:
        raise MisuseError(f"--offsets: nothing is stored of partition {partition}")
    end = marks[partition] + 1
    low, high = (
        edge if said is None else said for edge, said in zip((0, end), limits, strict=True)
    )
    if not 0 <= low <= high <= end:
        raise MisuseError(
            f"--offsets: partition {partition} is stored up to offset {end}, the end not included: "
            f"{low} to {high} is not among them"
        )
    return low, high
