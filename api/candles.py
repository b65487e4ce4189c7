"""The resolver of candles."""

from functools import partial
from typing import Any, Final

from ariadne import EnumType, ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.arguments import checked, read_period
from api.context import Context
from api.pagination import Page, read_page, read_window
from pipeline.store import candles
from pipeline.store.candles import Kind
from pipeline.store.reads import Cursor

Row = dict[str, Any]
query: Final = QueryType()
candle: Final = ObjectType("Candle")
source_type: Final = EnumType("CandleSource", {"BARS": "bars", "TICKS": "ticks"})


@query.field("candles")
async def resolve_candles(
    _: None,
    info: GraphQLResolveInfo[Context],
    symbol: str,
    interval: str,
    source: candles.Source,
    **arguments: Any,
) -> Page:
    """A page of candles."""
    window = read_window(arguments, info.context.services.settings.api.page_max)
    kind = Kind(source, read_period("interval", interval), window.known)
    return await read_page(window, partial(_read, info.context, kind, checked(symbol)))


async def _read(
    context: Context,
    kind: Kind,
    symbol: str,
    start: int,
    end: int,
    limit: int,
    after: Cursor | None,
    before: Cursor | None,
) -> list[Row]:
    async with context.services.postgres() as pool:
        rows = await candles.read(pool, kind, symbol, start, end, limit, after, before)
    return [{**row, "symbol": symbol, "start": row["ts"], "end": row["end_ts"]} for row in rows]


BINDABLES: Final = [query, candle, source_type]
