"""What `up` does beside its workers: restart those that are stuck, keep the tables in shape."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, cast
from urllib.parse import urlsplit

from pipeline.bus.groups import owners
from pipeline.bus.ranges import read_ranges
from pipeline.cli.options import say
from pipeline.cli.stack import Stack
from pipeline.cli.watching import observe
from pipeline.clock import monotonic, today
from pipeline.errors import TickstreamError, UnavailableError
from pipeline.servers.services import Service
from pipeline.servers.watchdog import Observation, Stuck, Watch, look, restarted, state, verdict
from pipeline.store.pool import RETRYABLE, Pool
from pipeline.store.upkeep import keep, summarise
from pipeline.waiting import set_within
from schemas.topics import PRICES

_ROUND: Final = 600.0  # seconds between two rounds of upkeep
_SUMMARY: Final = 2.0  # seconds until what was stored last is in the index of its day
_OFTEN: Final = 12  # looks within `worker.stuck_seconds`, roughly
_LONGEST: Final = 5.0  # seconds between two looks
_ANSWER: Final = 10.0  # seconds until an answer counts as none
_API: Final = 2.0


@dataclass(frozen=True, slots=True)
class View:
    """How the outside sees the workers: what lags, who holds which partition, what is real."""

    observe: Callable[[], Awaitable[Observation]]
    owners: Callable[[], Awaitable[Mapping[int, str]]]
    waits: Callable[[Observation], Awaitable[bool]]
    """Whether a message really waits: a lag may be of a publisher's transaction markers alone."""


class Guard:
    """Looks at the workers now and then and has stuck ones restarted."""

    def __init__(self, workers: Sequence[Service], view: View, seconds: float) -> None:
        self._workers = workers
        self._view = view
        self._seconds = seconds
        self._watches = {worker.name: Watch() for worker in workers}
        self._pids = {worker.name: worker.pid for worker in workers}
        self._ordered: set[str] = set()
        self._empty: dict[int, int] = {}

    def states(self) -> dict[str, str]:
        """The readiness of each worker."""
        return {
            worker.name: state(self._watches[worker.name], alive=worker.pid is not None)
            for worker in self._workers
        }

    async def look(self) -> None:
        """One look at all of them; a server that does not answer stops the timers."""
        try:
            async with asyncio.timeout(_ANSWER):
                seen = (await self._view.observe()).beyond(self._empty)
                held = await self._view.owners() if seen.lags() else {}
        except (UnavailableError, *RETRYABLE):
            seen, held = None, {}
        for worker in self._workers:
            watch = self._watch_of(worker)
            if worker.pid is None:
                continue
            mine = seen and seen.only(
                [p for p in seen.bounds if held.get(p) in {None, worker.name}]
            )
            watch = look(watch, mine)
            stuck = verdict(watch, self._seconds)
            if stuck is not None and mine is not None:
                watch = await self._judged(worker, watch, stuck, mine)
            self._watches[worker.name] = watch

    def _watch_of(self, worker: Service) -> Watch:
        """What is remembered of its process; a new process begins anew."""
        watch = self._watches[worker.name]
        if worker.pid != self._pids[worker.name]:
            self._pids[worker.name] = worker.pid
            watch = restarted(watch, stuck=worker.name in self._ordered)
            self._ordered.discard(worker.name)
            self._watches[worker.name] = watch
        return watch

    async def _judged(
        self, worker: Service, watch: Watch, stuck: Stuck, seen: Observation
    ) -> Watch:
        """Restart it, unless nothing waits for it after all."""
        try:
            async with asyncio.timeout(_ANSWER):
                waits = await self._view.waits(seen)
        except (UnavailableError, *RETRYABLE):
            return look(watch, None)
        if not waits:
            self._empty |= {partition: seen.bounds[partition][1] for partition in seen.lags()}
            return look(watch, seen.beyond(self._empty))
        worker.restart(str(stuck), worked=watch.worked)
        self._ordered.add(worker.name)
        return watch


def view_of(running: Stack, pool: Pool) -> View:
    """The topic, the group and the marks of a running stack."""
    kafka, group = running.addresses.kafka, running.settings.worker.group

    async def waits(seen: Observation) -> bool:
        ranges = {p: (seen.marks.get(p, -1) + 1, seen.bounds[p][1]) for p in seen.lags()}
        reading = read_ranges(kafka, PRICES, ranges)
        # Closed here and now, so that its consumer does not wait for the garbage collector.
        async with aclosing(cast("AsyncGenerator[Any]", reading)) as messages:
            async for _ in messages:
                return True
        return False

    return View(lambda: observe(kafka, pool, group), lambda: owners(kafka, group, PRICES), waits)


async def guard_workers(guard: Guard, seconds: float, stop: asyncio.Event) -> None:
    """Look until told to stop."""
    pause = min(_LONGEST, seconds / _OFTEN) if seconds else _LONGEST
    while not await set_within(stop, pause):
        await guard.look()


async def keep_tables(running: Stack, pool: Pool, stop: asyncio.Event) -> None:
    """A round of upkeep now and every ten minutes; its trouble is a line, not an end."""
    again = quiet_until = 0.0
    while True:
        try:
            if monotonic() >= again:
                again = monotonic() + _ROUND
                line = (await keep(pool, running.settings.store, today())).line()
                if line:
                    say(f"tables: {line}")
            await summarise(pool, today())
        except (TickstreamError, *RETRYABLE) as error:
            if monotonic() >= quiet_until:
                quiet_until = monotonic() + _ROUND
                say(f"tables not kept: {error}")
        if await set_within(stop, _SUMMARY):
            return


async def api_state(running: Stack) -> str:
    """What the API says of its readiness."""
    return await asyncio.to_thread(_ask_api, running.api_url)


def _ask_api(url: str) -> str:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=_API)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, HTTPException):
        return "down"
    finally:
        connection.close()
    return "ready" if status == HTTPStatus.OK else "not ready"
