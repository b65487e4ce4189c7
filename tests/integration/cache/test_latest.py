"""The cache on a real Valkey: never back in time, fanned out, and away without a long wait."""

import asyncio
import random
import socket
from collections.abc import Sequence

import pytest

from pipeline.cache.latest import Cache, Entry, channel_of, encode, entries, open_cache
from pipeline.errors import UnavailableError
from pipeline.servers import Addresses
from pipeline.settings import CacheSettings
from pipeline.waiting import ended
from schemas.blocks import STAGES
from tests.fixtures.rows import newest, rows_of


def entry(key: str, identity: tuple[int, int, int]) -> Entry:
    """A value of this identity under a key."""
    names = ("partition", "offset", "index")
    return key, encode(dict(zip(names, identity, strict=True))), channel_of("bars")


def bar(symbol: str, offset: int, partition: int = 0) -> Entry:
    """A bar of a symbol."""
    key, value, channel = entry(f"bar:{symbol}", (partition, offset, 0))
    return key, value, channel


async def offset_of(cache: Cache, symbol: str = "A") -> tuple[int, int]:
    """Partition and offset of the cached bar."""
    row = (await cache.latest("bars", [symbol]))[symbol]
    return row["partition"], row["offset"]


async def test_shuffled_writes_end_with_the_newest(cache: Cache) -> None:
    """In any order and with repeats, one by one and many at once."""
    chance = random.Random(1)  # noqa: S311 -- an order, no secret
    identities = [(p, o, i) for p in (0, 1, 10) for o in (0, 9, 10, 2**40) for i in (0, 2, 11)]
    for repeat in range(3):
        chance.shuffle(identities)
        key = f"bar:S{repeat}"
        written = 0
        for identity in identities * 2:
            written += await cache.put([entry(key, identity)])
        found = (await cache.latest("bars", [f"S{repeat}"]))[f"S{repeat}"]
        assert (found["partition"], found["offset"], found["index"]) == max(identities)
        best, rises = (-1, -1, -1), 0
        for identity in identities:
            rises += identity > best
            best = max(best, identity)
        assert written == rises


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_call_ends(cache: Cache, turns: int) -> None:
    """In whichever turn of the loop it is told so, with whatever is under way then."""
    called = asyncio.Event()

    async def again_and_again() -> None:
        while True:
            await cache.put([bar("A", 1)])
            called.set()

    await cache.put([bar("A", 0)])  # the script is known and a connection open
    for _ in range(20):
        called.clear()
        task = asyncio.create_task(again_and_again())
        await called.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        over, _ = await asyncio.wait([task], timeout=1)
        await ended(task)
        assert over, "it went on"
        assert task.cancelled()


async def test_concurrent_writers_end_with_the_newest(cache: Cache, addresses: Addresses) -> None:
    """Two workers of one partition, one of them a zombie: the older value never wins."""
    url = addresses.redis.rsplit("/", 1)[0] + "/15"
    others = [open_cache(url, CacheSettings()) for _ in range(4)]
    offsets = list(range(400))
    random.Random(2).shuffle(offsets)  # noqa: S311 -- an order, no secret

    async def write(client: Cache, mine: Sequence[int]) -> None:
        for offset in mine:
            await client.put([bar(symbol, offset) for symbol in "ABC"])

    seen: list[tuple[int, int]] = []

    async def watch(done: asyncio.Event) -> None:
        while not done.is_set():
            if (await cache.latest("bars", ["A"])).get("A"):
                seen.append(await offset_of(cache))
            await asyncio.sleep(0)

    done = asyncio.Event()
    watcher = asyncio.create_task(watch(done))
    await asyncio.gather(*(write(client, offsets[i::4]) for i, client in enumerate(others)))
    done.set()
    await watcher
    for client in others:
        await client.close()
    assert [await offset_of(cache, symbol) for symbol in "ABC"] == [(0, 399)] * 3
    assert seen == sorted(seen)


async def test_many_entries_are_one_call(cache: Cache) -> None:
    """More entries than one script call takes: all are written, and counted."""
    found = [bar(f"S{i}", i) for i in range(2500)]
    assert await cache.put(found) == 2500
    assert await cache.put(found) == 0
    assert await cache.put([]) == 0
    rows = await cache.latest("bars", [f"S{i}" for i in range(2500)])
    assert [row["offset"] for row in rows.values()] == list(range(2500))


@pytest.mark.parametrize("stage", STAGES)
async def test_rows_of_a_stage_come_back(cache: Cache, stage: str) -> None:
    """The latest row of each symbol with all columns; others are left out."""
    documents = newest(rows_of(stage, range(5)))
    await cache.put(entries(stage, documents))
    found = await cache.latest(stage, ["A", "B", "C"])
    assert set(found) == {"A", "B"}
    for document in documents:
        kept = {k: v for k, v in found[document["symbol"]].items() if k != "at"}
        assert kept == document
    assert await cache.latest(stage, []) == {}


async def test_values_expire(cache: Cache, addresses: Addresses) -> None:
    """Each key carries the time to live of the settings, renewed by a newer value only."""
    url = addresses.redis.rsplit("/", 1)[0] + "/15"
    short = open_cache(url, CacheSettings(ttl=1))
    try:
        await cache.put([bar("A", 1), bar("B", 1)])
        await short.put([bar("A", 2), bar("B", 0)])
        assert 86_000 < await cache._client.ttl("bar:B") <= 86_400
        assert 0 <= await cache._client.ttl("bar:A") <= 1
        await asyncio.sleep(1.2)
        assert set(await cache.latest("bars", ["A", "B"])) == {"B"}
    finally:
        await short.close()


async def test_an_empty_cache_takes_anything(cache: Cache) -> None:
    """After a loss of all data even an old value is better than none."""
    await cache.put([bar("A", 5)])
    await cache._client.flushdb()
    assert await cache.put([bar("A", 3)]) == 1
    assert await offset_of(cache) == (0, 3)


async def test_a_state_is_told_for_a_time(cache: Cache) -> None:
    """The last one counts; it has a time to live; what nobody told is nothing."""
    assert await cache.state("parity") is None
    await cache.keep_state("parity", {"state": "equal", "alerts": 0}, 600.0)
    await cache.keep_state("parity", {"state": "differs", "alerts": 1}, 300.0)
    assert await cache.state("parity") == {"state": "differs", "alerts": 1}
    assert 0 < await cache._client.ttl("state:parity") <= 300
    assert await cache.state("other") is None


async def all_calls_fail(away: Cache) -> None:
    """Every call of the cache gives up with an UnavailableError."""
    for call in (
        lambda: away.put([bar("A", 1)]),
        lambda: away.latest("bars", ["A"]),
        away.ping,
        lambda: away.state("parity"),
        lambda: away.keep_state("parity", {}, 60.0),
    ):
        async with asyncio.timeout(60):  # else it hangs
            with pytest.raises(UnavailableError, match="Redis does not answer"):
                await call()
    await away.close()


async def test_a_cache_that_is_not_there_is_said_so() -> None:
    """Nobody listens at the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    await all_calls_fail(open_cache(f"redis://127.0.0.1:{port}/0", CacheSettings()))


async def test_a_cache_that_hangs_is_given_up() -> None:
    """A server that takes the connection and never answers holds nobody up."""
    stop = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        await all_calls_fail(open_cache(f"redis://127.0.0.1:{port}/0", CacheSettings()))
    finally:
        stop.set()
        server.close()
        await server.wait_closed()
