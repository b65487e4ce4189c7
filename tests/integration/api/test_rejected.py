"""Rejected messages by GraphQL: looked at and published again, byte for byte."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bus.topics import ensure_topics, offset_bounds
from pipeline.servers import Addresses
from pipeline.settings import Settings, StoreSettings, TopicSettings
from pipeline.store.pool import Pool, open_pool
from schemas.topics import PRICES
from tests.integration.api.conftest import ask, served

REPLAY = """mutation ($messages: [RejectedPlace!]!, $again: Boolean! = false) {
  replayRejected(messages: $messages, again: $again) { published missing left }
}"""
LIST = """query ($first: Int, $partition: Int, $reason: String) {
  rejected(first: $first, partition: $partition, reason: $reason) {
    partition offset index symbol reason detail rejectedAt value size replayedAt replayedBy
  }
}"""
BYTES = b'{"symbol": "A", \xff\x00'
LONG = b"[" + b"9" * 5000
ROWS = [
    (0, 7, -1, "", "undecodable", "not JSON", BYTES),
    (1, 2**60, 3, "A", "late", "by 5 s", b'{"symbol":"A","ts":1,"price":1}'),
    (0, 9, 2, "B", "bad_time", "before 1971", LONG),
]


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    """The database of the API, with three rejected messages."""
    assert settings.postgres is not None
    opened = await open_pool(settings.postgres, StoreSettings())
    for number, row in enumerate(ROWS):
        await opened.execute(
            'INSERT INTO rejected (partition, "offset", "index", symbol, reason, detail, value,'
            " rejected_at, written_on) VALUES ($1, $2, $3, $4, $5, $6, $7,"
            " timestamptz '2026-01-05 09:30:00.123456Z' + $8 * interval '1 s', current_date)",
            *row,
            number,
        )
    yield opened
    await opened.close()


@pytest.fixture
async def client(
    settings: Settings, pool: Pool, addresses: Addresses
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with a broker."""
    del pool
    await ensure_topics(addresses.kafka, TopicSettings())
    async with served(settings.model_copy(update={"kafka": addresses.kafka})) as found:
        yield found


async def published(kafka: str, since: dict[int, tuple[int, int]]) -> dict[int, list[bytes]]:
    """What came on `prices` since then, by partition."""
    found: dict[int, list[bytes]] = {}
    ends = await offset_bounds(kafka, PRICES)
    if ends == since:  # a consumer that is stopped at once fails
        return found
    async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
        for partition, (_, begin) in since.items():
            place, end = TopicPartition(PRICES, partition), ends[partition][1]
            if end == begin:
                continue
            consumer.assign([place])
            consumer.seek(place, begin)
            while await consumer.position(place) < end:
                came = await consumer.getmany(place, timeout_ms=500)
                found.setdefault(partition, []).extend(one.value for one in came.get(place, []))
    return found


def place(row: int, **values: Any) -> dict[str, Any]:
    """Where a message came, as a client says it."""
    partition, offset, index = ROWS[row][:3]
    return {"partition": partition, "offset": str(offset), "index": index, **values}


async def test_they_are_listed_newest_first(client: httpx.AsyncClient) -> None:
    """With reason, detail, time and the beginning of their bytes as text."""
    rows = (await ask(client, LIST))["data"]["rejected"]
    assert [row["offset"] for row in rows] == ["9", str(2**60), "7"]
    assert rows[2] == {
        "partition": 0,
        "offset": "7",
        "index": -1,
        "symbol": "",
        "reason": "undecodable",
        "detail": "not JSON",
        "rejectedAt": "2026-01-05T09:30:00.123456000Z",
        "value": '{"symbol": "A", \ufffd\0',
        "size": len(BYTES),
        "replayedAt": None,
        "replayedBy": None,
    }
    assert (len(rows[0]["value"]), rows[0]["size"]) == (2000, 5001)
    for arguments, count in (
        ({"first": 1}, 1),
        ({"partition": 0}, 2),
        ({"reason": "late"}, 1),
        ({"reason": "nothing"}, 0),
    ):
        assert len((await ask(client, LIST, **arguments))["data"]["rejected"]) == count
    for wrong in ({"first": 501}, {"reason": "\0"}):
        answer = await ask(client, LIST, **wrong)
        assert answer["errors"][0]["extensions"] == {"code": "BAD_INPUT"}


