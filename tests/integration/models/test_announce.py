"""What the topics `models` and `alerts` hear of promotions, refusals and rollbacks."""

import json
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bus.publisher import Publisher
from pipeline.bus.topics import offset_bounds
from pipeline.errors import RefusedError, UnavailableError
from pipeline.models import announce, registry
from pipeline.stages.chain import ChainSettings
from pipeline.store.pool import Pool
from schemas.models import Promotion
from schemas.topics import ALERTS, MODELS
from tests.fixtures import boosted

CHAIN = ChainSettings()


class Heard:
    """What came on a topic since this was made."""

    def __init__(self, kafka: str, topic: str, since: int) -> None:
        self._kafka, self._place, self._since = kafka, TopicPartition(topic, 0), since

    async def values(self) -> list[tuple[bytes | None, Any]]:
        """Keys and documents, in order."""
        end = (await offset_bounds(self._kafka, self._place.topic))[0][1]
        found: list[tuple[bytes | None, Any]] = []
        if end == self._since:  # a consumer that is stopped at once fails
            return found
        async with AIOKafkaConsumer(
            bootstrap_servers=self._kafka, enable_auto_commit=False
        ) as consumer:
            consumer.assign([self._place])
            consumer.seek(self._place, self._since)
            while await consumer.position(self._place) < end:
                came = await consumer.getmany(self._place, timeout_ms=500)
                found += [(one.key, json.loads(one.value)) for one in came.get(self._place, [])]
        return found


async def heard(kafka: str, topic: str) -> Heard:
    """From now on."""
    return Heard(kafka, topic, (await offset_bounds(kafka, topic))[0][1])


async def registered(pool: Pool, *seeds: int) -> list[str]:
    """Names of new versions."""
    return [(await registry.register(pool, "gbdt", boosted.artifact(s))).version for s in seeds]


async def test_promotions_and_rollbacks_are_told(pool: Pool, kafka: str) -> None:
    """Each is one record under the name of the model, with the hash of its artifact."""
    one, two = await registered(pool, 1, 2)
    models = await heard(kafka, MODELS)
    for version in (one, two):
        await announce.promote(pool, kafka, version, CHAIN.feature_set)
    await announce.rollback(pool, kafka, "gbdt", CHAIN.feature_set, "worse")
    hashes = {row["version"]: row["artifact"] for row in await registry.versions(pool)}
    told = await models.values()
    assert [key for key, _ in told] == [b"gbdt"] * 3
    assert [document for _, document in told] == [
        {
            "model": "gbdt",
            "version": version,
            "generation": generation,
            "artifact": hashes[version],
            "rolled_back": generation == 3,
            "selected": {},
            "shadow": None,
            "shadow_artifact": None,
        }
        for generation, version in ((1, one), (2, two), (3, one))
    ]


async def test_shadows_are_told(pool: Pool, kafka: str) -> None:
    """With or without an active version, and that there is none any more."""
    one, two = await registered(pool, 1, 2)
    models, of = await heard(kafka, MODELS), CHAIN.feature_set
    await announce.shadow(pool, kafka, one, of)
    await announce.promote(pool, kafka, two, of)
    assert not (await announce.shadow(pool, kafka, one, of)).changed
    await announce.unshadow(pool, kafka, "gbdt", of)
    hashes = {row["version"]: row["artifact"] for row in await registry.versions(pool)}
    told = [Promotion.model_validate(document) for _, document in await models.values()]
    assert told == [
        Promotion(
            model="gbdt", version=version, generation=generation, artifact=hashes.get(version),
            shadow=beside, shadow_artifact=hashes.get(beside),
        )
        for generation, version, beside in ((1, None, one), (2, two, one), (3, two, None))
    ]  # fmt: skip


async def test_a_refused_shadow_is_an_alert(pool: Pool, kafka: str) -> None:
    """The topic of the models hears nothing of it."""
    (one,) = await registered(pool, 1)
    models, alerts = await heard(kafka, MODELS), await heard(kafka, ALERTS)
    other = ChainSettings.model_validate({"bars": {"clock": "ticks:7"}})
    with pytest.raises(RefusedError, match="another feature set"):
        await announce.shadow(pool, kafka, one, other.feature_set)
    ((_, document),) = await alerts.values()
    assert (document["kind"], document["version"]) == ("model_refused", one)
    assert await models.values() == []


async def test_a_refusal_is_an_alert(pool: Pool, kafka: str) -> None:
    """The topic of the models hears nothing of it, and the old one stays."""
    one, two = await registered(pool, 1, 2)
    await announce.promote(pool, kafka, one, CHAIN.feature_set)
    models, alerts = await heard(kafka, MODELS), await heard(kafka, ALERTS)
    await pool.execute(
        "UPDATE artifacts SET body = 'x' FROM model_versions v"
        " WHERE v.artifact = hash AND v.version = $1",
        two,
    )
    with pytest.raises(RefusedError, match="another hash"):
        await announce.promote(pool, kafka, two, CHAIN.feature_set)
    ((key, document),) = await alerts.values()
    assert key == b"gbdt"
    assert (document["kind"], document["model"], document["version"]) == (
        "model_refused", "gbdt", two,
    )  # fmt: skip
    assert "another hash" in document["why"]
    assert await models.values() == []
    head = await pool.fetchrow("SELECT active, generation FROM models")
    assert head is not None
    assert tuple(head) == (one, 1)


async def test_a_broker_that_is_away_changes_nothing(pool: Pool) -> None:
    """The promotion is not made at all, and said so."""
    (one,) = await registered(pool, 1)
    with pytest.raises(UnavailableError, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
        await announce.promote(pool, "127.0.0.1:1", one, CHAIN.feature_set)
    assert await pool.fetchval("SELECT active FROM models") is None


async def test_what_was_not_told_is_told_later(pool: Pool, kafka: str) -> None:
    """A process that died between commit and record leaves it to the next one; once is enough."""
    one, two = await registered(pool, 1, 2)
    for version in (one, two):
        await registry.promote(pool, version, CHAIN.feature_set)
    models = await heard(kafka, MODELS)
    change = await announce.promote(pool, kafka, two, CHAIN.feature_set)
    assert not change.changed
    async with Publisher(kafka) as publisher:
        assert await announce.announce(pool, publisher) == []
    ((_, document),) = await models.values()
    assert (document["version"], document["generation"]) == (two, 2)


async def test_a_record_that_is_not_taken(
    pool: Pool, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is active, the message says how to tell the stream, and doing so works."""
    (one,) = await registered(pool, 1)
    models = await heard(kafka, MODELS)

    async def refuse(*_: object) -> None:
        raise UnavailableError("Kafka does not take the outputs: full")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "deliver", refuse)
        with pytest.raises(UnavailableError, match=f"is active, but .* models promote {one}"):
            await announce.promote(pool, kafka, one, CHAIN.feature_set)
    assert await models.values() == []
    await announce.promote(pool, kafka, one, CHAIN.feature_set)
    assert [document["version"] for _, document in await models.values()] == [one]
    (two,) = await registered(pool, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "deliver", refuse)
        with pytest.raises(UnavailableError, match=f"is the shadow, but .* models shadow {two}"):
            await announce.shadow(pool, kafka, two, CHAIN.feature_set)
        with pytest.raises(UnavailableError, match=r"no shadow .* models shadow gbdt --none"):
            await announce.unshadow(pool, kafka, "gbdt", CHAIN.feature_set)
    await announce.unshadow(pool, kafka, "gbdt", CHAIN.feature_set)
    assert [document["generation"] for _, document in await models.values()] == [1, 3]
