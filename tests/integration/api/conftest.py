"""Real Postgres and Valkey for the API, a fresh database per test."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from redis.asyncio import Redis

from api.app import create_app
from pipeline.cache.latest import Cache, entries, open_cache
from pipeline.servers.postgres import PostgresServer
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import Settings
from pipeline.store.live import LiveStore, PartitionBatch
from pipeline.store.pool import open_pool
from schemas.blocks import COLUMNS, Rows, empty
from tests.fixtures.databases import fresh_database
from tests.fixtures.rows import newest

START = 1_767_605_400_000_000_000  # 2026-01-05T09:30:00Z
SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A cluster for the session."""
    with PostgresServer(tmp_path_factory.mktemp("api-postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey for the session."""
    with ValkeyServer(tmp_path_factory.mktemp("api-valkey")) as server:
        yield server


@pytest.fixture
async def settings(
    postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> AsyncIterator[Settings]:
    """Settings that name a fresh, migrated database and an empty cache."""
    postgres_server.start()
    valkey_server.start()
    async with Redis.from_url(valkey_server.address) as client:
        await client.flushall()
    async with fresh_database(postgres_server.address, "template", ours=True) as address:
        yield Settings(postgres=address, redis=valkey_server.address)
        postgres_server.start()


def make_rows(stage: str, symbol: str, n: int, first: int = 0, **values: Any) -> Rows:
    """`n` rows of a symbol, one a second, with offsets from `first` on; floats count up."""
    rows = empty(stage, n, [symbol])
    places = np.arange(first, first + n)
    for column in COLUMNS[stage]:
        if column.kind == "float64":
            rows.columns[column.name][:] = places + 0.5
        elif column.kind == "label":
            rows.columns[column.name][:] = places % len(column.labels)
    for name, value in {
        "partition": 0,
        "offset": places,
        "index": 0,
        "symbol": 0,
        "ts": START + places * SECOND,
        "known_at": START + places * SECOND + 1,
        **values,
    }.items():
        rows.columns[name][:] = value
    return rows


@dataclass
class Feed:
    """Does what a worker does at the end of a batch: commits rows, then caches them."""

    store: LiveStore
    cache: Cache
    epoch: int
    mark: int = field(default=-1)

    async def commit(self, rows: Mapping[str, Rows], symbols: list[str]) -> None:
        """Store a batch only."""
        self.mark += 1
        batch = PartitionBatch(0, self.epoch, self.mark, rows, [], symbols, [])
        await self.store.commit([batch])

    async def put(self, rows: Mapping[str, Rows], symbols: list[str]) -> None:
        """Store a batch and cache it."""
        await self.commit(rows, symbols)
        await self.cache_only(rows)

    async def cache_only(self, rows: Mapping[str, Rows]) -> None:
        """Cache a batch only."""
        for stage, block in rows.items():
            await self.cache.put(entries(stage, newest(block)))


@pytest.fixture
async def feed(settings: Settings) -> AsyncIterator[Feed]:
    """A worker's sinks."""
    assert settings.postgres is not None
    assert settings.redis is not None
    pool = await open_pool(settings.postgres, settings.store)
    store = LiveStore(pool, "test", "fingerprint")
    claim = await store.claim(0)
    cache = open_cache(settings.redis, settings.cache)
    yield Feed(store, cache, claim.epoch)
    await cache.close()
    await pool.close()


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started application; it is ready unless something is away."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        await becomes(client, "ready", tries=20)
        yield client


async def becomes(client: httpx.AsyncClient, status: str, tries: int = 200) -> bool:
    """Wait until /readyz has this status."""
    for _ in range(tries):
        if (await client.get("/readyz")).json()["status"] == status:
            return True
        await asyncio.sleep(0.05)
    return False


async def ask(client: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
    """The response to a query."""
    body = {"query": query, "variables": variables}
    answer: dict[str, Any] = (await client.post("/graphql", json=body)).json()
    return answer
