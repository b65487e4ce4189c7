"""`tickstream`: the commands, and errors as one line with the right exit code."""

import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from pipeline.cli.interrupts import keep_interrupts, raise_kept
from pipeline.errors import TickstreamError
from pipeline.telemetry.logs import silence_drivers

_INTERRUPTED: Final = 130
# Each with its module, which is loaded when it is called: who rolls a version back in haste does
# not wait for the kernels of a backtest.
_MODULES: Final = {
    "demo": "demo",
    "up": "up",
    "publish": "publish",
    "worker": "process",
    "api": "process",
    "rpc": "process",
    "replay": "replay",
    "backtest": "backtest",
    "parity": "parity",
    "leakcheck": "leakcheck",
    "sweep": "sweep",
    "walkforward": "sweep",
    "train": "train",
    "models": "models",
    "topics": "administration",
    "migrate": "administration",
    "keys": "keys",
    "doctor": "administration",
    "schema": "administration",
}


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


class _Commands(_Group):
    """Loads the module of a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """The names, in order."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """A command by its name, from its module."""
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"pipeline.cli.{_MODULES[cmd_name]}")
        found: click.Command = getattr(module, cmd_name)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tickstream")
def cli() -> None:
    """Prices in, signals out, and any stretch of it replayed by the same code."""


def main() -> None:
    """The entry point."""
    silence_drivers()
    keep_interrupts()
    cli.main(prog_name="tickstream", standalone_mode=True)
    sys.exit(0)
