"""The resolvers of jobs: asked for here or by a schedule, and done by a runner elsewhere."""

from typing import Any, Final

import structlog
from ariadne import EnumType, MutationType, ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.batches import batch_of
from api.context import Context
from api.errors import ApiError, Code
from api.operations import runs
from api.overrides import overridden
from api.pagination import read_limit
from pipeline.errors import ConflictError
from pipeline.models.scheduled import Outcome
from pipeline.store import jobs
from pipeline.store.jobs import FullError, Job, Kind, NewJob, State

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]
# As the commands name them.
SOURCES: Final = {"TOPIC": "kafka:prices", "STORED": "postgres:ticks"}
_KEY: Final = 64  # characters
_MOST: Final = {"trials": 1_000_000, "year": 366}
_log: Final = structlog.get_logger("api")

query: Final = QueryType()
mutation: Final = MutationType()
job_type: Final = ObjectType("Job")


@query.field("jobs")
async def resolve_jobs(
    _: None,
    info: Info,
    first: int | None = None,
    after: int | None = None,
    state: str | None = None,
) -> list[Row]:
    """The newest jobs."""
    services = info.context.services
    limit = read_limit("first", first, None, services.settings.api.page_max)
    before = jobs.LAST if after is None else after
    async with services.postgres() as pool:
        found = await jobs.newest(pool, limit, before, None if state is None else State(state))
    return [_row(job) for job in found]


@query.field("job")
async def resolve_job(_: None, info: Info, id: int) -> Row | None:  # noqa: A002 - the name in the schema
    """One job."""
    async with info.context.services.postgres() as pool:
        found = await jobs.find(pool, id)
    return None if found is None else _row(found)


@mutation.field("startReplay")
async def resolve_replay(_: None, info: Info, **given: Any) -> Row:
    """Store a replay that is to be done."""
    return await _start(info, Kind.REPLAY, given)


@mutation.field("startBacktest")
async def resolve_backtest(_: None, info: Info, **given: Any) -> Row:
    """Store a backtest that is to be done."""
    return await _start(info, Kind.BACKTEST, given)


@mutation.field("cancelJob")
async def resolve_cancel(_: None, info: Info, id: int) -> Row:  # noqa: A002 - the name in the schema
    """Cancel a job, or have it cancelled."""
    async with info.context.services.postgres() as pool:
        found = await jobs.cancel(pool, id)
    if found is None:
        raise ApiError(Code.BAD_INPUT, f"there is no job {id}")
    _log.info("job_cancelled", job=id, state=found["state"], principal=info.context.principal.id)
    return _row(found)


async def _start(info: Info, kind: Kind, given: dict[str, Any]) -> Row:
    """Check what was asked for, then store it.

    Raises:
        ApiError: an argument makes no sense, too many jobs wait, or the key is another job's.
    """
    settings = info.context.services.settings
    key, start, end = given["key"], given.get("from"), given.get("to")
    if not 0 < len(key) <= _KEY or not key.isascii() or not key.isprintable():
        raise ApiError(Code.BAD_INPUT, f"a key has 1 to {_KEY} printable ASCII characters")
    if start is not None and end is not None and start > end:
        raise ApiError(Code.BAD_INPUT, "from is later than to")
    for name, most in _MOST.items():
        if not 1 <= (1 if given.get(name) is None else given[name]) <= most:
            raise ApiError(Code.BAD_INPUT, f"{name} must be 1 to {most}")
    chain = overridden(settings.chain, given["settings"], given.get("bar"))
    names = ("source", "from", "to", "bar", "settings", *(_MOST if kind is Kind.BACKTEST else ()))
    new = NewJob(
        kind,
        {name: given.get(name) for name in names},
        info.context.principal.id,
        key,
        chain.fingerprint(),
    )
    try:
        async with info.context.services.postgres() as pool:
            job, fresh = await jobs.add(pool, new, settings.jobs.queued_max)
    except FullError as error:
        raise ApiError(Code.LIMITED, f"{error}; try again later") from error
    except ConflictError as error:
        raise ApiError(Code.CONFLICT, str(error)) from error
    if fresh:
        _log.info("job_asked", job=job["id"], kind=kind.value, principal=new.principal)
    return _row(job)


def _row(job: Job) -> Row:
    """A job with its arguments beside its state."""
    return {"trials": None, "year": None, **job["arguments"], **job}


@job_type.field("rows")
def resolve_rows(row: Row, _: Info) -> list[Row]:
    """Rows by stage, in the order of the chain."""
    counts = {} if row["result"] is None else row["result"]["rows"]
    return [{"stage": stage, "count": count} for stage, count in counts]


@job_type.field("figures")
def resolve_figures(row: Row, _: Info) -> Row | None:
    """What a backtest found."""
    return None if row["result"] is None else row["result"]["figures"]


@job_type.field("training")
def resolve_training(row: Row, _: Info) -> Row | None:
    """What came of a training."""
    return None if row["result"] is None else row["result"].get("training")


@job_type.field("fingerprint")
def resolve_fingerprint(row: Row, _: Info) -> str:
    """That of the settings with which it was done, or else is to be done."""
    found: str = (row["result"] or row)["fingerprint"]
    return found


@job_type.field("run")
async def resolve_run(row: Row, info: Info) -> Row | None:
    """The live run of the same settings; the runs are read once a request."""

    async def read(fingerprints: list[str]) -> dict[str, Row | None]:
        group = info.context.services.settings.worker.group
        live = {r["fingerprint"]: r for r in await runs(info.context) if r["service"] == group}
        return {one: live.get(one) for one in fingerprints}

    return await batch_of(info.context.memo, "runs", read).load(resolve_fingerprint(row, info))


BINDABLES: Final = [
    query,
    mutation,
    job_type,
    EnumType("JobKind", {kind.name: kind.value for kind in Kind}),
    EnumType("TrainingOutcome", {outcome.name: outcome.value for outcome in Outcome}),
    EnumType("JobState", {state.name: state.value for state in State}),
    EnumType("JobSource", SOURCES),
]
