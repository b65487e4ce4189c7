"""Watched promotions in real stores: judged once, rolled back once, told once, whatever dies."""

import asyncio
from typing import Any

import numpy as np
import pytest

from pipeline.bus.publisher import Publisher
from pipeline.errors import UnavailableError
from pipeline.models import announce, registry, watching_turns
from pipeline.models.comparison import losses
from pipeline.models.watching import PAIRED
from pipeline.models.watching_turns import Watchdog
from pipeline.settings import Settings
from pipeline.store import watches
from pipeline.store.live import compress
from pipeline.store.pool import Pool
from schemas.blocks import Array
from schemas.topics import ALERTS, MODELS
from tests.fixtures import boosted
from tests.integration.models.test_announce import Heard, heard

SETTINGS = Settings()
OF = SETTINGS.chain.feature_set
N = 3000
GENERATION = 2


@pytest.fixture
async def versions(pool: Pool, kafka: str) -> list[str]:
    """Three of them: the second one was promoted over the first, and is watched."""
    names = [
        (await registry.register(pool, "gbdt", boosted.artifact(seed))).version
        for seed in (1, 2, 3)
    ]
    await announce.promote(pool, kafka, names[0], OF, watch=True)
    await announce.promote(pool, kafka, names[1], OF, "better on paper", watch=True)
    return names


def said(live: float, shadow: float, n: int = N) -> Array:
    """Rows of which the versions were right so often, as they said."""
    rng = np.random.default_rng(5)
    rows = np.empty(n, PAIRED)
    rows["rose"] = rng.random(n) < 0.5
    rows["ts"], rows["book"] = np.arange(n), 1
    for name, right in (("live", live), ("shadow", shadow)):
        rows[name] = np.where(rows["rose"] == (rng.random(n) < right), right, 1.0 - right)
    return rows


async def keep(pool: Pool, rows: Array, generation: int = GENERATION) -> None:
    """Store them as a turn of the scores does, in two parts."""
    half = len(rows) // 2
    chunks = [
        ("gbdt", generation, len(part), compress(part.tobytes()))
        for part in (rows[:half], rows[half:])
    ]
    async with pool.acquire() as connection, connection.transaction():
        await watches.add_rows(connection, SETTINGS.worker.group, chunks)


async def verdict(pool: Pool, generation: int = GENERATION) -> Any:
    """Of a promotion."""
    sql = "SELECT verdict FROM watches WHERE model = 'gbdt' AND generation = $1"
    return await pool.fetchval(sql, generation)


async def head(pool: Pool) -> tuple[Any, ...]:
    """The active version, the shadow and the generation."""
    row = await pool.fetchrow("SELECT active, shadow, generation FROM models")
    assert row is not None
    return tuple(row)


async def kinds(alerts: Heard) -> list[str]:
    """Of the alerts."""
    return [document["kind"] for _, document in await alerts.values()]


async def test_a_worse_version_is_rolled_back(pool: Pool, kafka: str, versions: list[str]) -> None:
    """The one before it is active again; the log, the stream and `alerts` say why, once."""
    one, two, _ = versions
    assert await head(pool) == (two, one, GENERATION)
    models, alerts = await heard(kafka, MODELS), await heard(kafka, ALERTS)
    watchdog = Watchdog(kafka, pool, SETTINGS)
    rows = said(0.5, 0.6)
    await keep(pool, rows[:1500])
    await watchdog.turn()
    assert await verdict(pool) is None
    await keep(pool, rows[1500:])
    for _ in range(2):
        await watchdog.turn()
        await Watchdog(kafka, pool, SETTINGS).turn()
    assert await verdict(pool) == "worse"
    assert await head(pool) == (one, None, GENERATION + 1)
    (logged,) = await pool.fetch("SELECT from_version, to_version, reason FROM rollback_log")
    assert tuple(logged)[:2] == (two, one)
    assert logged["reason"].startswith(f"its shadow {one} was better: log loss 0.6")
    (told,) = [document for _, document in await models.values()]
    assert (told["version"], told["generation"], told["rolled_back"]) == (one, 3, True)
    (alert,) = [document for _, document in await alerts.values()]
    assert alert.pop("time").endswith("+00:00")
    standard_error = alert.pop("standard_error")
    assert 0 < standard_error < 0.01
    assert alert == {
        "kind": "model_rolled_back", "model": "gbdt", "version": two, "generation": GENERATION,
        "active": one, "n": N, "why": logged["reason"],
        "live_log_loss": pytest.approx(losses(rows["live"], rows["rose"]).mean()),
        "shadow_log_loss": pytest.approx(losses(rows["shadow"], rows["rose"]).mean()),
    }  # fmt: skip
    assert await pool.fetchval("SELECT count(*) FROM watched_rows") == 0
    row = (await registry.promotions(pool, "gbdt", 10))[1]
    assert (row["watched"], row["verdict"], row["n"]) == (True, "worse", N)
    assert row["standard_error"] == standard_error


@pytest.mark.parametrize("live", [0.6, 0.7])
async def test_one_that_is_not_worse_stays(
    pool: Pool, kafka: str, versions: list[str], live: float
) -> None:
    """It is judged once: what comes behind that is no longer kept."""
    alerts = await heard(kafka, ALERTS)
    rows = said(live, 0.6)
    if live == 0.6:
        rows["shadow"] = rows["live"]
    await keep(pool, rows)
    await Watchdog(kafka, pool, SETTINGS).turn()
    assert await verdict(pool) == "kept"
    await keep(pool, said(0.5, 0.9))
    assert await pool.fetchval("SELECT count(*) FROM watched_rows") == 0
    await Watchdog(kafka, pool, SETTINGS).turn()
    assert await head(pool) == (versions[1], versions[0], GENERATION)
    assert await kinds(alerts) == []


