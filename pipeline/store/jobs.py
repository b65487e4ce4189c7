"""Jobs: replays, backtests and trainings that are asked for, done by one runner at a time.

A runner holds a job by a lease. Every change by a runner names itself and its attempt, so that one
whose lease has passed to another changes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from pipeline.errors import ConflictError
from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import statement

LAST: Final = 2**63 - 1  # above every id
Job = dict[str, Any]


class Kind(StrEnum):
    """What is done."""

    REPLAY = "replay"
    BACKTEST = "backtest"
    TRAINING = "training"


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FullError(ConflictError):
    """Too many jobs wait already."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is asked for; `key` is its name among those of its principal."""

    kind: Kind
    arguments: Mapping[str, Any]
    principal: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of a runner to a job, as long as its lease lasts."""

    id: int
    runner: str
    attempt: int


async def add(pool: Pool, new: NewJob, queued_max: int) -> tuple[Job, bool]:
    """Store a job; one of the same key and content is returned as it stands. Whether it is new.

    Raises:
        ConflictError: the key belongs to a job with another content.
        FullError: so many wait already.
    """
    async with pool.acquire() as connection, connection.transaction():
        # Without it two at once could both count one place less, or meet at the key.
        await connection.execute(statement("lock_jobs"))
        row = await connection.fetchrow(statement("job_by_key"), new.principal, new.key)
        if row is not None:
            found = _job(row)
            if (found["kind"], found["arguments"]) != (new.kind, dict(new.arguments)):
                raise ConflictError(f"the key is that of job {found['id']}, which is another one")
            return found, False
        if await connection.fetchval(statement("queued_jobs")) >= queued_max:
            raise FullError(f"{queued_max} jobs wait already")
        return await _added(connection, new), True


async def _added(connection: Connection, new: NewJob) -> Job:
    return _job(
        await connection.fetchrow(
            statement("add_job"),
            new.kind.value,
            json.dumps(new.arguments),
            new.principal,
            new.key,
            new.fingerprint,
        )
    )


async def schedule(pool: Pool, new: NewJob) -> Job | None:
    """Store the next job of a schedule, which is its principal; None while a former one is done.

    Former ones that still wait are cancelled: this one takes their place. One of the same key is
    returned as it stands.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(statement("lock_jobs"))
        row = await connection.fetchrow(statement("job_by_key"), new.principal, new.key)
        if row is not None:
            return _job(row)
        if await connection.fetchval(statement("running_job_of"), new.principal) is not None:
            return None
        await connection.execute(statement("replace_waiting_jobs"), new.principal, new.key)
        return await _added(connection, new)


async def find(pool: Pool, number: int) -> Job | None:
    """A job by its id."""
    row = await pool.fetchrow(statement("job"), number)
    return None if row is None else _job(row)


async def newest(
    pool: Pool, limit: int, before: int = LAST, state: State | None = None
) -> list[Job]:
    """The newest jobs with an id below `before`, newest first."""
    if state is None:
        rows = await pool.fetch(statement("jobs"), limit, before)
    else:
        rows = await pool.fetch(statement("jobs_of_state"), limit, before, state.value)
    return [_job(row) for row in rows]


async def cancel(pool: Pool, number: int) -> Job | None:
    """Cancel a waiting job at once, ask the runner of a running one; others stay as they are."""
    row = await pool.fetchrow(statement("cancel_job"), number)
    return await find(pool, number) if row is None else _job(row)


async def claim(
    pool: Pool, runner: str, lease: timedelta, attempts: int
) -> tuple[Claim, Job] | None:
    """Take the oldest job that waits, or whose runner let its lease pass; None without one.

    One whose runners have died `attempts` times fails, one that was to be cancelled is.
    """
    died = f"its runner died or was cut off {attempts} times in the middle of it"
    await pool.execute(statement("settle_jobs"), attempts, died)
    row = await pool.fetchrow(statement("claim_job"), runner, lease)
    if row is None:
        return None
    return Claim(row["id"], runner, row["attempts"]), _job(row)


async def hold(pool: Pool, held: Claim, lease: timedelta) -> bool | None:
    """Prolong the lease; whether the job is to be cancelled, None when it is no longer ours."""
    asked: bool | None = await pool.fetchval(
        statement("hold_job"), held.id, held.runner, held.attempt, lease
    )
    return asked


async def release(pool: Pool, held: Claim) -> bool:
    """Give a job back as if it had never been begun; false when it is no longer ours."""
    args = (held.id, held.runner, held.attempt)
    return await pool.fetchval(statement("release_job"), *args) is not None


async def put_off(pool: Pool, held: Claim, pause: timedelta, trouble: str) -> bool:
    """Have a job begun again, by whoever, after a pause; false when it is no longer ours."""
    args = (held.id, held.runner, held.attempt, pause, trouble)
    return await pool.fetchval(statement("put_off_job"), *args) is not None


async def finish(
    pool: Pool,
    held: Claim,
    state: State,
    *,
    directory: str | None = None,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """End a job; false when it is no longer ours."""
    body = None if result is None else json.dumps(result)
    args = (held.id, held.runner, held.attempt, state.value, directory, body, error)
    return await pool.fetchval(statement("finish_job"), *args) is not None


def _job(row: Any) -> Job:
    job = dict(row)
    for name in ("arguments", "result"):
        job[name] = None if job[name] is None else json.loads(job[name])
    return job
