"""The resolvers of data quality, of runs and of the servers behind the API."""

from itertools import groupby
from typing import Any, Final

from ariadne import ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.arguments import page_of_names
from api.batches import batch_of
from api.context import Context
from api.health import check_all
from pipeline.store import reads

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]

query: Final = QueryType()
symbol_type: Final = ObjectType("Symbol")


@query.field("dataQuality")
async def resolve_quality(
    _: None,
    info: Info,
    names: list[str] | None = None,
    first: int | None = None,
    after: str | None = None,
) -> list[Row]:
    """Counts of a page of symbols."""
    page = await page_of_names(info.context, names, first, after)
    async with info.context.services.postgres() as pool:
        found = await reads.quality(pool, page)
    return [row for name in page for row in found[name]]


@symbol_type.field("dataQuality")
async def resolve_symbol_quality(symbol: Row, info: Info) -> list[Row]:
    """Counts of one symbol; those of all symbols of the request are read at once."""

    async def read(names: list[str]) -> dict[str, list[Row]]:
        async with info.context.services.postgres() as pool:
            return await reads.quality(pool, names)

    return await batch_of(info.context.memo, "quality", read).load(symbol["name"])


@query.field("runs")
async def resolve_runs(_: None, info: Info) -> list[Row]:
    """Every service with its partitions."""
    return await runs(info.context)


async def runs(context: Context) -> list[Row]:
    """The stored computations, each with its partitions."""
    async with context.services.postgres() as pool:
        rows = await reads.runs(pool)
    return [
        {"service": service, "fingerprint": fingerprint, "partitions": list(group)}
        for (service, fingerprint), group in groupby(sorted(rows, key=_run), key=_run)
    ]


def _run(row: Row) -> tuple[str, str]:
    return row["service"], row["fingerprint"]


@query.field("services")
async def resolve_services(_: None, info: Info) -> list[Row]:
    """Whether each server answers."""
    return await checked_services(info.context)


async def checked_services(context: Context) -> list[Row]:
    """Each server behind the API with the time of its answer, or why there is none."""
    found = await check_all(context.services)
    return [
        {"seconds": None, "error": None, **check, "name": name} for name, check in found.items()
    ]


BINDABLES: Final = [query, symbol_type]
