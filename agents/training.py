"""The service `training`: does jobs that were asked for or are due, and scores who speaks."""

import asyncio
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from platformdirs import user_data_path

from agents.entry import run, stop_by_signal
from agents.jobs import (
    OUTPUT,
    begin,
    clear_failed,
    clear_former,
    is_temporary,
    last_error,
    place_of,
    result_of,
    trouble_of,
)
from agents.retries import Outage
from agents.schedule import keep_schedule
from agents.scores import keep_scores
from pipeline.clock import monotonic
from pipeline.errors import MisuseError, UnavailableError
from pipeline.models.boosting import lightgbm_module
from pipeline.servers.child import Child
from pipeline.settings import Settings, fresh_id
from pipeline.store import jobs
from pipeline.store.jobs import Claim, Job, State
from pipeline.store.migrate import migrate
from pipeline.store.pool import RETRYABLE, Pool, open_pool
from pipeline.waiting import set_within

LOG: Final = structlog.get_logger()
_PAUSE: Final = 1.0  # seconds between looks for work, and between attempts to reach Postgres
_LOOK: Final = 0.1  # seconds between looks at a process
_BEATS: Final = 3  # within a lease
_PUT_OFF, _PUT_OFF_MOST = 5.0, 600.0  # seconds, the first and the most
_AWAY_TOLD: Final = "a server was away, or another version became active meanwhile; see the log"
_OVERDUE: Final = "it took longer than jobs.seconds_max allows"
_AWAY: Final = (UnavailableError, *RETRYABLE)


class _Ending(Enum):
    """Why a runner no longer waits for a process."""

    ENDED = auto()
    CANCELLED = auto()
    LOST = auto()
    OVERDUE = auto()
    STOPPED = auto()


