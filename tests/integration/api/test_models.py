"""The registry of models by GraphQL: listed, promoted, rolled back; who may, and what refuses."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
import pytest

from pipeline.bus.topics import ensure_topics
from pipeline.models import announce, registry, remembered
from pipeline.servers import Addresses
from pipeline.settings import Settings, StoreSettings, TopicSettings
from pipeline.store import watches
from pipeline.store.keys import Role, create_key
from pipeline.store.pool import Pool, open_pool
from pipeline.store.statements import statement
from schemas.topics import MODELS
from tests.fixtures import boosted
from tests.integration.api.conftest import ask, served
from tests.integration.models.test_announce import heard

PROMOTE = """mutation ($version: String!, $reason: String! = "better") {
  promoteModel(version: $version, reason: $reason) { model version former generation changed }
}"""
ROLLBACK = 'mutation { rollbackModel(model: "gbdt") { version former changed } }'
SHADOW = """mutation ($version: String!) {
  shadowModel(version: $version, reason: "look") { model shadow former generation changed }
}"""
UNSHADOW = 'mutation { unshadowModel(model: "gbdt") { shadow former changed } }'
SHADOWS = '{ shadows(model: "gbdt") { model generation version reason at } }'
SELECT = """mutation ($version: String!, $regimes: [VolRegime!]!) {
  selectModel(version: $version, regimes: $regimes, reason: "storm") {
    model selected { regime version } generation changed
  }
}"""
UNSELECT = """mutation ($regimes: [VolRegime!]) {
  unselectModel(model: "gbdt", regimes: $regimes) { selected { regime version } changed }
}"""
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


async def test_a_shadow_is_set_and_ended(at: Registry) -> None:
    """Each change answers what it did, marks the version, is listed and told to the stream."""
    one, two = at.versions
    assert at.settings.kafka is not None
    topic = await heard(at.settings.kafka, MODELS)

    async def marked() -> list[str]:
        rows = (await ask(at.client, "{ modelVersions { version isShadow } }"))["data"]
        return [row["version"] for row in rows["modelVersions"] if row["isShadow"]]

    await ask(at.client, PROMOTE, version=one)
    assert await marked() == []
    found = (await ask(at.client, SHADOW, version=two))["data"]["shadowModel"]
    assert found == {
        "model": "gbdt", "shadow": two, "former": None, "generation": "2", "changed": True,
    }  # fmt: skip
    assert await marked() == [two]
    assert not (await ask(at.client, SHADOW, version=two))["data"]["shadowModel"]["changed"]
    assert code_of(await ask(at.client, SHADOW, version=one)) == "BAD_INPUT"
    found = (await ask(at.client, UNSHADOW))["data"]["unshadowModel"]
    assert found == {"shadow": None, "former": two, "changed": True}
    assert await marked() == []
    listed = (await ask(at.client, SHADOWS))["data"]["shadows"]
    assert [(row["generation"], row["version"], row["reason"]) for row in listed] == [
        ("3", None, ""), ("2", two, "look"),
    ]  # fmt: skip
    told = [document for _, document in await topic.values()]
    assert [(each["version"], each["shadow"]) for each in told] == [
        (one, None), (one, two), (one, None),
    ]  # fmt: skip


async def test_versions_are_selected_by_regime(at: Registry) -> None:
    """Each change answers what speaks where, is listed and told to the stream."""
    one, two = at.versions
    assert at.settings.kafka is not None
    topic = await heard(at.settings.kafka, MODELS)

    async def listed() -> dict[str, list[str]]:
        rows = (await ask(at.client, "{ modelVersions { version regimes } }"))["data"]
        return {row["version"]: row["regimes"] for row in rows["modelVersions"]}

    assert code_of(await ask(at.client, SELECT, version=two, regimes=["HIGH"])) == "BAD_INPUT"
    await ask(at.client, PROMOTE, version=one)
    assert code_of(await ask(at.client, SELECT, version=two, regimes=[])) == "BAD_INPUT"
    assert await listed() == {one: [], two: []}
    both = ["EXTREME", "HIGH"]
    found = (await ask(at.client, SELECT, version=two, regimes=both))["data"]["selectModel"]
    high, extreme = ({"regime": name, "version": two} for name in ("HIGH", "EXTREME"))
    assert found == {
        "model": "gbdt", "selected": [high, extreme], "generation": "2", "changed": True,
    }  # fmt: skip
    assert await listed() == {one: [], two: ["HIGH", "EXTREME"]}
    found = (await ask(at.client, UNSELECT, regimes=["EXTREME"]))["data"]["unselectModel"]
    assert found == {"selected": [high], "changed": True}
    found = (await ask(at.client, UNSELECT))["data"]["unselectModel"]
    assert found == {"selected": [], "changed": True}
    assert not (await ask(at.client, UNSELECT))["data"]["unselectModel"]["changed"]
    assert await listed() == {one: [], two: []}
    told = [document for _, document in await topic.values()]
    assert [sorted(each["selected"]) for each in told] == [[], ["extreme", "high"], ["high"], []]


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
            beside = {"query": SHADOW, "variables": {"version": at.versions[1]}}
            answer = (await client.post("/graphql", json=beside, headers=headers)).json()
            assert ("errors" in answer) is (wanted is not None), answer
            chosen = {"version": at.versions[1], "regimes": ["HIGH"]}
            for text, variables in ((SELECT, chosen), (UNSELECT, {})):
                body_of = {"query": text, "variables": variables}
                answer = (await client.post("/graphql", json=body_of, headers=headers)).json()
                assert ("errors" in answer) is (wanted is not None), answer


ALL = """query ($first: Int, $symbol: String, $method: ImportanceMethod) { modelVersions {
  version artifact dataHash rows inputs { source partition from to rows sha256 }
  hyperparameters { name value }
  importance(first: $first, symbol: $symbol, method: $method) {
    method symbol feature value place
  }
} }"""
COMPARISONS = """query ($model: String! = "gbdt", $first: Int) {
  modelComparisons(model: $model, first: $first) {
    model challenger champion firstTs lastTs dataHash n challengerLogLoss championLogLoss
    standardError rule better at
  }
}"""
PROMOTIONS = """query ($model: String! = "gbdt", $first: Int) {
  promotions(model: $model, first: $first) {
    model generation version former rolledBack reason at
    watched verdict n liveLogLoss shadowLogLoss standardError judgedAt
  }
}"""


async def test_what_a_version_comes_from_and_looks_at(at: Registry) -> None:
    """Its inputs with offsets, its fit, and the features it is made of: of all versions at once."""
    one, two = at.versions
    for version in at.versions:
        for method in ("gain", "shap"):
            for symbol, names in (("*", ["a", "b", "c"]), ("ES", ["c", "b", "a"])):
                await at.pool.execute(
                    statement("add_importance"), version, method, symbol, names,
                    [3.0, 2.0, 1.0], [1, 2, 3],
                )  # fmt: skip
    found = {row["version"]: row for row in (await ask(at.client, ALL))["data"]["modelVersions"]}
    stored = {row["version"]: row for row in await registry.versions(at.pool)}
    for version in (one, two):
        row, kept = found[version], stored[version]
        assert (row["artifact"], row["dataHash"]) == (kept["artifact"], kept["data_hash"])
        assert row["rows"] == str(kept["data"]["rows"])
        assert row["inputs"] == [
            {name: said.get(name) for name in ("partition", "rows", "sha256")}
            | {name: None if said.get(name) is None else str(said[name]) for name in ("from", "to")}
            | {"source": said.get("topic") or said.get("table") or said.get("file")}
            for said in kept["data"]["inputs"]
        ]
        assert {one["name"]: one["value"] for one in row["hyperparameters"]} == {
            name: str(value) for name, value in kept["hyperparameters"].items()
        }
        assert [(one["method"], one["feature"], one["place"]) for one in row["importance"]] == [
            (method, feature, place)
            for method in ("GAIN", "SHAP")
            for place, feature in enumerate("abc", 1)
        ]
    answer = await ask(at.client, ALL, first=1, symbol="ES", method="SHAP")
    for row in answer["data"]["modelVersions"]:
        assert row["importance"] == [
            {"method": "SHAP", "symbol": "ES", "feature": "c", "value": 3.0, "place": 1}
        ]
    assert code_of(await ask(at.client, ALL, first=501)) == "BAD_INPUT"
    assert code_of(await ask(at.client, ALL, symbol="A\0")) == "BAD_INPUT"


async def test_how_versions_did_on_the_stream(at: Registry) -> None:
    """All days of a role summed up by rows; null where a version had none."""
    one, two = at.versions
    for version, rows, day, n, loss in (
        (one, "live", 1, 100, 0.6), (one, "live", 2, 300, 0.8), (one, "shadow", 2, 50, 0.7),
    ):  # fmt: skip
        scored = (version, rows, date(2026, 1, day), day, day + 5, n, loss, 0.69, 0.25)
        await at.pool.execute(statement("add_day_scores"), *scored)
    asked = "firstTs lastTs n logLoss nullLogLoss brier auc"
    query = f"{{ modelVersions {{ version live {{ {asked} }} shadow {{ n logLoss }} }} }}"
    found = {row["version"]: row for row in (await ask(at.client, query))["data"]["modelVersions"]}
    live = found[one]["live"]
    assert live.pop("logLoss") == pytest.approx(0.75)
    assert live == {
        "firstTs": "1970-01-01T00:00:00.000000001Z", "lastTs": "1970-01-01T00:00:00.000000007Z",
        "n": 400, "nullLogLoss": pytest.approx(0.69), "brier": pytest.approx(0.25), "auc": None,
    }  # fmt: skip
    assert found[one]["shadow"] == {"n": 50, "logLoss": 0.7}
    assert (found[two]["live"], found[two]["shadow"]) == (None, None)


async def test_comparisons_and_changes_are_listed(at: Registry) -> None:
    """Newest first, as many as are wanted; of an unknown model none."""
    one, two = at.versions
    for number, better in ((1, False), (2, True)):
        await at.pool.execute(
            statement("add_comparison"), "gbdt", two, one if better else None, number, number + 1,
            "h", 100 * number, 0.6, 0.7, 0.01, "rule", better,
        )  # fmt: skip
    for version in (one, two):
        await ask(at.client, PROMOTE, version=version)
    await ask(at.client, ROLLBACK)
    rows = (await ask(at.client, COMPARISONS))["data"]["modelComparisons"]
    assert [(row["n"], row["champion"], row["better"]) for row in rows] == [
        ("200", one, True), ("100", None, False),
    ]  # fmt: skip
    assert rows[0]["firstTs"] == "1970-01-01T00:00:00.000000002Z"
    assert (rows[0]["challengerLogLoss"], rows[0]["championLogLoss"]) == (0.6, 0.7)
    changes = (await ask(at.client, PROMOTIONS))["data"]["promotions"]
    assert [(row["generation"], row["version"], row["rolledBack"]) for row in changes] == [
        ("3", one, True), ("2", two, False), ("1", one, False),
    ]  # fmt: skip
    assert (changes[1]["former"], changes[1]["reason"]) == (one, "better")
    assert [row["watched"] for row in changes] == [False, True, False]
    assert {row["verdict"] for row in changes} == {None}
    await watches.settle(at.pool, "gbdt", 2, "worse", "bad", (2500, 0.7, 0.6, 0.01))
    judged = (await ask(at.client, PROMOTIONS))["data"]["promotions"][1]
    assert judged.pop("judgedAt") >= judged["at"]
    told = ("verdict", "n", "liveLogLoss", "shadowLogLoss", "standardError")
    assert [judged[name] for name in told] == ["WORSE", "2500", 0.7, 0.6, 0.01]
    for query, field in ((COMPARISONS, "modelComparisons"), (PROMOTIONS, "promotions")):
        assert len((await ask(at.client, query, first=1))["data"][field]) == 1
        assert (await ask(at.client, query, model="other"))["data"][field] == []
        assert code_of(await ask(at.client, query, model="a\0")) == "BAD_INPUT"
