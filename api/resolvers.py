"""The resolvers: each reads its arguments, asks a reader, and returns rows."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ariadne import EnumType, ObjectType, QueryType
from ariadne.types import SchemaBindable
from graphql import GraphQLResolveInfo

from api import candles, drift, figures, jobs, models, operations, rejected, subscriptions
from api.arguments import checked, page_at_once, page_of_names
from api.context import Context
from api.mirror import MISSING
from api.names import ENUMS, HISTORY, LATEST, MAY_LACK, TYPES, camel
from api.pagination import Fetch, Page, read_page, read_window
from api.plans import AtOnce, LatestRow, OfRequest, OrNone
from api.scalars import big_int, date_time
from pipeline.store import history
from pipeline.store.reads import Cursor
from schemas.blocks import COLUMNS

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]

query: Final = QueryType()
symbol_type: Final = ObjectType("Symbol")


def symbols_now(
    context: Context,
    names: list[str] | None = None,
    first: int | None = None,
    after: str | None = None,
) -> Any:
    """The instruments by name, where they are known."""
    found = page_at_once(context, names, first, after)
    return MISSING if found is None else [{"name": name} for name in found]


async def read_symbols(context: Context, **asked: Any) -> list[Row]:
    """The instruments by name."""
    return [{"name": name} for name in await page_of_names(context, **asked)]


def symbol_now(context: Context, name: str) -> Any:
    """One instrument, where it is known."""
    return {"name": name} if context.services.known_symbols([checked(name)]) else MISSING


async def read_symbol(context: Context, name: str) -> Row | None:
    """One instrument."""
    return {"name": name} if await context.services.symbols([name]) else None


query.set_field("symbols", AtOnce(symbols_now, read_symbols))
query.set_field("symbol", AtOnce(symbol_now, read_symbol))


def staleness(context: Context) -> float:
    """How old the latest rows may be."""
    return context.services.mirror.staleness()


symbol_type.set_field("staleness", OfRequest(staleness))


def history_resolver(stage: str) -> Callable[..., Any]:
    """The resolver of a history."""

    async def resolve(_: None, info: Info, symbol: str, **arguments: Any) -> Page:
        services = info.context.services
        window = read_window(arguments, services.settings.api.page_max)
        fetch: Fetch = partial(
            read_history, info.context, stage, checked(symbol), known=window.known
        )
        return await read_page(window, fetch)

    return resolve


async def read_history(
    context: Context,
    stage: str,
    symbol: str,
    start: int,
    end: int,
    limit: int,
    after: Cursor | None,
    before: Cursor | None,
    known: int | None,
) -> list[Row]:
    """Rows of a symbol's history."""
    async with context.services.postgres() as pool:
        return await history.read(pool, stage, symbol, start, end, limit, after, before, known)


def _bindables() -> list[SchemaBindable]:
    types = {stage: ObjectType(name) for stage, name in TYPES.items()}
    for stage, column in MAY_LACK:
        types[stage].set_field(camel(column), OrNone(column))
    for stage in TYPES:
        symbol_type.set_field(LATEST[stage], LatestRow(stage))
        query.set_field(HISTORY[stage], history_resolver(stage))
    enums = [
        EnumType(name, {label.upper(): label for label in column.labels})
        for (stage, at), name in ENUMS.items()
        for column in COLUMNS[stage]
        if column.name == at
    ]
    return [date_time, big_int, query, symbol_type, *types.values(), *enums]


BINDABLES: Final = [
    *_bindables(),
    *candles.BINDABLES,
    *drift.BINDABLES,
    *figures.BINDABLES,
    *jobs.BINDABLES,
    *models.BINDABLES,
    *operations.BINDABLES,
    *rejected.BINDABLES,
    *subscriptions.BINDABLES,
]
