"""Versions by volatility regime: stated in the registry, told to the stream, heard by workers."""

import asyncio

import asyncpg
import pytest

from pipeline.bus.publisher import Publisher
from pipeline.errors import ConflictError, MisuseError, RefusedError, StateError, UnavailableError
from pipeline.models import announce, registry, selection
from pipeline.models.following import Follower
from pipeline.models.selection import Selection
from pipeline.servers import Addresses
from pipeline.stages.chain import ChainSettings
from pipeline.store.pool import Pool
from schemas.models import Activation
from schemas.topics import ALERTS, MODELS
from tests.acceptance import evidence
from tests.integration.models.test_announce import heard
from tests.integration.models.test_following import following, registered

CHAIN = ChainSettings()
OTHER = ChainSettings.model_validate({"bars": {"clock": "ticks:7"}})


async def select(pool: Pool, model: str, reason: str = "", **chosen: str | None) -> Selection:
    """By the default settings."""
    return await selection.select(pool, model, chosen, CHAIN.feature_set, reason)


async def regimes(pool: Pool) -> dict[str, list[str]]:
    """In which regimes the versions speak in the place of the active one."""
    rows = await registry.versions(pool)
    return {row["version"]: row["regimes"] for row in rows if row["regimes"]}


async def test_what_is_stated_stays(pool: Pool, model: str) -> None:
    """Until it is stated otherwise, through promotions and rollbacks; each change is in the log."""
    one, two, three = await registered(pool, model, 1, 2, 3)
    await registry.promote(pool, one, CHAIN.feature_set)
    found = await select(pool, model, "calm", high=two, extreme=two)
    assert found == Selection(model, {"high": two, "extreme": two}, 2, changed=True)
    assert await regimes(pool) == {two: ["high", "extreme"]}
    found = await select(pool, model, extreme=three, low=one)
    assert found == Selection(model, {"low": one, "high": two, "extreme": three}, 3, changed=True)
    assert await select(pool, model, low=one) == Selection(model, found.selected, 3, changed=False)
    await registry.promote(pool, two, CHAIN.feature_set)
    await registry.rollback(pool, model, CHAIN.feature_set)
    assert await regimes(pool) == {one: ["low"], two: ["high"], three: ["extreme"]}
    assert (await registry.version_of(pool, three))["regimes"] == ["extreme"]
    await select(pool, model, high=None, normal=None)
    found = await select(pool, model, "done", **dict.fromkeys(("low", "extreme")))
    assert found == Selection(model, {}, 7, changed=True)
    assert await regimes(pool) == {}
    log = await selection.changes(pool, model, 10)
    assert [(row["generation"], row["selected"], row["reason"]) for row in log] == [
        (7, {}, "done"),
        (6, {"low": one, "extreme": three}, ""),
        (3, {"low": one, "high": two, "extreme": three}, ""),
        (2, {"high": two, "extreme": two}, "calm"),
    ]


async def test_what_cannot_be_is_refused(pool: Pool, model: str) -> None:
    """Nothing has changed by it."""
    one, two = await registered(pool, model, 1, 2)
    (foreign,) = await registered(pool, f"{model}x", 3)
    with pytest.raises(MisuseError, match="none is active"):
        await select(pool, model, high=two)
    assert not (await select(pool, model, high=None)).changed
    await registry.promote(pool, one, CHAIN.feature_set)
    with pytest.raises(MisuseError, match="there is no model 'nothing'"):
        await select(pool, "nothing", high=two)
    with pytest.raises(MisuseError, match="there is no version 'gbdt-0'"):
        await select(pool, model, high="gbdt-0")
    with pytest.raises(MisuseError, match=f"{foreign} is a version of {model}x, not of {model}"):
        await select(pool, model, high=foreign)
    with pytest.raises(MisuseError, match="there is no regime 'mid': low, normal, high, extreme"):
        await select(pool, model, mid=two)
    with pytest.raises(MisuseError, match="in which regimes"):
        await select(pool, model)
    with pytest.raises(RefusedError, match="another feature set"):
        await selection.select(pool, model, {"high": two}, OTHER.feature_set)
    await pool.execute("UPDATE artifacts SET body = 'x'")
    with pytest.raises(RefusedError, match="another hash"):
        await select(pool, model, high=two)
    assert await regimes(pool) == {}
    assert (await registry.speaking(pool, model))["generation"] == 1
    assert await selection.changes(pool, model, 10) == []


async def test_of_two_changes_at_once_one_wins(pool: Pool, postgres: str, model: str) -> None:
    """A promotion that is committed meanwhile leaves nothing to select."""
    one, two = await registered(pool, model, 1, 2)
    await registry.promote(pool, one, CHAIN.feature_set)
    other = await asyncpg.connect(postgres)
    try:
        async with other.transaction():
            await other.execute("UPDATE models SET generation = generation + 1")
            late = asyncio.create_task(select(pool, model, high=two))
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 -- only the server knows
                await asyncio.sleep(0.01)
        with pytest.raises(ConflictError, match="another change came first"):
            await late
    finally:
        await other.close()
    assert await regimes(pool) == {}


