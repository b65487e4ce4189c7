"""What a worker hears of the topic `models`: verified versions are offered, others are refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.errors import StateError
from pipeline.models import announce, registry
from pipeline.models.following import Follower
from pipeline.servers import Addresses
from pipeline.stages.chain import Chain, ChainSettings
from pipeline.store.pool import Pool
from schemas.models import Activation
from schemas.topics import MODELS
from tests.acceptance import evidence
from tests.fixtures import boosted

CHAIN = ChainSettings()


@asynccontextmanager
async def following(
    kafka: str, pool: Pool, model: str, chain: ChainSettings = CHAIN
) -> AsyncIterator[Follower]:
    """A follower at work that knows what was on the topic."""
    async with Publisher(kafka) as publisher:
        follower = Follower(kafka, pool, publisher, model, chain)
        task = asyncio.ensure_future(follower.run())
        try:
            async with asyncio.timeout(30):
                await follower.caught_up.wait()
            yield follower
        finally:
            task.cancel()


async def registered(pool: Pool, model: str, *seeds: int) -> list[str]:
    """Names of new versions."""
    return [(await registry.register(pool, model, boosted.artifact(s))).version for s in seeds]


async def promote(pool: Pool, kafka: str, version: str) -> None:
    """As the command does."""
    await announce.promote(pool, kafka, version, CHAIN.feature_set)


async def offered(
    follower: Follower, version: str | None, generation: int, shadow: str | None = None
) -> None:
    """Wait until it offers the versions of a generation."""

    async def holds() -> bool:
        found = follower.newest
        return found is not None and found.at(0).activation == Activation(
            0, 0, found.model, generation, version, shadow
        )

    await evidence.until(holds, 20, pause=0.02)


async def refusals(addresses: Addresses, model: str) -> list[str]:
    """Why versions of a model were refused, in order."""
    key = model.encode()  # other tests leave there what is no document
    mine = [one for one in await evidence.records(addresses, "alerts") if one.key == key]
    return [json.loads(one.value or b"")["why"] for one in mine]


async def test_promotions_and_rollbacks_are_offered(pool: Pool, kafka: str, model: str) -> None:
    """As they come; who starts late knows the last one at once, verified and ready to speak."""
    one, two = await registered(pool, model, 1, 2)
    async with following(kafka, pool, model) as follower:
        assert follower.newest is None
        await promote(pool, kafka, one)
        await offered(follower, one, 1)
        await promote(pool, kafka, two)
        await offered(follower, two, 2)
        # What it has had it need not read again.
        await pool.execute("UPDATE artifacts SET body = 'x'")
        async with Publisher(kafka) as publisher:
            row = await registry.version_of(pool, one)
            told = {"model": model, "version": one, "generation": 3, "artifact": row["artifact"]}
            news = [json.dumps({**told, "generation": 1}), "no JSON", json.dumps(told)]
            await publisher.deliver(
                Outgoing(MODELS, text.encode(), model.encode()) for text in news
            )
        await offered(follower, one, 3)
        assert follower.newest is not None
        assert follower.newest.at(7).activation == Activation(7, 0, model, 3, one)


async def test_shadows_are_offered(
    pool: Pool, kafka: str, addresses: Addresses, model: str
) -> None:
    """Alone, beside the active version, and no more; one that is refused holds up no other."""
    one, two, three = await registered(pool, model, 1, 2, 3)
    async with following(kafka, pool, model) as follower:
        await announce.shadow(pool, kafka, one, CHAIN.feature_set)
        await offered(follower, None, 1, one)
        await promote(pool, kafka, two)
        await offered(follower, two, 2, one)
        assert follower.newest is not None
        spoken = follower.newest.at(7)
        assert [one and one.version for one in (spoken.active, spoken.shadow)] == [two, one]
        await announce.unshadow(pool, kafka, model, CHAIN.feature_set)
        await offered(follower, two, 3)
        row = await registry.version_of(pool, three)
        told = {
            "model": model, "version": three, "generation": 4, "artifact": row["artifact"],
            "shadow": one, "shadow_artifact": "0" * 64,
        }  # fmt: skip
        async with Publisher(kafka) as publisher:
            news = Outgoing(MODELS, json.dumps(told).encode(), model.encode())
            await publisher.deliver([news])
        await offered(follower, three, 4)
    assert ["is not in the database" in text for text in await refusals(addresses, model)] == [True]


async def test_who_starts_late_is_ready(pool: Pool, kafka: str, model: str) -> None:
    """The last generation is offered before the first message is stepped."""
    one, two = await registered(pool, model, 1, 2)
    for version in (one, two):
        await promote(pool, kafka, version)
    async with following(kafka, pool, model) as follower:
        assert follower.newest is not None
        assert follower.newest.at(0).activation == Activation(0, 0, model, 2, two)
        chain = Chain(CHAIN)
        chain.plan(follower.newest.at(0))


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ("UPDATE artifacts SET body = 'x' WHERE hash = $1", "another hash"),
        ("DELETE FROM artifacts WHERE hash = $1", "is not in the database"),
    ],
)
async def test_a_spoilt_artifact_is_refused(
    pool: Pool, kafka: str, addresses: Addresses, model: str, spoilt: str, why: str
) -> None:
    """An alert says why, and the old version stays the one that is offered; the next one is."""
    one, two, three = await registered(pool, model, 1, 2, 3)
    await promote(pool, kafka, one)
    async with following(kafka, pool, model) as follower:
        await pool.execute(
            "ALTER TABLE model_versions DROP CONSTRAINT model_versions_artifact_fkey"
        )
        hashed = (await registry.version_of(pool, two))["artifact"]
        await pool.execute(spoilt, hashed)
        async with Publisher(kafka) as publisher:
            told = {"model": model, "version": two, "generation": 2, "artifact": hashed}
            news = Outgoing(MODELS, json.dumps(told).encode(), model.encode())
            await publisher.deliver([news])

        async def refused() -> bool:
            return bool(await refusals(addresses, model))

        await evidence.until(refused, 20)
        assert [why in text for text in await refusals(addresses, model)] == [True]
        await offered(follower, one, 1)
        await pool.execute("UPDATE models SET generation = 2")
        await promote(pool, kafka, three)
        await offered(follower, three, 3)


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ({"bars": {"clock": "ticks:9"}}, "another feature set"),
        ({"predictions": {"horizon": 7}}, "speaks of 5 bars, predictions.horizon is 7"),
    ],
)
async def test_a_version_for_another_chain_is_refused(
    pool: Pool,
    kafka: str,
    addresses: Addresses,
    model: str,
    chain: dict[str, dict[str, object]],
    why: str,
) -> None:
    """The command was given other settings than the worker."""
    (one,) = await registered(pool, model, 1)
    await promote(pool, kafka, one)
    settings = ChainSettings.model_validate(chain)
    async with following(kafka, pool, model, settings) as follower:
        assert follower.newest is None
    assert [why in text for text in await refusals(addresses, model)] == [True]


async def test_what_was_activated_comes_back(pool: Pool, kafka: str, model: str) -> None:
    """With its versions; one that is gone ends the recovery with a clear line."""
    one, two = await registered(pool, model, 1, 2)
    planned = [Activation(3, 1, model, 1, one), Activation(9, 0, model, 2, two, one)]
    async with Publisher(kafka) as publisher:
        follower = Follower(kafka, pool, publisher, model, CHAIN)
        found = await follower.activated(planned)
        assert [each.activation for each in found] == planned
        assert [each.active and each.active.version for each in found] == [one, two]
        with pytest.raises(StateError, match="v3 has spoken and is not in the registry"):
            await follower.activated([*planned, Activation(12, 0, model, 3, "v3")])
        await pool.execute("UPDATE artifacts SET body = 'x'")
        fresh = Follower(kafka, pool, publisher, model, CHAIN)
        with pytest.raises(StateError, match=f"{one} has spoken and cannot any more: .*hash"):
            await fresh.activated(planned[:1])
