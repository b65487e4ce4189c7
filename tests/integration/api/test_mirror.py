"""The latest state from the memory of the process, over real Postgres and Valkey."""

import asyncio
from typing import Any, cast

import httpx
import pytest
from redis.asyncio import Redis

from api import instruments, mirror
from api.services import Services
from pipeline.cache.latest import entries
from pipeline.cache.manager import CacheManager
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import Settings
from tests.fixtures.rows import newest
from tests.integration.api.conftest import Feed, ask, make_rows, served

QUERY = """query ($names: [String!]) { symbols(names: $names) { name staleness
  price { price } bar { close n } signal { action offset } } }"""
NAMES = [f"S{number}" for number in range(8)]
LIVE = ("ticks", "bars", "signals")


def services_of(client: httpx.AsyncClient) -> Services:
    """The services of the application behind a client."""
    found: Services = cast("Any", client)._transport.app.state.services
    return found


async def prices(client: httpx.AsyncClient, names: list[str]) -> list[Any]:
    """The latest price of each symbol."""
    found = (await ask(client, QUERY, names=names))["data"]["symbols"]
    return [symbol["price"] and symbol["price"]["price"] for symbol in found]


async def mirrored(client: httpx.AsyncClient, stages: tuple[str, ...] = LIVE) -> None:
    """Ask until all of it is followed and kept."""
    feed = services_of(client).feed
    while not all(map(feed.life, stages)) or feed.age() > 1:
        await ask(client, QUERY, names=NAMES)
        await asyncio.sleep(0.01)
    for _ in range(2):
        await ask(client, QUERY, names=NAMES)


async def put(feed: Feed, offset: int, *names: str) -> None:
    """A tick, a bar and a signal of each symbol, stored and cached."""
    for name in names:
        await feed.put({stage: make_rows(stage, name, 1, offset) for stage in LIVE}, [name])


async def told(client: httpx.AsyncClient, name: str, price: float) -> None:
    """Wait until a latest price is served; the time limit of the test ends it."""
    while (await prices(client, [name])) != [price]:  # noqa: ASYNC110 -- only the feed knows
        await asyncio.sleep(0.005)


async def commands(settings: Settings) -> int:
    """Reads that the cache was asked for since it was started."""
    assert settings.redis is not None
    async with Redis.from_url(settings.redis) as client:
        stats = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("mget", "get"))