async def test_it_is_told(pool: Pool, kafka: str, model: str) -> None:
    """With the hashes of the artifacts; a refusal is an alert, and what was not told is told."""
    one, two = await registered(pool, model, 1, 2)
    await announce.promote(pool, kafka, one, CHAIN.feature_set)
    models, alerts = await heard(kafka, MODELS), await heard(kafka, ALERTS)
    change = selection.speaking_in(("high", "extreme"))
    await change(pool, kafka, two, CHAIN.feature_set, "stormy")
    hashes = {row["version"]: row["artifact"] for row in await registry.versions(pool)}
    ((key, document),) = await models.values()
    assert key == model.encode()
    named = {"version": two, "artifact": hashes[two]}
    assert document == {
        "model": model, "version": one, "generation": 2, "artifact": hashes[one],
        "rolled_back": False, "shadow": None, "shadow_artifact": None,
        "selected": {"high": named, "extreme": named},
    }  # fmt: skip
    with pytest.raises(RefusedError):
        await selection.speaking_in(["low"])(pool, kafka, two, OTHER.feature_set, "")
    ((_, document),) = await alerts.values()
    assert (document["kind"], document["version"]) == ("model_refused", two)
    with pytest.raises(UnavailableError, match="does not answer"):
        await selection.speaking_in(["low"])(pool, "127.0.0.1:1", two, CHAIN.feature_set, "")
    assert await regimes(pool) == {two: ["high", "extreme"]}
    await selection.active_in(())(pool, kafka, model, CHAIN.feature_set, "")
    *_, (_, document) = await models.values()
    assert (document["version"], document["generation"], document["selected"]) == (one, 3, {})


async def test_a_record_that_is_not_taken(
    pool: Pool, kafka: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is selected, the message says how to tell the stream, and doing so works."""
    one, two = await registered(pool, model, 1, 2)
    await announce.promote(pool, kafka, one, CHAIN.feature_set)
    models = await heard(kafka, MODELS)
    change = selection.speaking_in(["high"])

    async def refuse(*_: object) -> None:
        raise UnavailableError("Kafka does not take the outputs: full")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "deliver", refuse)
        words = f"is selected anew, but .* `tickstream models select {two} --regime high` tells"
        with pytest.raises(UnavailableError, match=words):
            await change(pool, kafka, two, CHAIN.feature_set, "")
    assert await models.values() == []
    assert not (await change(pool, kafka, two, CHAIN.feature_set, "")).changed
    assert [list(document["selected"]) for _, document in await models.values()] == [["high"]]


async def offered(follower: Follower, wanted: Activation) -> None:
    """Wait until it offers this."""

    async def holds() -> bool:
        return follower.newest is not None and follower.newest.at(0).activation == wanted

    await evidence.until(holds, 20, pause=0.02)


async def test_workers_follow(pool: Pool, kafka: str, addresses: Addresses, model: str) -> None:
    """Verified before it is offered; if one version is refused the old ones go on."""
    one, two, three = await registered(pool, model, 1, 2, 3)
    await announce.promote(pool, kafka, one, CHAIN.feature_set)
    async with following(kafka, pool, model) as follower:
        await selection.speaking_in(["high", "low"])(pool, kafka, two, CHAIN.feature_set, "")
        wanted = Activation(0, 0, model, 2, one, None, {"high": two, "low": two})
        await offered(follower, wanted)
        # What only the worker finds: it is damaged after it was selected.
        await selection.select(pool, model, {"extreme": three}, CHAIN.feature_set)
        await pool.execute(
            "UPDATE artifacts SET body = 'x' FROM model_versions v"
            " WHERE v.artifact = hash AND v.version = $1",
            three,
        )
        await selection.speaking_in(["extreme"])(pool, kafka, three, CHAIN.feature_set, "")

        async def refused() -> bool:
            found = await evidence.records(addresses, "alerts")
            return any(model.encode() in (one.value or b"") for one in found)

        await evidence.until(refused, 20)
        await offered(follower, wanted)
        await selection.active_in(["extreme"])(pool, kafka, model, CHAIN.feature_set, "")
        await offered(follower, Activation(0, 0, model, 4, one, None, {"high": two, "low": two}))
    async with following(kafka, pool, model) as late:
        assert late.newest is not None
        assert late.newest.at(3).selected["high"] is late.newest.at(3).selected["low"]


async def test_what_was_activated_comes_back(pool: Pool, kafka: str, model: str) -> None:
    """With the versions of all regimes; one that is gone ends the recovery with a clear line."""
    one, two = await registered(pool, model, 1, 2)
    planned = [Activation(3, 1, model, 1, one, None, {"high": two, "low": None})]
    async with Publisher(kafka) as publisher:
        follower = Follower(kafka, pool, publisher, model, CHAIN)
        (found,) = await follower.activated(planned)
        assert found.activation == planned[0]
        assert found.selected["low"] is None
        assert found.selected["high"] is not None
        assert found.selected["high"].version == two
        gone = Activation(4, 0, model, 2, one, None, {"high": "v3"})
        with pytest.raises(StateError, match="v3 has spoken and is not in the registry"):
            await follower.activated([*planned, gone])
