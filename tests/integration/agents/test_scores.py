"""The loop that scores and rolls back, while Postgres goes away and Kafka is silent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from agents.scores import keep_scores
from pipeline.bus.topics import ensure_topics
from pipeline.models import registry
from pipeline.models.live_scores import TOPICS
from pipeline.servers import Addresses
from pipeline.servers.postgres import PostgresServer
from pipeline.settings import ModelsSettings, Settings, StoreSettings, TopicSettings, load_settings
from pipeline.store import scores
from pipeline.store.migrate import migrate
from pipeline.store.pool import Pool, open_pool
from schemas.blocks import Rows
from tests.acceptance import evidence
from tests.fixtures.markets import chained, market
from tests.integration.models.test_live_scores import (
    HORIZON,
    PLANNED,
    SWAP,
    VERSIONS,
    N,
    begin_here,
    publish,
)

MODELS = ModelsSettings(score_seconds=0.1)
SETTINGS = load_settings(["bars.clock=ticks:1"]).model_copy(update={"models": MODELS})
SIZES = dict.fromkeys(TOPICS, 300)
PATIENCE = 60.0  # seconds


def planted() -> list[Rows]:
    """Bars and predictions of a market; of what comes the shadow knows something, the other not."""
    bars, said = chained(market(N, 5), TOPICS, PLANNED)
    rng = np.random.default_rng(3)
    rose = np.roll(bars["close"], -HORIZON) > bars["close"]
    informed = np.where(rose == (rng.random(len(rose)) < 0.6), 0.6, 0.4)
    silent = np.isnan(said["shadow_p"])
    columns = {
        "shadow_p": np.where(silent, np.nan, informed),
        "p_gbdt": np.where(silent, said["p_gbdt"], 0.5),
        "gbdt_regime": np.full(len(silent), -1, np.int32),  # by the active version all of them
    }
    return [bars, Rows(said.stage, {**said.columns, **columns}, said.symbols)]


@asynccontextmanager
async def scoring(pool: Pool, kafka: str, settings: Settings = SETTINGS) -> AsyncIterator[None]:
    """The loop at work, stopped as the service stops it."""
    stop = asyncio.Event()
    task = asyncio.create_task(keep_scores(pool, kafka, settings, stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await task


def told(logs: Sequence[Mapping[str, Any]], event: str) -> Callable[[], Awaitable[bool]]:
    """Whether an event is in the log."""

    async def holds() -> bool:
        return any(one["event"] == event for one in logs)

    return holds


async def promoted(pool: Pool) -> None:
    """The second version over the first, watched."""
    for one in VERSIONS:
        await registry.promote(pool, one.version, SETTINGS.chain.feature_set, watch=True)


async def test_it_goes_on_when_servers_come_back(addresses: Addresses, tmp_path: Path) -> None:
    """Postgres is stopped in the middle: told in one line, then all is scored and rolled back."""
    kafka = addresses.kafka
    await ensure_topics(kafka, TopicSettings())
    rows = planted()
    with PostgresServer(tmp_path) as server:
        pool = await open_pool(server.address, StoreSettings(acquire_timeout=1.0))
        await migrate(pool)
        await begin_here(kafka, pool, SETTINGS)
        await promoted(pool)
        with capture_logs() as logs:
            async with scoring(pool, "127.0.0.1:1"):
                await evidence.until(told(logs, "scores_not_kept"), PATIENCE)
            async with scoring(pool, kafka):
                await publish(kafka, rows, 0, SWAP, SIZES)
                await evidence.until(told(logs, "outcomes_scored"), PATIENCE)
                logs.clear()
                server.stop()
                await evidence.until(told(logs, "scores_not_kept"), PATIENCE)
                await publish(kafka, rows, SWAP, N, SIZES)
                await asyncio.sleep(1.0)
                server.start()
                await evidence.until(told(logs, "promotion_rolled_back"), PATIENCE)
            assert [one["event"] for one in logs].count("scores_not_kept") == 1
        row = await pool.fetchrow("SELECT active, generation FROM models")
        assert row is not None
        assert tuple(row) == (VERSIONS[0].version, 3)
        found = await scores.of_all_days(pool, [one.version for one in VERSIONS])
        live, shadow = found[VERSIONS[1].version]["live"], found[VERSIONS[0].version]["shadow"]
        assert live["n"] == shadow["n"] > 2900
        assert live["log_loss"] == pytest.approx(np.log(2))
        assert shadow["log_loss"] < 0.68
        await pool.close()


async def test_without_the_watch_nothing_is_judged(pool: Pool, addresses: Addresses) -> None:
    """It is scored all the same."""
    kafka = addresses.kafka
    await ensure_topics(kafka, TopicSettings())
    await begin_here(kafka, pool, SETTINGS)
    await promoted(pool)
    models = MODELS.model_copy(update={"watch": False})
    with capture_logs() as logs:
        async with scoring(pool, kafka, SETTINGS.model_copy(update={"models": models})):
            await publish(kafka, planted(), 0, N, SIZES)
            version = VERSIONS[0].version

            async def all_scored() -> bool:
                found = (await scores.of_all_days(pool, [version]))[version]
                return "shadow" in found and bool(found["shadow"]["n"] > 2900)

            await evidence.until(all_scored, PATIENCE)
            await asyncio.sleep(0.5)
    assert "promotion_judged" not in {one["event"] for one in logs}
    assert await pool.fetchval("SELECT generation FROM models") == 2
    assert await pool.fetchval("SELECT sum(n) FROM watched_rows") > 2900
