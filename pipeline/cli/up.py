"""`up`: everything on one machine until Ctrl-C."""

import asyncio
import signal
from pathlib import Path

import click

from pipeline.cli.options import BAR, DATA_DIR, SETS, default_data_dir, settings_of
from pipeline.cli.stack import Stack, check_workers, stack, watch
from pipeline.cli.watching import Trend, Watcher
from pipeline.errors import UnavailableError
from pipeline.store.pool import RETRYABLE, open_pool

_EVERY = 10.0


@click.command()
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@BAR
@SETS
@DATA_DIR
def up(workers: int, bar: str | None, sets: tuple[str, ...], data_dir: Path | None) -> None:
    """Start servers, workers and the API, keep them running, drain on Ctrl-C."""
    settings = settings_of(sets, bar)
    if bar is not None:
        sets = (*sets, f"bars.clock={bar}")
    check_workers(workers, settings)
    with stack(settings, sets, data_dir or default_data_dir(), workers) as running:
        click.echo("\n".join(running.lines()))
        click.echo("running; Ctrl-C stops and drains", err=True)
        asyncio.run(_until_stopped(running))
    click.echo("stopped", err=True)


async def _until_stopped(running: Stack) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch(running, stop))
        group.create_task(_report(running, stop))


async def _report(running: Stack, stop: asyncio.Event) -> None:
    """A plain line now and then."""
    pool = await open_pool(running.addresses.postgres, running.settings.store)
    watcher = Watcher(running, pool)
    trend: Trend | None = None
    while not stop.is_set():
        try:
            figures = await watcher.look()
            trend = Trend(figures, figures) if trend is None else trend.then(figures)
            if trend.before.rows != trend.now.rows:
                click.echo(trend.line(), err=True)
        except (UnavailableError, *RETRYABLE) as error:
            click.echo(f"cannot look: {error}", err=True)
        try:
            await asyncio.wait_for(stop.wait(), _EVERY)
        except TimeoutError:
            continue
    await pool.close()
