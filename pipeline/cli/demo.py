"""`demo`: everything, fed with the bundled real sample."""

import asyncio
import json
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from pipeline.bus.blocks import count_rows
from pipeline.bus.publisher import Publisher
from pipeline.cli.options import BAR, DATA_DIR, JSON, SETS, on_terminal, sets_of, settings_of
from pipeline.cli.stack import Stack, stack, watch
from pipeline.cli.watching import Figures, Trend, Watcher
from pipeline.clock import monotonic
from pipeline.errors import MisuseError, TickstreamError
from pipeline.servers.lock import is_locked
from pipeline.sources.feed import Pace, publish_file
from pipeline.store.pool import open_pool
from pipeline.waiting import set_within
from schemas.blocks import STAGES

_SAMPLE: Final = "es_trades_20130901.csv.gz"
_RATE: Final = 1000.0  # ticks a second: 120,000 in two minutes
_FRAME, _FAST_FRAME = 20, 100
_LOOK, _FAST_LOOK, _PLAIN_LOOK = 0.5, 0.2, 5.0
_STALLED: Final = 60.0  # seconds without progress after which it has failed


@dataclass(slots=True)
class _Run:
    """How far the demo is."""

    stack: Stack
    began: float
    published: int = 0
    publishing: bool = True
    first_signal: float | None = None


@click.command()
@click.option("--exit", "ends", is_flag=True, help="Full speed; end with a summary when all is in.")
@BAR
@SETS
@DATA_DIR
@JSON
def demo(
    ends: bool,
    bar: str | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Start everything, publish 120,000 real trades, and show what comes out."""
    began = monotonic()
    settings = settings_of(sets, bar)
    sets = sets_of(sets, bar)
    with _directory(data_dir) as directory, stack(settings, sets, directory, 1) as running:
        click.echo("\n".join(running.lines()), err=as_json)
        run = _Run(running, began)
        figures = asyncio.run(_play(run, ends=ends))
        problems, facts = asyncio.run(_summary(run, figures))
        facts["seconds"] = round(monotonic() - began, 1)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name:22} {value}")
    if problems and ends:
        raise TickstreamError("; ".join(problems))


@contextmanager
def _directory(data_dir: Path | None) -> Iterator[Path]:
    """The given directory, or one that is gone afterwards."""
    if data_dir is None:
        with tempfile.TemporaryDirectory(
            prefix="tickstream-demo-", ignore_cleanup_errors=True
        ) as d:
            yield Path(d)
        return
    played = data_dir / "demo.played"
    if played.exists() and not is_locked(data_dir):  # whoever uses it now is told first
        raise MisuseError(
            f"{data_dir} holds an earlier demo, whose ticks would be late now: "
            f"use another directory, or `tickstream up --data-dir {data_dir}` to look at it"
        )
    yield data_dir


async def _play(run: _Run, *, ends: bool) -> Figures:
    """Publish and watch; until all is stored, or until Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    (run.stack.data_dir / "demo.played").touch()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch(run.stack, stop))
        publishing = group.create_task(_publish(run, fast=ends))
        showing = group.create_task(_show(run, stop, ends=ends))
        await showing
        stop.set()
        publishing.cancel()
        await watching
    return showing.result()


async def _publish(run: _Run, *, fast: bool) -> None:
    def count(sent: int) -> None:
        run.published = sent

    pace = Pace() if fast else Pace(rate=_RATE)
    with as_file(files("pipeline.sources") / "samples" / _SAMPLE) as path:
        async with Publisher(run.stack.addresses.kafka, linger_ms=2) as publisher:
            await publish_file(
                path,
                publisher,
                pace=pace,
                frame=_FAST_FRAME if fast else _FRAME,
                progress=count,
            )
    run.publishing = False


async def _show(run: _Run, stop: asyncio.Event, *, ends: bool) -> Figures:
    """Look again and again; a table on a terminal, lines elsewhere."""
    terminal = on_terminal()
    pool = await open_pool(run.stack.addresses.postgres, run.stack.settings.store)
    watcher = Watcher(run.stack, pool)
    first = await watcher.look()
    trend = Trend(first, first)
    spoke = moved = monotonic()
    announced = False
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while not stop.is_set():
            trend = trend.then(await watcher.look())
            now = monotonic()
            if trend.now.rows["signals"] and run.first_signal is None:
                run.first_signal = now - run.began
            if trend.now.rows != trend.before.rows or trend.now.lag != trend.before.lag:
                moved = now
            if terminal:
                live.update(trend.picture(run.stack.lines()), refresh=True)
            elif now - spoke >= _PLAIN_LOOK:
                spoke = now
                click.echo(trend.line(), err=True)
            done = not run.publishing and trend.now.lag == 0
            if ends and done:
                break
            if ends and now - moved > _STALLED:
                raise TickstreamError(f"no progress for {_STALLED:.0f} s: {trend.line()}")
            if done and not announced:
                announced = True
                click.echo(f"all {run.published:,} ticks are in; Ctrl-C ends the demo", err=True)
            await set_within(stop, _FAST_LOOK if ends else _LOOK)
    await pool.close()
    return trend.now


async def _summary(run: _Run, figures: Figures) -> tuple[list[str], dict[str, str | float | int]]:
    """What came of it, and what is wrong with that."""
    facts: dict[str, str | float | int] = {"published": run.published}
    problems = []
    arrived = figures.rows["ticks"] + figures.rejected
    if run.publishing or figures.lag:  # ended by the user in the middle: nothing to hold it against
        return [], {**facts, **figures.rows, "rejected": figures.rejected, "topics": "not compared"}
    if arrived != run.published:
        problems.append(f"{run.published} ticks published, {arrived} stored or rejected")
    for stage in STAGES:
        facts[stage] = figures.rows[stage]
        if stage == "ticks":
            continue
        on_topic = await count_rows(run.stack.addresses.kafka, stage)
        if on_topic != figures.rows[stage]:
            problems.append(f"{stage}: {figures.rows[stage]} rows stored, {on_topic} on the topic")
    bars = figures.rows["bars"]
    problems += [
        f"{stage} has {figures.rows[stage]} rows for {bars} bars"
        for stage in ("features", "regimes", "predictions")
        if figures.rows[stage] != bars
    ]
    facts["rejected"] = figures.rejected
    facts["worker restarts"] = sum(service.restarts for service in run.stack.services)
    if run.first_signal is not None:
        facts["first signal after s"] = round(run.first_signal, 1)
    facts["topics"] = "the same rows" if not problems else "; ".join(problems)
    return problems, facts