async def test_a_thousand_queries_touch_no_server(
    settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 queries of the latest state reach neither Postgres nor the cache, and are right."""
    for module in (mirror, instruments):  # a machine that stops for a second is not our concern
        monkeypatch.setattr(module, "STALE", 3600.0)
    await put(feed, 3, *NAMES)
    async with served(settings) as client:
        await mirrored(client)
        pool = services_of(client)._pool
        assert pool is not None
        before = (pool.figures.acquired, pool.figures.statements, await commands(settings))
        for number in range(1000):
            # By name, by page, and one by one.
            if number % 4 == 3:
                query = '{ symbol(name: "S3") { price { price } signal { action } } }'
                answer = await ask(client, query)
                wanted = {"price": {"price": 3.5}, "signal": {"action": "HOLD"}}
                assert answer == {"data": {"symbol": wanted}}
            else:
                assert await prices(client, NAMES) == [3.5] * 8
        after = (pool.figures.acquired, pool.figures.statements, await commands(settings))
    assert after == before


async def test_what_is_published_is_served(settings: Settings, feed: Feed) -> None:
    """New rows, first rows and new symbols appear without a read; their age is told."""
    await put(feed, 1, "S0", "S1")
    async with served(settings) as client:
        await mirrored(client)
        assert await prices(client, NAMES) == [1.5, 1.5]
        await put(feed, 2, "S0")
        await told(client, "S0", 2.5)
        await put(feed, 1, "S2")
        await told(client, "S2", 1.5)
        await feed.put({"fills": make_rows("fills", "S0", 1, 2)}, [])
        query = "{ symbols { name staleness price { price } } }"
        answer = await ask(client, query)
        assert [one["name"] for one in answer["data"]["symbols"]] == ["S0", "S1", "S2"]
        assert all(0 < one["staleness"] <= 1 for one in answer["data"]["symbols"])
        assert "extensions" not in answer


async def test_a_gap_is_closed_by_reading(settings: Settings, feed: Feed) -> None:
    """What was cached while the subscription was broken is served as soon as it is asked for."""
    await put(feed, 1, "S0")
    async with served(settings) as client:
        await mirrored(client)
        for offset in range(2, 12):
            await feed.cache.client.client_kill_filter(_type="pubsub")
            while services_of(client).feed.life("ticks"):  # noqa: ASYNC110 -- only the feed knows
                await asyncio.sleep(0.001)
            await put(feed, offset, "S0")
            answer = await ask(client, QUERY, names=["S0"])
            (symbol,) = answer["data"]["symbols"]
            assert (symbol["price"]["price"], symbol["staleness"]) == (offset + 0.5, 0)
            assert await prices(client, ["S0"]) == [offset + 0.5]
            await mirrored(client)
            assert await prices(client, ["S0"]) == [offset + 0.5]


async def test_a_cache_that_is_behind_is_not_believed(
    settings: Settings, feed: Feed, valkey_server: ValkeyServer
) -> None:
    """A cache that comes back with less than was served before: Postgres is asked."""
    await put(feed, 5, "S0")
    async with served(settings) as client:
        await mirrored(client)
        assert await prices(client, ["S0"]) == [5.5]
        valkey_server.kill()
        await asyncio.to_thread(valkey_server.start)
        # As from a copy of a moment ago.
        old = newest(make_rows("ticks", "S0", 1, 3))
        while not await feed.cache.put(entries("ticks", old)):  # noqa: ASYNC110 -- only it knows
            await asyncio.sleep(0.01)
        for _ in range(3):
            assert await prices(client, ["S0"]) == [5.5]
            await mirrored(client)


async def test_a_new_beginning_is_believed(settings: Settings, feed: Feed) -> None:
    """Where the cache was emptied and Postgres has lower rows only, these are the latest."""
    await put(feed, 50, "S0")
    async with served(settings) as client:
        await mirrored(client)
        assert await prices(client, ["S0"]) == [50.5]
        pool = services_of(client)._pool
        assert pool is not None
        await pool.execute("DELETE FROM ticks")
        await feed.cache.client.flushdb()
        for offset in (1, 2):
            await put(feed, offset, "S0")
            await told(client, "S0", offset + 0.5)


async def test_what_was_forgotten_is_read_again(settings: Settings, feed: Feed) -> None:
    """Who drops values from the cache reaches the copies of all processes."""
    await put(feed, 5, "S0", "S1")
    async with served(settings) as client, served(settings) as other:
        for one in (client, other):
            await mirrored(one)
        pool = services_of(client)._pool
        assert pool is not None
        await pool.execute("UPDATE ticks SET price = 42 WHERE symbol = 'S0'")
        assert await prices(client, ["S0", "S1"]) == [5.5, 5.5]
        await CacheManager(feed.cache).invalidate_symbol("S0")
        for one in (client, other):
            await told(one, "S0", 42)
            assert await prices(one, ["S1"]) == [5.5]


@pytest.mark.parametrize("most", [0, 3])
async def test_the_copy_is_bounded(settings: Settings, feed: Feed, most: int) -> None:
    """More symbols than are kept are served all the same, always the newest rows."""
    api = settings.api.model_copy(update={"copied_symbols": most})
    await put(feed, 1, *NAMES)
    async with served(settings.model_copy(update={"api": api})) as client:
        for offset in range(2, 6):
            await put(feed, offset, *NAMES)
            for name in NAMES:
                await told(client, name, offset + 0.5)
            assert len(services_of(client).mirror) == most


async def test_two_processes_agree(settings: Settings, feed: Feed) -> None:
    """A row that one process found in Postgres before it was cached reaches the other as well."""
    await put(feed, 1, "S0")
    async with served(settings) as client, served(settings) as other:
        for one in (client, other):
            await mirrored(one)
        rows = {"ticks": make_rows("ticks", "S1", 1, 2)}
        await feed.commit(rows, ["S1"])
        assert await prices(client, ["S1"]) == [2.5]  # and has put it into the cache
        query = '{ symbol(name: "S1") { bar { close } price { price } } }'
        assert (await ask(other, query))["data"]["symbol"]["price"] == {"price": 2.5}
        await feed.cache_only(rows)
        newer = {"ticks": make_rows("ticks", "S1", 1, 3)}
        await feed.put(newer, [])
        for one in (client, other):
            await told(one, "S1", 3.5)
