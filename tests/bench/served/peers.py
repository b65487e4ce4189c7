"""The same question answered by others: Ariadne as installed, and routes written by hand.

`python -m tests.bench.served.peers KIND PORT REDIS`; the rows are in Redis as JSON, eight columns
each, and a request names the symbols it wants.
"""

import argparse
import json
from typing import Any, Final

import redis.asyncio as aioredis
import uvicorn
from ariadne import QueryType, make_executable_schema
from ariadne.asgi import GraphQL
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

COLUMNS: Final = ("symbol", "ts", "rsi14", "macdHist", "ewmaVol", "ret20", "momentum20", "drawdown")
ROW: Final = {"ts": "2026-01-05T09:30:04.000000000Z", **dict.fromkeys(COLUMNS[2:], 101.25)}
KINDS: Final = ("ariadne", "starlette", "starlette-memory")
_SDL: Final = f"""
type Row {{ symbol: String! ts: String! {" ".join(f"{name}: Float" for name in COLUMNS[2:])} }}
type Query {{ latest(symbols: [String!]!): [Row!]! }}
"""
QUERY: Final = f"query($s: [String!]!) {{ latest(symbols: $s) {{ {' '.join(COLUMNS)} }} }}"
Row = dict[str, Any]


def key_of(symbol: str) -> str:
    """The key of a symbol's row."""
    return f"peer:{symbol}"


def row_of(symbol: str) -> Row:
    """Its row."""
    return {"symbol": symbol, **ROW}


def application(kind: str, url: str) -> Any:
    """One of the servers."""
    client = aioredis.Redis.from_url(url, max_connections=32)

    async def latest(symbols: list[str]) -> list[Row]:
        if kind.endswith("memory"):
            return [row_of(symbol) for symbol in symbols]
        texts = await client.mget([key_of(symbol) for symbol in symbols])
        return [json.loads(text or b"null") for text in texts]

    if kind == "ariadne":
        query = QueryType()

        @query.field("latest")
        async def resolve(_: None, _info: Any, symbols: list[str]) -> list[Row]:
            return await latest(symbols)

        return GraphQL(make_executable_schema(_SDL, query))

    async def route(request: Request) -> JSONResponse:
        body = await request.json()
        return JSONResponse({"data": {"latest": await latest(body["variables"]["s"])}})

    return Starlette(routes=[Route("/", route, methods=["POST"])])


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("redis")
    asked = parser.parse_args()
    uvicorn.run(
        application(asked.kind, asked.redis),
        port=asked.port,
        log_level="error",
        access_log=False,
        lifespan="off",
    )


if __name__ == "__main__":
    main()
