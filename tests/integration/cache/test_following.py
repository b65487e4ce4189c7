"""The feed of what becomes the latest, over a real Valkey: whole, or it says that it is not."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from pipeline.cache import following
from pipeline.cache.following import Feed
from pipeline.cache.latest import Cache, Entry, channel_of, encode, open_cache
from pipeline.errors import UnavailableError
from pipeline.servers import Addresses
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import CacheSettings
from tests.integration.cache.told import Told, followed, running


def entry(stage: str, offset: int) -> Entry:
    """A row of A."""
    text = encode({"partition": 0, "offset": offset, "index": 0, "symbol": "A"})
    return f"{stage}:A", text, channel_of(stage)


async def test_only_what_is_newer_is_told(cache: Cache) -> None:
    """Each new latest value once, in order, of the stages that are followed."""
    async with followed(cache, ["bars", "signals"]) as told:
        for offset in (5, 3, 5, 7, 6, 8):
            await cache.put([entry("bars", offset)])
        await cache.put([entry("ticks", 1), entry("signals", 99)])
        await told.until(lambda: ("signals", 99) in told.rows)
    assert told.rows == [("bars", 5), ("bars", 7), ("bars", 8), ("signals", 99)]


async def test_a_quiet_feed_proves_that_it_is_whole(cache: Cache) -> None:
    """Without a single message it is known again and again that none is missing."""
    feed = Feed(cache, Told(), ["bars"])
    assert feed.age() == float("inf")
    async with running(feed):
        await Told().until(lambda: feed.age() < 1)
        life = feed.life("bars")
        assert life > 0
        for _ in range(3):
            before = feed.age()
            await Told().until(lambda before=before: feed.age() < before)  # type: ignore[misc]  # a default binds the loop's value
        assert feed.life("bars") == life
    assert (feed.life("bars"), feed.age()) == (0, float("inf"))


async def test_stages_are_followed_while_they_are_wanted(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage is followed from soon after it was asked for until nobody asks any more."""
    told = Told()
    feed = Feed(cache, told)
    async with running(feed):
        await told.until(lambda: feed.age() < 1)
        await cache.put([entry("bars", 1)])
        assert feed.life("bars") == 0
        feed.want("bars")
        await told.until(lambda: feed.life("bars") > 0)
        life = feed.life("bars")
        await cache.put([entry("bars", 2)])
        await told.until(lambda: told.rows == [("bars", 2)])
        monkeypatch.setattr(following, "_UNWANTED", 0.0)
        await told.until(lambda: feed.life("bars") == 0)
        await cache.put([entry("bars", 3)])
        monkeypatch.setattr(following, "_UNWANTED", 60.0)
        feed.want("bars")
        await told.until(lambda: feed.life("bars") > 0)
        assert feed.life("bars") != life
        await cache.put([entry("bars", 4)])
        await told.until(lambda: ("bars", 4) in told.rows)
    assert told.rows == [("bars", 2), ("bars", 4)]


async def test_stages_are_followed_while_they_are_held(cache: Cache) -> None:
    """From soon after the first holder came until the last one has gone, and no longer."""
    told = Told()
    feed = Feed(cache, told)
    async with running(feed):
        with feed.holding("bars"):
            await told.until(lambda: feed.life("bars") > 0)
            life = feed.life("bars")
            with feed.holding("bars"), feed.holding("ticks"):
                await told.until(lambda: feed.life("ticks") > 0)
            await told.until(lambda: feed.life("ticks") == 0)
            assert feed.life("bars") == life
            await cache.client.client_kill_filter(_type="pubsub")
            await told.until(lambda: feed.life("bars") not in {0, life})
            await cache.put([entry("bars", 1), entry("ticks", 1)])
            await told.until(lambda: bool(told.rows))
        await told.until(lambda: feed.life("bars") == 0)
    assert told.rows == [("bars", 1)]


@pytest.mark.parametrize("by", ["server", "client"])
async def test_a_lost_connection_is_a_gap(cache: Cache, by: str) -> None:
    """Cut by the server, or opened again by the driver: the stage has another life."""
    told = Told()
    feed = Feed(cache, told, ["bars"])
    async with running(feed):
        await told.until(lambda: feed.age() < 1)
        for offset in range(1, 4):
            life = feed.life("bars")
            if by == "server":
                await cache.client.client_kill_filter(_type="pubsub")
            else:
                for connection in list(cache.client.connection_pool._in_use_connections):
                    await connection.disconnect()
            await cache.put([entry("bars", 2 * offset)])
            await told.until(lambda life=life: feed.life("bars") not in {0, life})  # type: ignore[misc]  # a default binds the loop's value
            await cache.put([entry("bars", 2 * offset + 1)])
            await told.until(lambda offset=offset: ("bars", 2 * offset + 1) in told.rows)  # type: ignore[misc]  # a default binds the loop's value


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey that may be stopped."""
    with ValkeyServer(tmp_path_factory.mktemp("following")) as server:
        yield server


async def test_a_server_that_hangs_is_noticed(valkey: ValkeyServer) -> None:
    """A connection that is open and brings nothing proves nothing; it is given up."""
    told = Told()
    cache = open_cache(valkey.address, CacheSettings())
    feed = Feed(cache, told, ["bars"])
    async with running(feed):
        await told.until(lambda: feed.age() < 1)
        life = feed.life("bars")
        process = psutil.Process(valkey.pid)
        process.suspend()
        await told.until(lambda: feed.age() > 1)
        await told.until(lambda: feed.life("bars") == 0)
        process.resume()
        await told.until(lambda: feed.life("bars") > life and feed.age() < 1)
        await cache.put([entry("bars", 7)])
        await told.until(lambda: told.rows == [("bars", 7)])
        valkey.kill()
        await told.until(lambda: feed.life("bars") == 0)
        await asyncio.to_thread(valkey.start)
        await told.until(lambda: feed.life("bars") > 0)
        while ("bars", 8) not in told.rows:
            with suppress(UnavailableError):
                await cache.put([entry("bars", 8)])
            await asyncio.sleep(0.01)
    await cache.close()


async def test_what_is_no_row_is_passed_over(cache: Cache) -> None:
    """Whatever somebody else publishes on our channels, the feed goes on."""
    async with followed(cache, ["bars"]) as told:
        for channel in (channel_of("bars"), "forgotten"):
            for text in (b"", b"{", b"[]", b"7", b"null", b'{"offset":{}}', b"\xff"):
                await cache.client.publish(cache.channel(channel), text)
        await cache.put([entry("bars", 1)])
        await told.until(lambda: ("bars", 1) in told.rows)


async def test_another_logical_database_is_another_feed(cache: Cache, addresses: Addresses) -> None:
    """Keys of two databases of one server are not the same, and so are their channels."""
    other = open_cache(addresses.redis.rsplit("/", 1)[0] + "/14", CacheSettings())
    await other.client.flushdb()
    async with followed(cache, ["bars"]) as told:
        await other.put([entry("bars", 5)])
        await cache.put([entry("bars", 6)])
        await told.until(lambda: bool(told.rows))
    assert told.rows == [("bars", 6)]
    await other.close()


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_when_it_is_told_to(cache: Cache, turns: int) -> None:
    """Also in any of the turns of the loop in which it hears that another stage is wanted."""
    feed = Feed(cache, Told())
    task = asyncio.create_task(feed.run())
    await Told().until(lambda: feed.age() < 1)
    feed.want("bars")
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    assert await asyncio.wait([task], timeout=10) == ({task}, set())
    assert task.cancelled()
