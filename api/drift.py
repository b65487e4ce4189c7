"""The resolvers of alarms of drift."""

from typing import Any, Final

from ariadne import QueryType
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
    limit = read_limit("first", first, None, services.settings.api.page_max)
    if symbol is not None and "\0" in symbol:
        raise ApiError(Code.BAD_INPUT, "a symbol holds no NUL")
    async with services.postgres() as pool:
        return await drift.newest(pool, limit, symbol)


BINDABLES: Final = [query]
