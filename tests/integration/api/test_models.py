"""The registry of models by GraphQL: listed, promoted, rolled back; who may, and what refuses."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from pipeline.bus.topics import ensure_topics
from pipeline.models import announce, registry, remembered
from pipeline.servers import Addresses
from pipeline.settings import Settings, StoreSettings, TopicSettings
from pipeline.store.keys import Role, create_key
from pipeline.store.pool import Pool, open_pool
from schemas.topics import MODELS
from tests.fixtures import boosted
from tests.integration.api.conftest import ask, served
from tests.integration.models.test_announce import heard

PROMOTE = """mutation ($version: String!, $reason: String! = "better") {
  promoteModel(version: $version, reason: $reason) { model version former generation changed }
}"""
ROLLBACK = 'mutation { rollbackModel(model: "gbdt") { version former changed } }'
LIST = "{ modelVersions { version model isActive madeAt horizon features heldOut { n logLoss } } }"


@dataclass
class Registry:
    """Two versions, and a client that may change which is active."""

    settings: Settings
    pool: Pool
    versions: list[str]
    client: httpx.AsyncClient


@pytest.fixture
async def at(settings: Settings, addresses: Addresses) -> AsyncIterator[Registry]:
    """Two versions in a registry with a broker."""
    await ensure_topics(addresses.kafka, TopicSettings())
    with_kafka = settings.model_copy(update={"kafka": addresses.kafka})
    assert settings.postgres is not None
    pool = await open_pool(settings.postgres, StoreSettings())
    versions = [
        (await registry.register(pool, "gbdt", boosted.artifact(seed))).version for seed in (1, 2)
    ]
    async with served(with_kafka) as client:
        yield Registry(with_kafka, pool, versions, client)
    await pool.close()


def code_of(answer: dict[str, Any]) -> str:
    """The code of its error."""
    return str(answer["errors"][0]["extensions"]["code"])


async def test_versions_are_promoted_and_rolled_back(at: Registry) -> None:
    """Each change answers what it did, is listed, and is told to the stream."""
    one, two = at.versions
    assert at.settings.kafka is not None
    topic = await heard(at.settings.kafka, MODELS)
    first = (await ask(at.client, PROMOTE, version=one))["data"]["promoteModel"]
    assert first == {
        "model": "gbdt",
        "version": one,
        "former": None,
        "generation": "1",
        "changed": True,
    }
    again = (await ask(at.client, PROMOTE, version=one))["data"]["promoteModel"]
    assert (again["changed"], again["generation"]) == (False, "1")
    await ask(at.client, PROMOTE, version=two)
    listed = (await ask(at.client, LIST))["data"]["modelVersions"]
    assert {row["version"]: row["isActive"] for row in listed} == {one: False, two: True}
    stored = {row["version"]: row for row in await registry.versions(at.pool)}
    for row in listed:
        kept = stored[row["version"]]
        assert row["features"] == kept["features"]
        assert row["madeAt"].startswith(f"{kept['made_at']:%Y-%m-%dT%H:%M:%S.%f}")
        held = kept["metrics"]["held_out"]
        assert row["heldOut"] == {"n": held["n"], "logLoss": held["log_loss"]}
    back = (await ask(at.client, ROLLBACK))["data"]["rollbackModel"]
    assert back == {"version": one, "former": two, "changed": True}
    told = [document for _, document in await topic.values()]
    assert [(one["version"], one["rolled_back"]) for one in told] == [
        (one, False),
        (two, False),
        (one, True),
    ]
    reasons = [row["reason"] for row in await registry.history(at.pool, "gbdt")]
    assert reasons == ["better", "better", ""]


async def test_the_registry_is_read_once_between_changes(
    at: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes it - the API, the command line - has all of them read it again."""
    reads = 0
    versions = registry.versions

    async def counted(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await versions(*args)

    monkeypatch.setattr(registry, "versions", counted)

    async def active(client: httpx.AsyncClient) -> list[str]:
        rows = (await ask(client, LIST))["data"]["modelVersions"]
        return [row["version"] for row in rows if row["isActive"]]

    one, two = at.versions
    async with served(at.settings) as other:
        for _ in range(3):
            assert await active(at.client) == await active(other) == []
        assert reads == 1
        await ask(at.client, PROMOTE, version=one)
        for _ in range(3):
            assert await active(other) == await active(at.client) == [one]
        assert reads == 2
        assert at.settings.kafka is not None
        async with remembered.changing(at.settings.redis, at.settings.cache):
            of = at.settings.chain.feature_set
            await announce.promote(at.pool, at.settings.kafka, two, of)
        assert await active(other) == await active(at.client) == [two]
        assert reads == 3
        query = '{ modelVersions(model: "nothing") { version } }'
        assert (await ask(other, query))["data"]["modelVersions"] == []
        assert reads == 3


async def test_without_the_cache_the_registry_is_read_from_postgres(at: Registry) -> None:
    """Slower, and it says so; a change waits for nobody."""
    away = at.settings.model_copy(update={"redis": "redis://127.0.0.1:1/0"})
    async with served(away) as client:
        answer = await ask(client, LIST)
        assert len(answer["data"]["modelVersions"]) == 2
        assert answer["extensions"] == {"cache": "unavailable"}
        answer = await ask(client, PROMOTE, version=at.versions[0])
        assert answer["data"]["promoteModel"]["changed"]
    async with remembered.changing("redis://127.0.0.1:1/0", at.settings.cache):
        pass
    async with remembered.changing("nonsense", at.settings.cache):
        pass


async def test_what_cannot_be_is_said(at: Registry) -> None:
    """Unknown names are the client's mistake, damage a conflict; nothing becomes active by them."""
    assert code_of(await ask(at.client, PROMOTE, version="nothing")) == "BAD_INPUT"
    assert code_of(await ask(at.client, ROLLBACK)) == "BAD_INPUT"
    long = {"version": at.versions[0], "reason": "x" * 501}
    assert code_of(await ask(at.client, PROMOTE, **long)) == "BAD_INPUT"
    nul = {"version": at.versions[0], "reason": "a\0b"}
    assert code_of(await ask(at.client, PROMOTE, **nul)) == "BAD_INPUT"
    assert code_of(await ask(at.client, PROMOTE, version="a\0b")) == "BAD_INPUT"
    for name in ("ä", "", "x" * 65):
        assert code_of(await ask(at.client, PROMOTE, version=name)) == "BAD_INPUT"
    await at.pool.execute("UPDATE artifacts SET body = body || 'x'::bytea")
    assert code_of(await ask(at.client, PROMOTE, version=at.versions[0])) == "CONFLICT"
    assert not any(row["is_active"] for row in await registry.versions(at.pool))


async def test_a_broker_that_is_away_is_masked(at: Registry) -> None:
    """Neither its address nor a change leaves the server."""
    for kafka, words in (("127.0.0.1:1", "does not answer"), (None, "no broker")):
        away = at.settings.model_copy(update={"kafka": kafka})
        async with served(away) as client:
            answer = await ask(client, PROMOTE, version=at.versions[0])
        assert code_of(answer) == "UNAVAILABLE"
        assert words in answer["errors"][0]["message"]
        assert "127.0.0.1" not in str(answer)
    assert not any(row["is_active"] for row in await registry.versions(at.pool))


async def test_a_change_takes_an_operator_and_a_post(at: Registry) -> None:
    """A reader is refused, an operator is not; no address in a browser changes anything."""
    api = at.settings.api.model_copy(update={"auth": True})
    keys = {role: (await create_key(at.pool, "k", role, None)).text for role in Role}
    body = {"query": PROMOTE, "variables": {"version": at.versions[0]}}
    async with served(at.settings.model_copy(update={"api": api})) as client:
        for role, wanted in ((Role.READER, "FORBIDDEN"), (Role.OPERATOR, None)):
            headers = {"authorization": f"Bearer {keys[role]}"}
            text = f'mutation {{ promoteModel(version: "{at.versions[1]}") {{ model }} }}'
            address = {"query": text}
            got = await client.get("/graphql", params=address, headers=headers)
            assert "data" not in got.json()
            answer = (await client.post("/graphql", json=body, headers=headers)).json()
            assert ("errors" in answer) is (wanted is not None), answer
            assert wanted is None or code_of(answer) == wanted
            rows = await registry.versions(at.pool)
            active = [row["version"] for row in rows if row["is_active"]]
            assert active == ([] if wanted else [at.versions[0]])
