"""Alarms of drift by GraphQL, and how the watching stands in /readyz."""

from collections.abc import AsyncIterator

import httpx
import pytest

from pipeline.cache.latest import DRIFT, open_cache
from pipeline.settings import Settings, StoreSettings
from pipeline.store import drift
from pipeline.store.places import Kept
from pipeline.store.pool import open_pool
from tests.integration.api.conftest import ask, served

LIST = """query ($first: Int, $symbol: String) {
  drift(first: $first, symbol: $symbol) {
    kind name symbol change since ts partition offset index evidence looked stride foundAt
  }
}"""
TS = 1_767_605_400_123_456_789  # 2026-01-05T09:30:00.123456789Z


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API whose database has two alarms."""
    assert settings.postgres is not None
    pool = await open_pool(settings.postgres, StoreSettings())
    alarms = [
        {
            "kind": kind, "name": name, "symbol": symbol, "change": "higher", "since": TS - 10**9,
            "ts": TS, "partition": 1, "offset": 2**60, "index": 3, "evidence": 1234.5,
            "looked": 2**40, "stride": 7,
        }
        for kind, name, symbol in (("feature", "ret_1", "A"), ("engine", "combined", "B"))
    ]  # fmt: skip
    for generation, alarm in enumerate((*alarms, alarms[0])):  # one of them again
        await drift.keep(pool, "live", 0, Kept(generation, {}, b""), [alarm])
    await pool.close()
    async with served(settings) as found:
        yield found


async def test_alarms_are_listed_newest_first(client: httpx.AsyncClient) -> None:
    """Each once, with the nanoseconds of its times; some of them on demand."""
    rows = (await ask(client, LIST))["data"]["drift"]
    assert [row["symbol"] for row in rows] == ["B", "A"]
    assert rows[1].pop("foundAt").endswith("Z")
    assert rows[1] == {
        "kind": "feature",
        "name": "ret_1",
        "symbol": "A",
        "change": "higher",
        "since": "2026-01-05T09:29:59.123456789Z",
        "ts": "2026-01-05T09:30:00.123456789Z",
        "partition": 1,
        "offset": str(2**60),
        "index": 3,
        "evidence": 1234.5,
        "looked": str(2**40),
        "stride": 7,
    }
    for arguments, count in (({"first": 1}, 1), ({"symbol": "A"}, 1), ({"symbol": "none"}, 0)):
        assert len((await ask(client, LIST, **arguments))["data"]["drift"]) == count
    for wrong in ({"first": 501}, {"first": -1}, {"symbol": "A\0"}):
        answer = await ask(client, LIST, **wrong)
        assert answer["errors"][0]["extensions"] == {"code": "BAD_INPUT"}


async def test_series_are_listed(client: httpx.AsyncClient, settings: Settings) -> None:
    """As the last turn left them, of this live run; some of them on demand."""
    assert settings.postgres is not None
    pool = await open_pool(settings.postgres, StoreSettings())
    series = [
        {
            "kind": kind, "name": "x", "symbol": symbol, "state": state, "stride": 3,
            "looked": 2**40, "evidence": 1.5, "alarms": 2,
        }
        for kind, symbol, state in (("feature", "B", "unfit"), ("engine", "A", "watched"))
    ]  # fmt: skip
    group = settings.worker.group
    for service in (group, "another"):
        await drift.keep(pool, service, 7, Kept(0, {}, b""), [], series)
    await pool.close()
    query = """query ($first: Int, $symbol: String, $state: DriftState) {
      driftSeries(first: $first, symbol: $symbol, state: $state) {
        kind name symbol partition state stride looked evidence alarms keptAt
      }
    }"""
    rows = (await ask(client, query))["data"]["driftSeries"]
    assert [row["symbol"] for row in rows] == ["A", "B"]
    assert rows[0].pop("keptAt").endswith("Z")
    assert rows[0] == {
        "kind": "engine", "name": "x", "symbol": "A", "partition": 7, "state": "WATCHED",
        "stride": 3, "looked": str(2**40), "evidence": 1.5, "alarms": "2",
    }  # fmt: skip
    for arguments, count in (({"first": 1}, 1), ({"symbol": "B"}, 1), ({"state": "MEASURED"}, 0)):
        assert len((await ask(client, query, **arguments))["data"]["driftSeries"]) == count
    for wrong in ({"first": 501}, {"symbol": "A\0"}):
        answer = await ask(client, query, **wrong)
        assert answer["errors"][0]["extensions"] == {"code": "BAD_INPUT"}


async def test_readiness_tells_the_last_turn(client: httpx.AsyncClient, settings: Settings) -> None:
    """A change of the market is told and not amiss; a turn that looked at nothing is."""
    assert settings.redis is not None
    opened = open_cache(settings.redis, settings.cache)
    for state, ok in (("steady", True), ("drifted", True), ("not checked", False)):
        await opened.keep_state(DRIFT, {"state": state, "alerts": 2, "ts": TS}, 60.0)
        answer = (await client.get("/readyz")).json()
        assert answer["status"] == "ready"
        told = answer["checks"][DRIFT]
        assert (told["ok"], told["state"], told["alerts"]) == (ok, state, 2)
    await opened.close()
