"""The rate of a principal: leased from a shared bucket, bounded here when that is away."""

import asyncio
from typing import Any

import httpx
import pytest

from api import rates as module
from api.errors import LimitedError
from api.principals import LOCAL, Principal
from api.rates import Rates
from pipeline.cache.buckets import Grant
from pipeline.errors import UnavailableError
from pipeline.settings import ApiSettings
from pipeline.store.keys import Role
from tests.unit.api.conftest import create
from tests.unit.api.test_rules import As
from tests.unit.api.test_websocket import ACK, ASK, INIT, Client, subscribe

ANN, BEN = Principal("key:ann", Role.READER), Principal("key:ben", Role.READER)


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time stands still unless told otherwise."""
    return Clock(monkeypatch)


class Bucket:
    """What Redis does, by tokens that a test puts in."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked: list[tuple[str, int]] = []
        self.away = False
        self.hangs = False

    async def lease(self, name: str, _rate: float, _burst: int, wanted: int) -> Grant:
        """Tokens, as long as there are some."""
        self.asked.append((name, wanted))
        if self.hangs:
            await asyncio.sleep(3600)
        if self.away:
            raise UnavailableError("away")
        granted = min(wanted, self.tokens)
        self.tokens -= granted
        return Grant(granted, 0.5)


def made(bucket: Bucket, rate: float | None = 100.0, burst: int = 50) -> Rates:
    """Rates over it."""
    return Rates(ApiSettings(rate=rate, burst=burst), bucket.lease)


async def spent(rates: Rates, times: int, principal: Principal = ANN) -> int:
    """How many of so many operations were let through."""
    count = 0
    for _ in range(times):
        try:
            await rates.spend(principal)
        except LimitedError:
            continue
        count += 1
    return count


async def test_a_lease_serves_many(clock: Clock) -> None:
    """Redis is asked once for each tenth of a second of the rate, and a little ahead."""
    del clock
    bucket = Bucket(1000)
    assert await spent(made(bucket), 20) == 20
    assert 2 <= len(bucket.asked) <= 5
    assert {wanted for _, wanted in bucket.asked} == {10}


async def test_an_empty_bucket_is_not_asked_by_every_request(clock: Clock) -> None:
    """What Redis has not, nobody gets; who asks again too early is told without asking it."""
    bucket = Bucket(12)
    rates = made(bucket)
    assert await spent(rates, 40) == 12
    asked = len(bucket.asked)
    with pytest.raises(LimitedError) as caught:
        await rates.spend(ANN)
    assert caught.value.seconds == pytest.approx(0.5)
    assert len(bucket.asked) == asked
    clock.now += 0.5
    bucket.tokens = 3
    assert await spent(rates, 10) == 3


async def test_principals_do_not_share(clock: Clock) -> None:
    """One who is limited limits nobody else."""
    del clock
    rates = made(Bucket(10_000), burst=5)
    assert await spent(rates, 10) == 5
    assert await spent(rates, 10, BEN) == 5


async def test_redis_away_leaves_the_local_limit(clock: Clock) -> None:
    """No open door: this process alone lets the rate and the burst through, and no more."""
    bucket = Bucket(0)
    bucket.away = True
    rates = made(bucket)
    assert await spent(rates, 200) == 50
    assert len(bucket.asked) == 1  # it is left alone for a second
    clock.now += 0.1
    assert await spent(rates, 200) == 10
    clock.now += 1.0
    bucket.away = False
    bucket.tokens = 7
    assert await spent(rates, 200) == 7


async def test_a_hanging_redis_holds_up_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request waits a moment, the next ones do not."""
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    bucket = Bucket(0)
    bucket.hangs = True
    rates = made(bucket)
    assert await spent(rates, 50) == 50
    assert len(bucket.asked) == 1
    await rates.close()


async def test_a_lease_is_void_after_a_second(clock: Clock) -> None:
    """Tokens that were leased long ago belong to nobody: other processes had no use of them."""
    bucket = Bucket(10)
    rates = made(bucket)
    assert await spent(rates, 1) == 1
    clock.now += 1.0
    assert await spent(rates, 5) == 0


async def test_many_at_once_share_one_lease(clock: Clock) -> None:
    """Thirty requests of one moment ask Redis a few times, not thirty."""
    del clock
    bucket = Bucket(1000)
    rates = made(bucket)
    await asyncio.gather(*(rates.spend(ANN) for _ in range(30)))
    assert len(bucket.asked) <= 3


async def test_no_limit_and_nobody_to_limit() -> None:
    """Without a rate, and where nobody is asked who he is, nothing is counted."""
    bucket = Bucket(0)
    assert await spent(made(bucket, rate=None), 100) == 100
    assert await spent(made(bucket), 100, LOCAL) == 100
    assert bucket.asked == []


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Principals that were not seen lately are forgotten."""
    monkeypatch.setattr(module, "_ACCOUNTS", 10)
    rates = made(Bucket(10_000))
    for number in range(30):
        await rates.spend(Principal(f"token:{number}", Role.READER))
    assert len(rates._accounts) == 10


async def test_a_client_is_told(services: Any, clock: Clock) -> None:
    """429 with the time to wait over HTTP; an error of the operation over WebSocket."""
    del clock
    endpoint = create(services, As(Role.READER), Bucket(2).lease)
    transport = httpx.ASGITransport(endpoint)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post("/", json=ASK)).status_code == 200
        socket = Client(endpoint)
        socket.send(INIT)
        socket.send(subscribe("1", ASK))
        assert [await socket.receive() for _ in range(4)][1] == ACK
        answer = await client.post("/", content=b"not even JSON")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["errors"][0]["extensions"] == {"code": "LIMITED"}
        socket.send(subscribe("2", ASK))
        refused = await socket.receive()
        assert (refused["id"], refused["type"]) == ("2", "error")
        assert refused["payload"][0]["extensions"] == {"code": "LIMITED"}
        await socket.leave()
