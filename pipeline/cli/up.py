"""`up`: everything on one machine until Ctrl-C."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cache.latest import DRIFT, PARITY, open_cache
from pipeline.cli.checking import Checks
from pipeline.cli.guarding import (
    Guard,
    api_state,
    guard_workers,
    keep_tables,
    view_of,
)
from pipeline.cli.options import BAR, DATA_DIR, SETS, default_data_dir, sets_of, settings_of
from pipeline.cli.stack import Stack, check_workers, stack, watch
from pipeline.cli.watching import Trend, Watcher
from pipeline.errors import UnavailableError
from pipeline.models.drift_turns import Watch
from pipeline.replay.parity_turns import Checker
from pipeline.store.pool import RETRYABLE, Pool, open_pool
from pipeline.waiting import ended, set_within

_EVERY = 10.0
_DAY = 1440.0


@click.command()
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--parity-every",
    "minutes",
    default=0.0,
    metavar="MINUTES",
    type=click.FloatRange(min=0.0, max=_DAY),
    help="Compare what was stored since the last time with its replay; 0: never.",
)
@click.option(
    "--drift-every",
    default=0.0,
    metavar="MINUTES",
    type=click.FloatRange(min=0.0, max=_DAY),
    help="Look whether features and losses of engines are what they were; 0: never.",
)
@BAR
@SETS
@DATA_DIR
def up(
    workers: int,
    minutes: float,
    drift_every: float,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
) -> None:
    """Start servers, workers and the API, keep them running, drain on Ctrl-C."""
    settings = settings_of(sets, bar)
    sets = sets_of(sets, bar)
    check_workers(workers, settings)
    with stack(settings, sets, data_dir or default_data_dir(), workers) as running:
        click.echo("\n".join(running.lines()))
        click.echo("running; Ctrl-C stops and drains", err=True)
        asyncio.run(_until_stopped(running, minutes, drift_every))
    click.echo("stopped", err=True)


async def _until_stopped(running: Stack, minutes: float, drift_every: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    pool = await open_pool(running.addresses.postgres, running.settings.store)
    cache = open_cache(running.addresses.redis, running.settings.cache)
    try:
        kafka, settings = running.addresses.kafka, running.settings
        checks = (
            Checks(PARITY, Checker(kafka, pool, settings).turn, cache, minutes),
            Checks(DRIFT, Watch(kafka, pool, settings).turn, cache, drift_every),
        )
        await _look_after(running, pool, checks, stop)
    finally:
        await cache.close()
        await pool.close()


async def _look_after(
    running: Stack, pool: Pool, checks: Sequence[Checks], stop: asyncio.Event
) -> None:
    seconds = running.settings.worker.stuck_seconds
    guard = Guard(running.workers, view_of(running, pool), seconds)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch(running, stop))
        group.create_task(_report(running, Watcher(running, pool), guard, checks, stop))
        # What may wait long for a server is cut short; the next start takes it up again.
        patient = [
            group.create_task(keep_tables(running, pool, stop)),
            group.create_task(guard_workers(guard, seconds, stop)),
            *(group.create_task(one.run(stop)) for one in checks),
        ]
        await stop.wait()
        await ended(*patient)


def _moved(trend: Trend) -> bool:
    return (trend.before.rows, trend.before.lag) != (trend.now.rows, trend.now.lag)


async def _report(
    running: Stack, watcher: Watcher, guard: Guard, checks: Sequence[Checks], stop: asyncio.Event
) -> None:
    """A plain line now and then, while something moves or waits or has changed."""
    trend: Trend | None = None
    told = ""
    while True:
        states = {**guard.states(), "api": await api_state(running)}
        for one in checks:
            states |= one.states()
        ready = ", ".join(f"{name} {state}" for name, state in states.items())
        try:
            figures = await watcher.look()
            trend = Trend(figures, figures) if trend is None else trend.then(figures)
            if _moved(trend) or ready != told:
                click.echo(f"{trend.line()}; {ready}", err=True)
                told = ready
        except (UnavailableError, *RETRYABLE) as error:
            click.echo(f"cannot look: {error}; {ready}", err=True)
        if await set_within(stop, _EVERY):
            return