async def test_of_many_at_once_one_rolls_back(pool: Pool, kafka: str, versions: list[str]) -> None:
    """Nobody goes back twice."""
    alerts = await heard(kafka, ALERTS)
    await keep(pool, said(0.5, 0.6))
    await asyncio.gather(*(Watchdog(kafka, pool, SETTINGS).turn() for _ in range(4)))
    await Watchdog(kafka, pool, SETTINGS).turn()
    assert await head(pool) == (versions[0], None, GENERATION + 1)
    assert await kinds(alerts) == ["model_rolled_back"]


async def test_the_verdict_that_was_first_counts(
    pool: Pool, kafka: str, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second, with other rows, has no say."""
    await keep(pool, said(0.5, 0.6))
    read = watches.rows

    async def overtaken(*args: Any) -> Any:
        rows = await read(*args)
        assert await watches.settle(pool, "gbdt", GENERATION, "kept", "it did well")
        return rows

    monkeypatch.setattr(watches, "rows", overtaken)
    for _ in range(2):
        await Watchdog(kafka, pool, SETTINGS).turn()
    assert await verdict(pool) == "kept"
    assert await head(pool) == (versions[1], versions[0], GENERATION)


async def test_rows_that_come_with_the_verdict_are_dropped(pool: Pool, versions: list[str]) -> None:
    """Whoever stores them is waited for; nothing of a promotion is left behind."""
    assert versions
    async with pool.acquire() as connection, connection.transaction():
        chunk = "gbdt", GENERATION, 1, b"x"
        await watches.add_rows(connection, SETTINGS.worker.group, [chunk])
        settled = asyncio.create_task(watches.settle(pool, "gbdt", GENERATION, "kept", "well"))
        await asyncio.sleep(0.3)
        assert not settled.done()
    assert await settled
    assert await pool.fetchval("SELECT count(*) FROM watched_rows") == 0


async def test_a_turn_that_dies_is_gone_on_with(
    pool: Pool, kafka: str, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the verdict, behind the rollback, before the alert: each step is done once."""
    models, alerts = await heard(kafka, MODELS), await heard(kafka, ALERTS)
    await keep(pool, said(0.5, 0.6))

    async def away(*_: Any, **__: Any) -> None:
        raise UnavailableError("Kafka does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(announce, "rollback", away)
        with pytest.raises(UnavailableError):
            await Watchdog(kafka, pool, SETTINGS).turn()
    assert await verdict(pool) == "worse"
    assert (await head(pool))[2] == GENERATION
    with pytest.raises(UnavailableError):
        await Watchdog("127.0.0.1:1", pool, SETTINGS).turn()
    assert (await head(pool))[2] == GENERATION
    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "deliver", away)
        with pytest.raises(UnavailableError, match="the stream was not told"):
            await Watchdog(kafka, pool, SETTINGS).turn()
    assert (await head(pool))[2] == GENERATION + 1
    assert await models.values() == []
    with monkeypatch.context() as patch:
        patch.setattr(watching_turns, "rollback_document", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await Watchdog(kafka, pool, SETTINGS).turn()
    await Watchdog(kafka, pool, SETTINGS).turn()
    await Watchdog(kafka, pool, SETTINGS).turn()
    assert await head(pool) == (versions[0], None, GENERATION + 1)
    assert [document["generation"] for _, document in await models.values()] == [3]
    assert await kinds(alerts) == ["model_rolled_back"]


async def test_another_change_ends_it(pool: Pool, kafka: str, versions: list[str]) -> None:
    """Before the verdict, or between it and the rollback: what a person did stands."""
    one, two, three = versions
    alerts = await heard(kafka, ALERTS)
    await announce.promote(pool, kafka, three, OF, watch=True)
    await keep(pool, said(0.5, 0.6))
    await Watchdog(kafka, pool, SETTINGS).turn()
    assert await verdict(pool) == "ended"
    assert await verdict(pool, 3) is None
    assert await head(pool) == (three, two, 3)
    await watches.settle(pool, "gbdt", 3, "worse", "bad", (9, 0.7, 0.6, 0.01))
    await announce.shadow(pool, kafka, one, OF)
    await Watchdog(kafka, pool, SETTINGS).turn()
    assert await verdict(pool, 3) == "ended"
    assert await head(pool) == (three, one, 4)
    assert await kinds(alerts) == []


async def test_what_cannot_be_gone_back_to(pool: Pool, kafka: str, versions: list[str]) -> None:
    """A damaged one is refused, which is an alert, once; the worse one stays."""
    alerts = await heard(kafka, ALERTS)
    hashed = (await registry.version_of(pool, versions[0]))["artifact"]
    await pool.execute("UPDATE artifacts SET body = 'x' WHERE hash = $1", hashed)
    await keep(pool, said(0.5, 0.6))
    for _ in range(2):
        await Watchdog(kafka, pool, SETTINGS).turn()
    assert await verdict(pool) == "refused"
    assert await head(pool) == (versions[1], versions[0], GENERATION)
    assert await kinds(alerts) == ["model_refused"]


async def test_it_is_watched_only_where_that_is_asked_for(pool: Pool, kafka: str) -> None:
    """Nor is a first version, which has none before it; a shadow of its own stays."""
    one, two, three = [
        (await registry.register(pool, "gbdt", boosted.artifact(seed))).version
        for seed in (1, 2, 3)
    ]
    await announce.promote(pool, kafka, one, OF, watch=True)
    await announce.shadow(pool, kafka, three, OF)
    await announce.promote(pool, kafka, two, OF)
    assert await head(pool) == (two, three, 3)
    assert await pool.fetchval("SELECT count(*) FROM watches") == 0
    await Watchdog(kafka, pool, SETTINGS).turn()
