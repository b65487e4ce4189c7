"""Token buckets in a real Valkey."""

import asyncio

import pytest

from pipeline.cache.buckets import Buckets
from pipeline.cache.latest import Cache, open_cache
from pipeline.errors import UnavailableError
from pipeline.settings import CacheSettings


async def at_of(cache: Cache, name: str) -> int:
    """The time of a bucket's last change (us)."""
    return int(await cache.client.hget(f"rate:{name}", "at") or 0)


async def test_a_bucket_empties_and_fills(cache: Cache) -> None:
    """It begins full, gives whole tokens only, fills by its rate and never above its burst."""
    buckets = Buckets(cache)
    assert await buckets.lease("a", 10, 100, 60) == (60, 0.0)
    second = await buckets.lease("a", 10, 100, 60)
    assert second.tokens in range(40, 46)
    third = await buckets.lease("a", 10, 100, 60)
    assert third.tokens <= 5
    assert 0 < third.wait <= 0.1
    key = "rate:a"
    # An hour ago by the clock of the server, instead of an hour of waiting.
    at = await at_of(cache, "a") - 3_600_000_000
    await cache.client.hset(key, "at", at)
    full = await buckets.lease("a", 10, 100, 1000)
    assert full.tokens == 100
    assert full.wait == pytest.approx(0.1, abs=0.01)


async def test_no_token_is_given_twice(cache: Cache) -> None:
    """Many at once get together what the bucket holds."""
    buckets = Buckets(cache)
    grants = await asyncio.gather(*(buckets.lease("b", 0.001, 100, 7) for _ in range(50)))
    assert sum(grant.tokens for grant in grants) == 100


async def test_fractions_are_kept(cache: Cache) -> None:
    """Asking often does not lose what is less than a token."""
    buckets = Buckets(cache)
    await buckets.lease("c", 5, 1, 1)
    got = 0
    at = await at_of(cache, "c")
    for _ in range(10):
        at -= 50_000  # a quarter of a token each
        await cache.client.hset("rate:c", "at", at)
        got += (await buckets.lease("c", 5, 1, 1)).tokens
        at = await at_of(cache, "c")
    assert got >= 2


async def test_a_clock_that_steps_back_takes_nothing(cache: Cache) -> None:
    """After a failover to a server whose clock is behind, the bucket stands still."""
    buckets = Buckets(cache)
    await buckets.lease("d", 10, 100, 60)
    at = await at_of(cache, "d") + 3_600_000_000
    await cache.client.hset("rate:d", "at", at)
    assert (await buckets.lease("d", 10, 100, 60)).tokens == 40


async def test_a_bucket_that_is_full_again_is_forgotten(cache: Cache) -> None:
    """The key lives until it would be full, and a second more."""
    await Buckets(cache).lease("e", 10, 100, 1)
    assert 10_000 < await cache.client.pttl("rate:e") <= 11_000


async def test_an_absent_redis_is_said() -> None:
    """The caller has another limit then."""
    absent = open_cache("redis://127.0.0.1:1/0", CacheSettings(timeout=0.2))
    with pytest.raises(UnavailableError):
        await Buckets(absent).lease("f", 1, 1, 1)
    await absent.close()
