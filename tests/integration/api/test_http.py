"""The API over real Postgres and Valkey, without a socket."""

import asyncio
from typing import Any, cast

import pytest

from api.names import LATEST, camel
from pipeline.servers.postgres import PostgresServer
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import Settings
from schemas.blocks import COLUMNS, STAGES
from tests.integration.api.conftest import Feed, ask, becomes, make_rows, served


def everything() -> str:
    """A query for every column of every stage."""
    parts = [
        f"{LATEST[stage]} {{ {' '.join(camel(c.name) for c in COLUMNS[stage])} }}"
        for stage in STAGES
    ]
    return f"{{ symbols {{ name {' '.join(parts)} }} }}"


@pytest.mark.parametrize("cached", [True, False])
async def test_every_column_of_every_stage_is_served(
    settings: Settings, feed: Feed, cached: bool
) -> None:
    """The newest row of each stage is served whole, the same from the cache and from Postgres."""
    rows = {stage: make_rows(stage, "BTCUSDT", 5) for stage in STAGES}
    rows["features"].columns["bar_ret_1"][:] = float("nan")
    await (feed.put if cached else feed.commit)(rows, ["BTCUSDT"])
    async with served(settings) as client:
        answer = await ask(client, everything())
    assert "errors" not in answer
    (symbol,) = answer["data"]["symbols"]
    for stage in STAGES:
        row = symbol[LATEST[stage]]
        assert (row["partition"], row["offset"], row["index"]) == (0, "4", 0)
        assert row["symbol"] == "BTCUSDT"
        assert row["ts"] == "2026-01-05T09:30:04.000000000Z"
        assert row["knownAt"] == "2026-01-05T09:30:04.000000001Z"
    assert symbol["price"]["price"] == 4.5
    assert symbol["price"]["id"] is None
    assert symbol["bar"]["execTs"] is None
    assert symbol["features"]["barRet1"] is None
    assert symbol["signal"]["action"] == "BUY"
    assert symbol["regime"]["vol"] == "MID"


async def test_one_symbol(settings: Settings, feed: Feed) -> None:
    """A symbol is found by name from its first row on; unknown ones are null."""
    async with served(settings) as client:
        query = "query ($name: String!) { symbol(name: $name) { name price { price } bar { n } } }"
        assert await ask(client, query, name="A") == {"data": {"symbol": None}}
        await feed.put({"ticks": make_rows("ticks", "A", 1)}, ["A"])
        wanted = {"name": "A", "price": {"price": 0.5}, "bar": None}
        assert await ask(client, query, name="A") == {"data": {"symbol": wanted}}


async def test_symbols_by_pages(settings: Settings, feed: Feed) -> None:
    """Symbols come sorted, as many as asked for, behind a name, or those named."""
    await feed.commit({}, [f"S{number}" for number in (3, 1, 2)])
    async with served(settings) as client:
        for arguments, names in {
            "": ["S1", "S2", "S3"],
            "(first: 2)": ["S1", "S2"],
            '(first: 2, after: "S2")': ["S3"],
            '(names: ["S3", "nobody", "S1"])': ["S1", "S3"],
        }.items():
            answer = await ask(client, f"{{ symbols{arguments} {{ name }} }}")
            assert [symbol["name"] for symbol in answer["data"]["symbols"]] == names
        answer = await ask(client, "{ symbols(first: 501) { name } }")
        assert answer["errors"][0]["extensions"] == {"code": "BAD_INPUT"}


