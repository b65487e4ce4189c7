"""Options and habits that commands share."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import uvloop
from platformdirs import user_cache_path, user_data_path

from pipeline.errors import MisuseError
from pipeline.servers import Addresses, running_addresses, start_servers
from pipeline.settings import Settings, load_settings
from pipeline.stages.bars import parse_clock
from pipeline.store.pool import Pool, pooled
from schemas.times import NO_TIME, parse_time

if TYPE_CHECKING:
    from pipeline.bus.ranges import Limits

_OFFSETS: Final = re.compile(r"([0-9]{1,9}):([0-9]{0,18})-([0-9]{0,18})")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

SETS: Final = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting for this run, as in guard.mode=plain.",
)
BAR: Final = click.option(
    "--bar", metavar="CLOCK", help="Decision clock: time:10s, ticks:100, ticks:1 or row."
)
DATA_DIR: Final = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the embedded servers keep their data.",
)
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def sets_of(sets: tuple[str, ...], bar: str | None) -> tuple[str, ...]:
    """`--set` with the clock of `--bar` behind it.

    Raises:
        MisuseError: the clock is none.
    """
    if bar is None:
        return sets
    try:
        parse_clock(bar)
    except ValueError as error:
        raise MisuseError(f"--bar: {error}") from error
    return (*sets, f"bars.clock={bar}")


def settings_of(sets: tuple[str, ...], bar: str | None = None, **values: Any) -> Settings:
    """Settings from the environment, `--set` and `--bar`."""
    return load_settings(sets_of(sets, bar), **values)


def default_data_dir() -> Path:
    """Where `up` keeps its data unless told otherwise."""
    return user_data_path("tickstream")


def say(line: str) -> None:
    """A line about something slow, on standard error."""
    click.echo(line, err=True)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine on a fast loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def named_or_running(settings: Settings, data_dir: Path | None) -> dict[str, str | None]:
    """Addresses from the environment, else of the servers that run on the data directory."""
    running = running_addresses(data_dir or default_data_dir())
    return {
        "kafka": settings.kafka or running.get("kafka"),
        "postgres": settings.postgres or running.get("postgres"),
        "redis": settings.redis or running.get("redis"),
    }


def with_pool(settings: Settings, data_dir: Path | None, work: Callable[[Pool], Awaitable[T]]) -> T:
    """Run a command's work with the database.

    Raises:
        MisuseError: no Postgres is named or running.
    """
    (postgres,) = demand(named_or_running(settings, data_dir), "postgres")

    async def open_and_work() -> T:
        async with pooled(postgres, settings.store) as pool:
            return await work(pool)

    return run(open_and_work())


def demand(addresses: dict[str, str | None], *names: str) -> tuple[str, ...]:
    """The addresses by name.

    Raises:
        MisuseError: one is neither named nor running.
    """
    for name in names:
        if addresses[name] is None:
            raise MisuseError(
                f"no {name}: set TICKSTREAM_{name.upper()}, or run `tickstream up` first "
                "(with the same --data-dir)"
            )
    return tuple(str(addresses[name]) for name in names)


@contextmanager
def servers_for(settings: Settings, data_dir: Path | None) -> Iterator[Addresses]:
    """Servers for one command: named ones, running ones, or those of a data directory meanwhile."""
    found = named_or_running(settings, data_dir)
    if all(found.values()) or data_dir is None:
        kafka, postgres, redis = demand(found, "kafka", "postgres", "redis")
        yield Addresses(kafka=kafka, postgres=postgres, redis=redis)
        return
    if not data_dir.is_dir():
        raise MisuseError(f"{data_dir}: no such data directory")
    with start_servers(
        data_dir,
        kafka=found["kafka"],
        postgres=found["postgres"],
        redis=found["redis"],
        say=say,
    ) as fleet:
        yield fleet.addresses


def time_option(text: str | None, name: str) -> int | None:
    """A `--from` or `--to` as ns: RFC 3339 with zone, or an integer in any unit.

    Raises:
        MisuseError: it is neither.
    """
    if text is None:
        return None
    ns = parse_time(int(text) if text.lstrip("-").isdigit() else text)
    if ns == NO_TIME:
        raise MisuseError(f"{name} {text!r} is no RFC 3339 time with zone, as 2024-08-08T23:54:15Z")
    return ns


def offsets_option(texts: tuple[str, ...]) -> "dict[int, Limits] | None":
    """`--offsets` as limits by partition; None without any.

    Raises:
        MisuseError: one is no PARTITION:FROM-TO, or names a partition again.
    """
    limits: dict[int, Limits] = {}
    for text in texts:
        found = _OFFSETS.fullmatch(text)
        if found is None:
            raise MisuseError(f"--offsets {text!r} is no PARTITION:FROM-TO, as 0:100-200 or 0:100-")
        partition = int(found[1])
        if partition in limits:
            raise MisuseError(f"--offsets names partition {partition} twice")
        limits[partition] = (_number(found[2]), _number(found[3]))
    return limits or None


def _number(digits: str) -> int | None:
    return int(digits) if digits else None


def topics_cache() -> Path:
    """Where messages of topics are kept."""
    return user_cache_path("tickstream") / "topics"


def on_terminal() -> bool:
    """Whether a person watches."""
    return sys.stderr.isatty()
