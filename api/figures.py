"""The resolvers of engines, of how they did, and of the paper books."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from ariadne import ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.arguments import checked, page_of_names, read_period
from api.batches import batch_of
from api.context import Context
from api.errors import ApiError, Code
from pipeline.cache.kinds import METRICS
from pipeline.replay.stored_scores import engine_names, stored_scores

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]
# Of whom, from when, to when, by which period, by regime or not.
Asked = tuple[str, int | None, int | None, int | None, bool]

query: Final = QueryType()
engine_type: Final = ObjectType("Engine")
symbol_type: Final = ObjectType("Symbol")


@query.field("engines")
def resolve_engines(_: None, _info: Info) -> list[Row]:
    """The engines of this version."""
    return [{"name": name} for name in engine_names()]


@query.field("performance")
async def resolve_performance(
    _: None, info: Info, engines: list[str] | None = None, **arguments: Any
) -> list[Row]:
    """Scores by engine."""
    unknown = set(engines or ()) - set(engine_names())
    if unknown:
        raise ApiError(Code.BAD_INPUT, f"the engines are {', '.join(engine_names())}")
    rows = await _scores(info.context, arguments)
    return [row for row in rows if engines is None or row["engine"] in engines]


@engine_type.field("performance")
async def resolve_engine(engine: Row, info: Info, **arguments: Any) -> list[Row]:
    """Scores of one engine; those of all of them are read once."""
    rows = await _scores(info.context, arguments)
    return [row for row in rows if row["engine"] == engine["name"]]


async def _scores(context: Context, arguments: Mapping[str, Any]) -> list[Row]:
    period = arguments.get("period")
    asked: Asked = (
        checked(arguments["symbol"]),
        arguments.get("from"),
        arguments.get("to"),
        None if period is None else read_period("period", period),
        arguments["by_regime"],
    )

    async def read(keys: list[Asked]) -> dict[Asked, list[Row]]:
        return {key: await _read_scores(context, key) for key in keys}

    return await batch_of(context.memo, "scores", read).load(asked)


async def _read_scores(context: Context, asked: Asked) -> list[Row]:
    symbol, start, end, period, by_regime = asked
    services = context.services

    async def load() -> list[Row]:
        async with services.postgres() as pool:
            return await stored_scores(pool, symbol, start, end, period=period, by_regime=by_regime)

    part = f"{start}:{end}:{period}:{by_regime}"
    rows = await services.manager.read(METRICS, symbol, load, part)
    context.latest.cache_away |= services.manager.away
    return [{**row, "symbol": symbol} for row in rows]


@query.field("positions")
async def resolve_positions(
    _: None,
    info: Info,
    names: list[str] | None = None,
    first: int | None = None,
    after: str | None = None,
) -> list[Row]:
    """The books of a page of symbols."""
    page = await page_of_names(info.context, names, first, after)
    found = await asyncio.gather(*(_position(info.context, name) for name in page))
    return [row for row in found if row is not None]


@symbol_type.field("position")
async def resolve_position(symbol: Row, info: Info) -> Row | None:
    """The book of one symbol."""
    return await _position(info.context, symbol["name"])


async def _position(context: Context, symbol: str) -> Row | None:
    stages = ("equity", "fills", "bars")
    beat, fill, bar = await asyncio.gather(*(context.latest.wait(s, symbol) for s in stages))
    return position_of(symbol, beat, fill, bar)


def position_of(symbol: str, beat: Row | None, fill: Row | None, bar: Row | None) -> Row | None:
    """A book as it stands, of the newest rows of `equity`, `fills` and `bars`.

    A fill behind the last beat has moved position and cash; a bar behind it has moved the price.
    """
    book = max((row for row in (beat, fill) if row is not None), key=_place, default=None)
    if book is None:
        return None
    marks = [(_place(row), row[name]) for row, name in ((beat, "mark"), (bar, "close")) if row]
    mark = max(marks, key=lambda pair: pair[0])[1] if marks else None
    quantity, cash = book["position"], book["cash"]
    value = None if quantity is None or mark is None else quantity * mark
    totals = {name: beat and beat[name] for name in ("pnl", "fees", "traded")}
    return {
        "symbol": symbol,
        "ts": max(row["ts"] for row in (beat, fill, bar) if row is not None),
        "quantity": quantity,
        "mark": mark,
        "value": value,
        "cash": cash,
        "equity": None if value is None or cash is None else cash + value,
        **totals,
    }


def _place(row: Row) -> tuple[int, int, int]:
    return row["partition"], row["offset"], row["index"]


BINDABLES: Final = [query, engine_type, symbol_type]