PAGES = """
query ($from: DateTime, $to: DateTime, $first: Int, $after: String, $last: Int, $before: String) {
  bars(symbol: "A", from: $from, to: $to,
       first: $first, after: $after, last: $last, before: $before) {
    edges { cursor node { offset ts } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


@pytest.mark.parametrize(("size", "turn"), [("first", "after"), ("last", "before")])
async def test_history_by_pages(settings: Settings, feed: Feed, size: str, turn: str) -> None:
    """Both ways through the history give each row of the range once, with right page info."""
    await feed.put({"bars": make_rows("bars", "A", 25)}, ["A"])
    await feed.put({"bars": make_rows("bars", "B", 25, 25)}, ["B"])
    range_of = {"from": "2026-01-05T09:30:05Z", "to": "2026-01-05T10:30:22.5+01:00"}
    found: list[int] = []
    cursor = None
    async with served(settings) as client:
        for number in range(5):
            answer = await ask(client, PAGES, **range_of, **{size: 4, turn: cursor})
            page = answer["data"]["bars"]
            info = page["pageInfo"]
            offsets = [int(edge["node"]["offset"]) for edge in page["edges"]]
            found = found + offsets if size == "first" else offsets + found
            at_start, at_end = (number == 0, number == 4)
            if size == "last":
                at_start, at_end = at_end, at_start
            assert info["hasPreviousPage"] is not at_start
            assert info["hasNextPage"] is not at_end
            assert info["startCursor"] == page["edges"][0]["cursor"]
            assert info["endCursor"] == page["edges"][-1]["cursor"]
            cursor = info["endCursor" if size == "first" else "startCursor"]
    assert found == list(range(5, 23))


@pytest.mark.parametrize("stage", STAGES)
async def test_every_stage_has_a_history(settings: Settings, feed: Feed, stage: str) -> None:
    """Each stage is read by time range, empty where there is nothing."""
    field = "prices" if stage == "ticks" else stage
    await feed.put({stage: make_rows(stage, "A", 3)}, ["A"])
    async with served(settings) as client:
        for name, count in (("A", 3), ("B", 0)):
            query = f'{{ {field}(symbol: "{name}") {{ edges {{ node {{ ts }} }} }} }}'
            answer = await ask(client, query)
            assert len(answer["data"][field]["edges"]) == count


async def test_the_cache_goes_and_comes(
    settings: Settings, feed: Feed, valkey_server: ValkeyServer
) -> None:
    """Without Valkey the rows come from Postgres and the response says so; then it heals."""
    await feed.put({"ticks": make_rows("ticks", "A", 2)}, ["A"])
    query = '{ symbol(name: "A") { price { price } } }'
    data = {"symbol": {"price": {"price": 1.5}}}
    async with served(settings) as client:
        assert await ask(client, query) == {"data": data}
        valkey_server.kill()
        while "extensions" not in (answer := await ask(client, query)):
            assert answer == {"data": data}  # it has not been noticed yet
        for _ in range(3):
            answer = await ask(client, query)
            assert answer == {"data": data, "extensions": {"cache": "unavailable"}}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"]["redis"] == {"ok": False, "error": "it does not answer"}
        await asyncio.to_thread(valkey_server.start)
        assert await becomes(client, "ready")
        await asyncio.sleep(1.1)
        assert await ask(client, query) == {"data": data}


async def test_the_cache_is_restarted_while_nobody_asks(
    settings: Settings, feed: Feed, valkey_server: ValkeyServer
) -> None:
    """Connections that died while they were idle are opened again by the next requests."""
    await feed.put({"ticks": make_rows("ticks", "A", 2)}, ["A"])
    query = '{ symbol(name: "A") { price { price } bar { n } } }'
    wanted = {"data": {"symbol": {"price": {"price": 1.5}, "bar": None}}}
    async with served(settings) as client:
        for _ in range(3):
            answers = await asyncio.gather(*[ask(client, query) for _ in range(32)])
            assert answers == [wanted] * 32
            await asyncio.to_thread(valkey_server.restart)


async def test_what_was_read_is_cached(settings: Settings, feed: Feed) -> None:
    """What Postgres was asked for once, the cache knows: rows, and that there are none."""
    await feed.commit({"ticks": make_rows("ticks", "A", 2)}, ["A"])
    query = '{ symbol(name: "A") { price { price } signal { action } } }'
    wanted = {"data": {"symbol": {"price": {"price": 1.5}, "signal": None}}}
    async with served(settings) as client:
        pool = cast("Any", client)._transport.app.state.services._pool
        assert await ask(client, query) == wanted
        before = pool.figures.acquired
        for _ in range(3):
            assert await ask(client, query) == wanted
        assert pool.figures.acquired == before
        await feed.put({"signals": make_rows("signals", "A", 2, 7)}, ["A"])
        found = (await ask(client, query))["data"]["symbol"]["signal"]
        assert found == {"action": "SELL"}


async def test_many_requests_at_once_are_served_by_the_cache(
    settings: Settings, feed: Feed
) -> None:
    """More requests at once than the cache has connections wait their turn."""
    await feed.put({"ticks": make_rows("ticks", "A", 2)}, ["A"])
    query = '{ symbol(name: "A") { price { price } bar { n } } }'
    async with served(settings) as client:
        answers = await asyncio.gather(*[ask(client, query) for _ in range(64)])
    assert answers == [{"data": {"symbol": {"price": {"price": 1.5}, "bar": None}}}] * 64


async def test_postgres_goes_and_comes(
    settings: Settings, feed: Feed, postgres_server: PostgresServer
) -> None:
    """Without Postgres the API answers UNAVAILABLE and is not ready; then it heals by itself."""
    await feed.put({"ticks": make_rows("ticks", "A", 2)}, ["A"])
    latest = '{ symbol(name: "A") { price { price } } }'
    history = '{ prices(symbol: "A") { edges { node { price } } } }'
    async with served(settings) as client:
        wanted = await ask(client, latest)
        postgres_server.kill()
        assert await ask(client, latest) == wanted  # the cache still has it
        for _ in range(2):
            answer = await ask(client, history)
            assert answer["data"] is None
            assert answer["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
            assert answer["errors"][0]["message"] == "Postgres is away; try again in a moment"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        await asyncio.to_thread(postgres_server.start)
        assert await becomes(client, "ready")
        answer = await ask(client, history)
        assert len(answer["data"]["prices"]["edges"]) == 2


async def test_startup_waits_for_postgres(
    settings: Settings, feed: Feed, postgres_server: PostgresServer
) -> None:
    """A server that is started before Postgres serves as soon as Postgres is there."""
    await feed.put({"ticks": make_rows("ticks", "A", 2)}, ["A"])
    postgres_server.kill()
    async with served(settings) as client:
        answer = await ask(client, "{ symbols { name } }")
        assert answer["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
        await asyncio.to_thread(postgres_server.start)
        assert await becomes(client, "ready")
        assert await ask(client, "{ symbols { name } }") == {"data": {"symbols": [{"name": "A"}]}}


async def test_a_database_without_tables(settings: Settings, bare: str) -> None:
    """A database that was never migrated says what to do."""
    async with served(settings.model_copy(update={"postgres": bare})) as client:
        message = "the database has no tables yet: run `tickstream migrate`"
        answer = await ask(client, "{ symbols { name } }")
        assert answer["errors"][0]["message"] == message
        assert (await client.get("/readyz")).json()["checks"]["postgres"]["error"] == message


async def test_other_origins_are_refused(settings: Settings) -> None:
    """A page of another origin, or a name that was made to resolve to us, gets 403."""
    async with served(settings) as client:
        for headers, status in (
            ({"origin": "https://evil.example"}, 403),
            ({"origin": "null"}, 403),
            ({"host": "evil.example"}, 403),
            ({"origin": "http://localhost:3000"}, 200),
            ({"host": "[::1]:8000"}, 200),
            ({"host": "127.0.0.1:8000"}, 200),
        ):
            assert (await client.get("/healthz", headers=headers)).status_code == status
