"""What is watched during a run: the cache, and Kafka's committed offsets against the marks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pipeline.cache.latest import KEYS, key_of
from pipeline.clock import monotonic
from pipeline.servers import Addresses
from pipeline.store.pool import RETRYABLE
from schemas.blocks import ENGINES
from tests.acceptance import evidence
from tests.acceptance.chaos.prices import SYMBOLS

_AWAY: Final = (*RETRYABLE, KafkaError, RedisError)
_LOOK_CACHE: Final = 0.02
_LOOK_OFFSETS: Final = 0.1
_PATIENCE: Final = 40.0


class Database:
    """A connection of our own that comes back after every restart of the server."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lock = asyncio.Lock()

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a query; patient while the server is away."""
        deadline = monotonic() + _PATIENCE
        async with self._lock:
            while True:
                try:
                    if self._connection is None:
                        self._connection = await asyncpg.connect(self._dsn, timeout=5)
                    return await self._connection.fetch(sql, *arguments)
                except _AWAY:
                    await self._drop()
                    if monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.05)

    async def value(self, sql: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        rows = await self.fetch(sql, *arguments)
        return rows[0][0] if rows else None

    async def marks(self, group: str) -> dict[int, int]:
        """The stored mark of each partition."""
        rows = await self.fetch("SELECT partition, mark FROM progress WHERE service = $1", group)
        return {row["partition"]: row["mark"] for row in rows}

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()


@dataclass(slots=True)
class Seen:
    """What the watchers saw."""

    latest: dict[str, str] = field(default_factory=dict)  # kept from run to run
    backwards: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    cache_looks: int = 0
    offset_looks: int = 0


def cached_keys() -> list[str]:
    """The key of every latest value that can be there."""
    symbols = [symbol for pair in SYMBOLS.values() for symbol in pair]
    keys = [key_of(stage, symbol) for stage in KEYS for symbol in symbols]
    return keys + [key_of("predictions", symbol, name) for symbol in symbols for name in ENGINES]


async def watch_cache(addresses: Addresses, seen: Seen) -> None:
    """Until cancelled: no latest value may be followed by an older one, also over restarts."""
    keys = cached_keys()
    found: list[bytes | str | None] = [None] * len(keys)
    while True:
        with contextlib.suppress(*_AWAY):
            async with Redis.from_url(addresses.redis, socket_timeout=1.0) as client:
                while True:
                    before, found = found, await client.mget(keys)
                    for key, old, new in zip(keys, before, found, strict=True):
                        if new is not None and new != old:  # most of them are as they were
                            _compare(seen, key, evidence.identity_of(new))
                    seen.cache_looks += 1
                    await asyncio.sleep(_LOOK_CACHE)
        await asyncio.sleep(_LOOK_CACHE)


def _compare(seen: Seen, key: str, at: str) -> None:
    before = seen.latest.get(key, "")
    if at < before:
        seen.backwards.append(f"{key}: {at} after {before}")
    seen.latest[key] = at


async def watch_offsets(addresses: Addresses, group: str, seen: Seen) -> None:
    """Until cancelled: what Kafka has as committed is never past the stored mark.

    Marks only grow, so the offsets are read first and held against marks that are read later.
    """
    async with Database(addresses.postgres) as database:
        while True:
            with contextlib.suppress(*_AWAY):
                async with _admin(addresses) as admin:
                    while True:
                        await look_at_offsets(admin, database, group, seen)
                        await asyncio.sleep(_LOOK_OFFSETS)
            await asyncio.sleep(_LOOK_OFFSETS)


async def look_at_offsets(
    admin: AIOKafkaAdminClient, database: Database, group: str, seen: Seen
) -> None:
    """One look."""
    found = await admin.list_consumer_group_offsets(group)
    marks = await database.marks(group)
    for place, at in found.items():
        if place.topic == "prices" and at.offset > marks.get(place.partition, -1) + 1:
            seen.ahead.append(f"partition {place.partition}: {at.offset} committed, {marks} stored")
    seen.offset_looks += 1


@asynccontextmanager
async def _admin(addresses: Addresses) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses.kafka, request_timeout_ms=5000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