class Runner:
    """Takes jobs one after another, as many at once as it is told, until it is to stop.

    What it has begun by then it gives back.

    A job is held by a lease that it prolongs; when it cannot do so in time it ends the process, as
    another runner may do the job by then.
    """

    def __init__(
        self, pool: Pool, settings: Settings, home: Path, sets: Sequence[str], stop: asyncio.Event
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{fresh_id()[:8]}"
        self._pool = pool
        self._settings = settings.jobs
        self._home = home
        self._sets = tuple(sets)
        self._lease = timedelta(seconds=settings.jobs.lease_seconds)
        self._stop = stop

    async def run(self) -> None:
        """Do jobs until told to stop."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.at_once):
                group.create_task(self._turns())

    async def _turns(self) -> None:
        outage = Outage("jobs_not_read")
        while not self._stop.is_set():
            taken = None
            try:
                taken = await jobs.claim(
                    self._pool, self.name, self._lease, self._settings.attempts
                )
                outage.over()
            except _AWAY as error:
                outage.tell(error)
            if taken is None:
                await set_within(self._stop, _PAUSE)
            else:
                await self._attempt(*taken)

    async def _attempt(self, held: Claim, job: Job) -> None:
        place = place_of(self._home, job, held.attempt)
        log = LOG.bind(job=held.id, attempt=held.attempt)
        log.info("job_begun", kind=job["kind"], place=str(place))
        await asyncio.to_thread(clear_former, self._home, job, held)
        try:
            child = await asyncio.to_thread(begin, job, place, self._sets)
        except UnavailableError as error:
            log.warning("job_not_begun", error=str(error))
            trouble = "no process could be had for it, or its directory not be made"
            await self._finish(held, State.FAILED, error=trouble)
            return
        try:
            ending = await self._watch(held, child)
        finally:
            await asyncio.to_thread(child.stop)
        if ending is _Ending.ENDED and is_temporary(child, job):
            ours = await self._put_off(held, job, child)
            await asyncio.to_thread(clear_failed, place)
        else:
            ours = await self._settle(held, child, ending, place)
        log.info("job_ended", ending=ending.name.lower(), code=child.code, ours=ours)

    async def _put_off(self, held: Claim, job: Job, child: Child) -> bool:
        """A server was away: the job waits, twice as long each time. Whether it was ours."""
        seconds = min(_PUT_OFF * 2.0 ** job["retries"], _PUT_OFF_MOST)
        why = last_error(child)
        LOG.warning("job_put_off", job=held.id, seconds=seconds, error=why)
        pause = timedelta(seconds=seconds)
        return await self._told(lambda: jobs.put_off(self._pool, held, pause, _AWAY_TOLD))

    async def _watch(self, held: Claim, child: Child) -> _Ending:
        """Wait for the end of a process, and prolong the lease meanwhile."""
        began = monotonic()
        lease = self._settings.lease_seconds
        until, again = began + lease, began + lease / _BEATS
        outage = Outage("lease_not_prolonged")
        while child.alive:
            now = monotonic()
            if self._stop.is_set():
                return _Ending.STOPPED
            if now >= until:
                return _Ending.LOST
            if now - began > self._settings.seconds_max:
                return _Ending.OVERDUE
            if now >= again:
                again = now + lease / _BEATS
                try:
                    async with asyncio.timeout(until - now):
                        cancel = await jobs.hold(self._pool, held, self._lease)
                except _AWAY as error:
                    outage.tell(error)
                    continue
                outage.over()
                if cancel is None:
                    return _Ending.LOST
                if cancel:
                    return _Ending.CANCELLED
                until = now + lease
            await asyncio.sleep(_LOOK)
        return _Ending.ENDED

    async def _settle(self, held: Claim, child: Child, ending: _Ending, place: Path) -> bool:
        """Say how it ended; what nobody will ask for is removed. Whether it was still ours."""
        if ending is _Ending.ENDED and child.code == 0:
            try:
                result = await asyncio.to_thread(result_of, place)
            except UnavailableError as error:
                LOG.warning("result_not_read", job=held.id, error=str(error))
                ours = await self._finish(
                    held, State.FAILED, error="its output could not be read; see the log"
                )
            else:
                ours = await self._finish(
                    held, State.DONE, directory=str(place / OUTPUT), result=result
                )
        elif ending is _Ending.STOPPED:
            ours = await self._told(lambda: jobs.release(self._pool, held))
        elif ending is _Ending.CANCELLED:
            ours = await self._finish(held, State.CANCELLED)
        elif ending is _Ending.LOST:
            ours = False
        else:
            trouble = _OVERDUE if ending is _Ending.OVERDUE else trouble_of(child)
            ours = await self._finish(held, State.FAILED, error=trouble)
            await asyncio.to_thread(clear_failed, place)
            return ours
        if not ours or ending is not _Ending.ENDED:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        return ours

    async def _finish(
        self,
        held: Claim,
        state: State,
        *,
        directory: str | None = None,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> bool:
        told = partial(jobs.finish, directory=directory, result=result, error=error)
        return await self._told(lambda: told(self._pool, held, state))

    async def _told(self, tell: Callable[[], Awaitable[bool]]) -> bool:
        """Tell Postgres, again and again while it is away; not for long when it is to stop."""
        last = False
        outage = Outage("end_not_told")
        while True:
            try:
                return await tell()
            except _AWAY as error:
                outage.tell(error)
                if last:
                    return False  # the lease will pass, and the job be done again
            last = self._stop.is_set()
            await set_within(self._stop, _PAUSE)


async def work(settings: Settings, sets: Sequence[str]) -> None:
    """Do jobs until SIGTERM or SIGINT.

    Raises:
        MisuseError: the address of Postgres is not set.
    """
    if settings.postgres is None:
        raise MisuseError("jobs are in Postgres: set TICKSTREAM_POSTGRES, or use `tickstream up`")
    if settings.training.every is not None:
        if settings.kafka is None:
            raise MisuseError("training.every promotes by Kafka: set TICKSTREAM_KAFKA")
        lightgbm_module()
    home = settings.jobs.directory or user_data_path("tickstream") / "jobs"
    stop = stop_by_signal()
    pool = await _opened(settings, stop)
    if pool is None:
        return
    try:
        runner = Runner(pool, settings, home.absolute(), sets, stop)
        LOG.info(
            "runner_started", runner=runner.name, home=str(home), at_once=settings.jobs.at_once
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(runner.run())
            if settings.training.every is not None:
                group.create_task(keep_schedule(pool, settings, stop))
            if settings.kafka is not None and settings.models.score_seconds:
                group.create_task(keep_scores(pool, settings.kafka, settings, stop))
        LOG.info("runner_stopped", runner=runner.name)
    finally:
        await pool.close()


async def _opened(settings: Settings, stop: asyncio.Event) -> Pool | None:
    """The pool, as soon as Postgres is there; None when told to stop before that."""
    outage = Outage("postgres_awaited")
    while not stop.is_set():
        try:
            pool = await open_pool(str(settings.postgres), settings.store)
            await migrate(pool)
        except _AWAY as error:
            outage.tell(error)
            await set_within(stop, _PAUSE)
        else:
            return pool
    return None


def main() -> None:
    """Run it."""
    run("python -m agents.training", work)


if __name__ == "__main__":
    main()
