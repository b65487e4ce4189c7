"""The whole thing on one machine: servers, topics, tables, workers and the API, looked after."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pipeline.bus.topics import ensure_topics
from pipeline.calls.hooks import check_webhooks
from pipeline.cli.administration import without_password
from pipeline.cli.options import say
from pipeline.clock import monotonic
from pipeline.errors import MisuseError, UnavailableError
from pipeline.servers import Addresses, start_servers
from pipeline.servers.ports import claim, is_free
from pipeline.servers.services import Service
from pipeline.settings import ApiSettings, Settings, child_environment
from pipeline.store.migrate import migrate
from pipeline.store.pool import pooled
from pipeline.waiting import set_within

_WATCH: Final = 0.2
_API_START: Final = 30.0
_WORKER: Final = "worker-"


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs: where the servers are, where the API is, our processes."""

    settings: Settings
    addresses: Addresses
    api_url: str
    services: tuple[Service, ...]
    data_dir: Path

    @property
    def workers(self) -> tuple[Service, ...]:
        """The services that move the marks."""
        return tuple(one for one in self.services if one.name.startswith(_WORKER))

    def watch(self) -> None:
        """Start again what ended; call it a few times a second.

        Raises:
            TickstreamError: a process cannot be kept alive.
        """
        for service in self.services:
            service.watch()

    def lines(self) -> list[str]:
        """Every address served, for people."""
        graphql, rpc = self.api_url, self.settings.rpc
        return [
            f"GraphQL   {graphql}",
            f"          {graphql.replace('http', 'ws')} (graphql-transport-ws)",
            *([f"gRPC      {rpc.host}:{rpc.port}"] if rpc.fused and rpc.port else []),
            *(
                f"{name:9} {without_password(address)}"
                for name, address in asdict(self.addresses).items()
            ),
            f"data      {self.data_dir}",
        ]


async def prepare(addresses: Addresses, settings: Settings) -> None:
    """Make topics and tables."""

    async def tables() -> None:
        async with pooled(addresses.postgres, settings.store) as pool:
            await migrate(pool)

    await asyncio.gather(ensure_topics(addresses.kafka, settings.topics), tables())


@contextmanager
def stack(
    settings: Settings, sets: tuple[str, ...], data_dir: Path, workers: int
) -> Iterator[Stack]:
    """Start everything; stop it in the end: workers first, so that they drain.

    Raises:
        TickstreamError: something cannot be started; what ran is stopped again.
    """
    check_webhooks(settings)
    port = _api_port(settings, data_dir)
    with start_servers(
        data_dir,
        kafka=settings.kafka,
        postgres=settings.postgres,
        redis=settings.redis,
        say=say,
    ) as fleet:
        asyncio.run(prepare(fleet.addresses, settings))
        environment = child_environment(
            {
                "TICKSTREAM_KAFKA": fleet.addresses.kafka,
                "TICKSTREAM_POSTGRES": fleet.addresses.postgres,
                "TICKSTREAM_REDIS": fleet.addresses.redis,
            }
        )
        home = data_dir.absolute() / "services"
        assignments = tuple(part for one in sets for part in ("--set", one))
        services = []
        for number in range(1, workers + 1):
            name = f"{_WORKER}{number}"
            own = (*assignments, "--set", f'worker.instance="{name}"')
            services.append(Service(name, "agents", own, environment, home, say=say))
        jobs = settings.jobs.directory or data_dir / "jobs"
        own = (*assignments, "--set", f"jobs.directory={json.dumps(str(jobs.absolute()))}")
        services.append(Service("training", "agents.training", own, environment, home, say=say))
        if settings.webhooks:
            services.append(
                Service("monitoring", "agents.monitoring", assignments, environment, home, say=say)
            )
        arguments = (*assignments, "--host", settings.api.host, "--port", str(port))
        api = Service("api", "api", arguments, environment, home, say=say)
        running = Stack(
            settings,
            fleet.addresses,
            f"http://{settings.api.host}:{port}/graphql",
            (*services, api),
            data_dir,
        )
        try:
            for service in running.services:
                service.start()
            _await_api(running, api, port)
            yield running
        finally:
            for service in running.services:
                service.stop()


def _api_port(settings: Settings, data_dir: Path) -> int:
    """The port that was asked for, or 8000, or, where nobody asked and it is taken, a free one."""
    port = settings.api.port
    asked = "api" in settings.model_fields_set and "port" in settings.api.model_fields_set
    default = ApiSettings().port
    if not asked and is_free(default):
        return default
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MisuseError(f"data directory {data_dir} cannot be used: {error.strerror}") from None
    return claim("the API", data_dir / "api.port", asked=port if asked else None)


def _await_api(running: Stack, api: Service, port: int) -> None:
    deadline = monotonic() + _API_START
    while is_free(port):
        running.watch()
        if monotonic() > deadline:
            raise UnavailableError(f"the API did not start in {_API_START:.0f} s (log: {api.log})")
        _pause()


def _pause() -> None:
    asyncio.run(asyncio.sleep(_WATCH / 2))


async def watch(running: Stack, stop: asyncio.Event) -> None:
    """Look after the processes until told to stop.

    Raises:
        TickstreamError: one cannot be kept alive.
    """
    while not stop.is_set():
        await asyncio.to_thread(running.watch)
        await set_within(stop, _WATCH)


def check_workers(workers: int, settings: Settings) -> None:
    """More workers than partitions would idle.

    Raises:
        MisuseError: there are more.
    """
    if workers > settings.topics.partitions:
        raise MisuseError(
            f"{workers} workers share {settings.topics.partitions} partitions: "
            f"set topics.partitions to at least {workers}"
        )
