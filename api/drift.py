"""The resolvers of alarms of drift."""

from typing import Any, Final

from ariadne import EnumType, QueryType
from graphql import GraphQLResolveInfo

from api.context import Context
from api.errors import ApiError, Code
from api.pagination import read_limit
from pipeline.store import drift

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]

query: Final = QueryType()


@query.field("drift")
async def resolve_drift(
    _: None, info: Info, first: int | None = None, symbol: str | None = None
) -> list[Row]:
    """The newest alarms."""
    services = info.context.services
    limit = _asked(info, first, symbol)
    async with services.postgres() as pool:
        return await drift.newest(pool, limit, symbol)


@query.field("driftSeries")
async def resolve_series(
    _: None,
    info: Info,
    first: int | None = None,
    symbol: str | None = None,
    state: str | None = None,
) -> list[Row]:
    """How it stands, as the last turn of the watch left it."""
    services = info.context.services
    limit = _asked(info, first, symbol)
    async with services.postgres() as pool:
        return await drift.series(pool, services.settings.worker.group, limit, symbol, state)


def _asked(info: Info, first: int | None, symbol: str | None) -> int:
    """How many rows.

    Raises:
        ApiError: an argument makes no sense.
    """
    limit = read_limit("first", first, None, info.context.services.settings.api.page_max)
    if symbol is not None and "\0" in symbol:
        raise ApiError(Code.BAD_INPUT, "a symbol holds no NUL")
    return limit


BINDABLES: Final = [
    query,
    EnumType("DriftState", {state.upper(): state for state in ("measured", "watched", "unfit")}),
]
