"""`worker`, `api` and `rpc`: one process each, by replacing this one."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from pipeline.cli.options import BAR, DATA_DIR, SETS, named_or_running, sets_of, settings_of
from pipeline.settings import child_environment

_SERVICES: Final = {
    "chain": "agents",
    "training": "agents.training",
    "monitoring": "agents.monitoring",
}


def _become(module: str, sets: tuple[str, ...], data_dir: Path | None, *more: str) -> None:
    """Run a module of another room, which this one may not import, in place of this process."""
    settings = settings_of(sets)
    found = named_or_running(settings, data_dir)
    environment = child_environment(
        {f"TICKSTREAM_{name.upper()}": address for name, address in found.items() if address}
    )
    arguments = [part for assignment in sets for part in ("--set", assignment)]
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments, *more], environment)  # noqa: S606 -- our own module


@click.command()
@SETS
@BAR
@DATA_DIR
@click.option(
    "--service",
    type=click.Choice(list(_SERVICES)),
    default="chain",
    show_default=True,
    help="chain: prices to fills; training: replays and backtests that GraphQL is asked for; "
    "monitoring: alerts to webhooks.",
)
def worker(sets: tuple[str, ...], bar: str | None, data_dir: Path | None, service: str) -> None:
    """Run one worker: the chain between `prices` and Postgres, Redis and the stage topics."""
    if bar is not None:
        settings_of(sets, bar)
    _become(_SERVICES[service], sets_of(sets, bar), data_dir)


@click.command()
@SETS
@DATA_DIR
@click.option("--host", help="Address to bind to; others than loopback take --set api.auth=true.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to bind to.")
def api(sets: tuple[str, ...], data_dir: Path | None, host: str | None, port: int | None) -> None:
    """Run the GraphQL API."""
    more = [*(("--host", host) if host else ()), *(("--port", str(port)) if port else ())]
    _become("api", sets, data_dir, *more)


@click.command()
@SETS
@DATA_DIR
@click.option(
    "--service",
    type=click.Choice(["all", "feature", "prediction", "trading"]),
    default="all",
    show_default=True,
    help="Whose stages are served.",
)
@click.option("--host", help="Address to bind to; others than loopback take --set api.auth=true.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to bind to; 0: a free one.")
def rpc(
    sets: tuple[str, ...], data_dir: Path | None, service: str, host: str | None, port: int | None
) -> None:
    """Run the gRPC server."""
    more = [*(("--host", host) if host else ()), *(() if port is None else ("--port", str(port)))]
    _become("api.rpc", sets, data_dir, "--service", service, *more)