async def test_they_are_published_as_they_came(
    client: httpx.AsyncClient, addresses: Addresses
) -> None:
    """Byte for byte, on their partitions, in order, each once; what is not there is counted."""
    before = await offset_bounds(addresses.kafka, PRICES)
    messages = [place(2), place(1), place(0), place(0), place(0, index=5), place(0, partition=9)]
    answer = await ask(client, REPLAY, messages=messages)
    assert answer == {"data": {"replayRejected": {"published": 3, "missing": 2, "left": 0}}}
    assert await published(addresses.kafka, before) == {0: [BYTES, LONG], 1: [ROWS[1][6]]}


async def test_what_was_published_again_is_left(
    client: httpx.AsyncClient, addresses: Addresses
) -> None:
    """It is shown when and by whom; asked again it is left, unless that is what is meant."""
    replayed = {"published": 1, "missing": 0, "left": 0}
    before = await offset_bounds(addresses.kafka, PRICES)
    answer = await ask(client, REPLAY, messages=[place(0)])
    assert answer == {"data": {"replayRejected": replayed}}
    rows = (await ask(client, LIST))["data"]["rejected"]
    assert [row["replayedBy"] for row in rows] == [None, None, "local"]
    assert rows[0]["replayedAt"] is None
    assert rows[2]["replayedAt"] > rows[2]["rejectedAt"]
    both = await asyncio.gather(
        *(ask(client, REPLAY, messages=[place(1), place(0), place(0, index=5)]) for _ in range(4))
    )
    counts = [answer["data"]["replayRejected"] for answer in both]
    assert sorted(one["published"] for one in counts) == [0, 0, 0, 1]
    assert {one["missing"] for one in counts} == {1}
    assert sorted(one["left"] for one in counts) == [1, 2, 2, 2]
    answer = await ask(client, REPLAY, messages=[place(0)], again=True)
    assert answer == {"data": {"replayRejected": replayed}}
    assert await published(addresses.kafka, before) == {0: [BYTES, BYTES], 1: [ROWS[1][6]]}


async def test_what_cannot_be_published_is_said(
    client: httpx.AsyncClient, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, too many, too large and impossible ones are refused, and nothing is sent."""
    before = await offset_bounds(addresses.kafka, PRICES)
    for messages, code in (
        ([], "BAD_INPUT"),
        ([place(0)] * 501, "BAD_INPUT"),
        ([place(0, offset="x")], "BAD_REQUEST"),
        ([place(0, offset=str(2**63))], "BAD_REQUEST"),
        ([place(0, offset=True)], "BAD_REQUEST"),
    ):
        answer = await ask(client, REPLAY, messages=messages)
        assert answer["errors"][0]["extensions"] == {"code": code}, messages
    monkeypatch.setattr("api.rejected.MAX_BYTES", 5000)
    answer = await ask(client, REPLAY, messages=[place(2)])
    assert answer["errors"][0]["extensions"] == {"code": "LIMITED"}
    assert await published(addresses.kafka, before) == {}


@pytest.mark.parametrize("kafka", [None, "127.0.0.1:1"])
async def test_a_broker_that_is_away_is_masked(
    settings: Settings, pool: Pool, kafka: str | None
) -> None:
    """The client learns that it is away, not where it was looked for."""
    del pool
    async with served(settings.model_copy(update={"kafka": kafka})) as client:
        answer = await ask(client, REPLAY, messages=[place(0)])
        rows = (await ask(client, LIST))["data"]["rejected"]
    assert answer["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
    assert "127.0.0.1" not in str(answer)
    assert [row["replayedAt"] for row in rows] == [None] * 3
