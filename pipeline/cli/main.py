"""`tickstream`: the commands, and errors as one line with the right exit code."""

import sys
from typing import Any, Final, NoReturn

import click

from pipeline.cli.administration import doctor, migrate, schema, topics
from pipeline.cli.backtest import backtest
from pipeline.cli.demo import demo
from pipeline.cli.interrupts import keep_interrupts, raise_kept
from pipeline.cli.keys import keys
from pipeline.cli.leakcheck import leakcheck
from pipeline.cli.models import models
from pipeline.cli.parity import parity
from pipeline.cli.process import api, rpc, worker
from pipeline.cli.publish import publish
from pipeline.cli.replay import replay
from pipeline.cli.sweep import sweep, walkforward
from pipeline.cli.train import train
from pipeline.cli.up import up
from pipeline.errors import TickstreamError
from pipeline.telemetry.logs import silence_drivers

_INTERRUPTED: Final = 130


class _Group(click.Group):
    """Turns our errors into one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            found = super().invoke(ctx)
            raise_kept()
        except TickstreamError as error:
            _tell(ctx, error)
        except ExceptionGroup as group:
            ours, others = group.split(TickstreamError)
            if ours is None or others is not None:
                raise
            _tell(ctx, _first(ours))
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        else:
            return found


def _first(group: ExceptionGroup[TickstreamError]) -> TickstreamError:
    """The first error that ended a group of tasks."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _tell(ctx: click.Context, error: TickstreamError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tickstream")
def cli() -> None:
    """Prices in, signals out, and any stretch of it replayed by the same code."""


for command in (
    demo, up, publish, worker, api, rpc, replay, backtest, parity, leakcheck, sweep, walkforward,
    train, models, topics, migrate, keys, doctor, schema,
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """The entry point."""
    silence_drivers()
    keep_interrupts()
    cli.main(prog_name="tickstream", standalone_mode=True)
    sys.exit(0)
