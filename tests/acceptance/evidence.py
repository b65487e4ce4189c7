"""What topics, tables and the cache hold, read as a stranger would where that is possible."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pyarrow as pa
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from pipeline.servers import Addresses
from pipeline.settings import StoreSettings
from pipeline.store.pool import Pool, open_pool
from schemas.blocks import COLUMNS, STAGES
from schemas.times import format_rfc3339

GROUP = "tickstream"
_DOUBLE = struct.Struct("<d")
Row = dict[str, Any]


@asynccontextmanager
async def pool_of(addresses: Addresses) -> AsyncIterator[Pool]:
    """The product's pool, for its own comparison."""
    pool = await open_pool(addresses.postgres, StoreSettings())
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def connection_to(
    addresses: Addresses,
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A plain connection."""
    connection = await asyncpg.connect(addresses.postgres)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def redis_of(addresses: Addresses) -> AsyncIterator["Redis"]:
    """A plain Redis client."""
    async with Redis.from_url(addresses.redis) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]


async def records(addresses: Addresses, topic: str) -> list[Record]:
    """Every record of a topic up to its present end, partition by partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=addresses.kafka,
        enable_auto_commit=False,
        max_partition_fetch_bytes=64 * 2**20,
        fetch_max_bytes=64 * 2**20,
    )
    found: list[Record] = []
    async with consumer:
        ends = await end_offsets(consumer, topic)
        for partition, end in ends.items():
            place = TopicPartition(topic, partition)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            while await consumer.position(place) < end:
                for one in (await consumer.getmany(place, timeout_ms=500)).get(place, []):
                    headers = {name: bytes(text).decode() for name, text in one.headers}
                    found.append(Record(partition, one.offset, one.key, one.value, headers))
    return found


async def end_offsets(consumer: Any, topic: str) -> dict[int, int]:
    """One past the last offset of each partition."""
    consumer.subscribe([topic])  # makes the client learn its partitions
    while not consumer.partitions_for_topic(topic):
        await consumer.getmany(timeout_ms=50)
    consumer.unsubscribe()
    places = [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic))]
    ends = await consumer.end_offsets(places)
    return {place.partition: ends[place] for place in places}


async def ends_of(addresses: Addresses, topic: str) -> dict[int, int]:
    """One past the last offset of each partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=addresses.kafka, enable_auto_commit=False)
    async with consumer:
        return await end_offsets(consumer, topic)


async def committed(addresses: Addresses) -> dict[int, int]:
    """The offsets that the workers' group committed on `prices`: the next ones to be read."""
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses.kafka)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(GROUP)
    finally:
        await admin.close()
    return {place.partition: at.offset for place, at in found.items() if place.topic == "prices"}


async def marks(addresses: Addresses) -> dict[int, int]:
    """The offset of the last stored message of each partition."""
    async with connection_to(addresses) as connection:
        rows = await connection.fetch(
            "SELECT partition, mark FROM progress WHERE service = $1 AND mark >= 0", GROUP
        )
    return {row["partition"]: row["mark"] for row in rows}


async def drained(addresses: Addresses) -> bool:
    """Whether every message of `prices` is stored."""
    ends = await ends_of(addresses, "prices")
    stored = await marks(addresses)
    return all(stored.get(partition, -1) + 1 == end for partition, end in ends.items())


async def until(holds: Callable[[], Awaitable[bool]], seconds: float, pause: float = 0.1) -> None:
    """Look again and again until it holds; a TimeoutError after that."""
    async with asyncio.timeout(seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(pause)


async def counts(addresses: Addresses) -> dict[str, tuple[int, int]]:
    """Rows, and distinct (partition, offset, index), of every stage table."""
    found = {}
    async with connection_to(addresses) as connection:
        for stage in STAGES:
            row = await connection.fetchrow(
                f'SELECT count(*) AS "rows", count(DISTINCT (partition, "offset", "index")) AS own'  # noqa: S608 -- the name of a stage
                f" FROM {stage}"
            )
            assert row is not None
            found[stage] = (row["rows"], row["own"])
    return found


async def stored_rows(addresses: Addresses, stage: str) -> dict[tuple[int, int, int], Row]:
    """Every row of a stage table by identity, columns as the topics name them."""
    names = [column.name for column in COLUMNS[stage]]
    listed = ", ".join(f'"{name}"' for name in names)
    async with connection_to(addresses) as connection:
        rows = await connection.fetch(f"SELECT {listed} FROM {stage}")  # noqa: S608 -- the name of a stage
    return {(row["partition"], row["offset"], row["index"]): dict(row) for row in rows}


async def published_rows(addresses: Addresses, stage: str) -> list[Row]:
    """Every row of a stage topic, repeats included."""
    found: list[Row] = []
    for record in await records(addresses, stage):
        assert record.value is not None
        if stage == "signals":
            found.append(json.loads(record.value))
        else:
            found.extend(pa.ipc.open_stream(record.value).read_all().to_pylist())
    return found


def same_bits(one: Row, other: Row) -> bool:
    """Whether two rows agree in every column, doubles bit by bit."""
    # Equal numbers but 0.0 have equal bits: most values of whole tables are told by that alone.
    return one.keys() == other.keys() and all(
        (a and a == b and type(a) is type(b)) or _bits(a) == _bits(b)
        for a, b in zip(one.values(), map(other.__getitem__, one), strict=True)
    )


def _bits(value: Any) -> Any:
    return _DOUBLE.pack(value) if isinstance(value, float) else value


def document_of(row: Mapping[str, Any]) -> Row:
    """A stored row as the cache and the topic `signals` carry it."""
    return {**row, "time": format_rfc3339(row["ts"])}


async def latest_stored(addresses: Addresses, stage: str, symbol: str) -> Row:
    """The row of highest identity of a symbol."""
    rows = await stored_rows(addresses, stage)
    mine = {identity: row for identity, row in rows.items() if row["symbol"] == symbol}
    return mine[max(mine)]


def identity_of(document: bytes | str | None) -> str:
    """The identity that a document of the cache begins with; text order is its order."""
    assert document is not None
    return str(json.loads(document)["at"])


def decoded(document: bytes | str | None) -> Row:
    """A document of the cache without its identity in fixed width."""
    assert document is not None
    found: Row = json.loads(document)
    found.pop("at")
    return found
