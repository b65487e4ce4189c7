"""`tickstream`: the commands, and errors as one line with the right exit code."""

import sys
from typing import Any, Final

import click

from pipeline.cli.administration import doctor, migrate, schema, topics
from pipeline.cli.demo import demo
from pipeline.cli.process import api, worker
from pipeline.cli.publish import publish
from pipeline.cli.replay import parity, replay
from pipeline.cli.up import up
from pipeline.errors import TickstreamError
from pipeline.telemetry.logs import silence_drivers

_INTERRUPTED: Final = 130


class _Group(click.Group):
    """Turns our errors into one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TickstreamError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tickstream")
def cli() -> None:
    """Prices in, signals out, and any stretch of it replayed by the same code."""


for command in (
    demo, up, publish, worker, api, replay, parity, topics, migrate, doctor, schema,
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """The entry point."""
    silence_drivers()
    cli.main(prog_name="tickstream", standalone_mode=True)
    sys.exit(0)
