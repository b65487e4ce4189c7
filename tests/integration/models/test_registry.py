"""Versions in a real Postgres: one promotion wins, what is damaged or foreign never gets active."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from pipeline.errors import ConflictError, MisuseError, RefusedError, UnavailableError
from pipeline.models import registry
from pipeline.models.gbdt import canary_of
from pipeline.models.registry import Change, Shadowed
from pipeline.settings import StoreSettings
from pipeline.stages.chain import ChainSettings
from pipeline.store.pool import Pool, open_pool
from schemas.gbdt import Gbdt, read_gbdt
from schemas.models import digest_of
from tests.fixtures import boosted

CHAIN = ChainSettings()
OTHER = ChainSettings.model_validate({"bars": {"clock": "ticks:7"}})


@pytest.fixture
async def other(postgres: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else at the same database."""
    connection = await asyncpg.connect(postgres)
    yield connection
    await connection.close()


async def registered(pool: Pool, *seeds: int) -> list[str]:
    """Names of new versions."""
    return [(await registry.register(pool, "gbdt", boosted.artifact(s))).version for s in seeds]


async def promote(pool: Pool, version: str) -> Change:
    """By the default settings."""
    return await registry.promote(pool, version, CHAIN.feature_set)


async def active(pool: Pool) -> list[str]:
    """The versions that are marked as active."""
    return [row["version"] for row in await registry.versions(pool) if row["is_active"]]


async def test_a_version_is_kept_with_all_that_it_comes_from(pool: Pool) -> None:
    """Range, hashes, features, figures; and its bytes by their hash."""
    body = boosted.artifact(1)
    told = read_gbdt(body)
    found = await registry.register(pool, "gbdt", body)
    row = await registry.version_of(pool, found.version)
    assert found.version == told.version == row["version"]
    assert (row["model"], row["kind"], row["is_active"]) == ("gbdt", "gbdt", False)
    assert tuple(row["features"]) == boosted.INPUTS
    assert row["feature_set"] == CHAIN.feature_set(boosted.INPUTS)
    assert (row["first_ts"], row["last_ts"], row["horizon"]) == (0, 890, 5)
    assert row["data"] == told.data.model_dump(mode="json")
    assert row["data_hash"] == digest_of(row["data"])
    assert row["hyperparameters"] == dict(told.hyperparameters)
    assert row["metrics"]["held_out"]["log_loss"] == 0.68
    assert row["artifact"] == hashlib.sha256(body).hexdigest()
    assert (
        await pool.fetchval("SELECT body FROM artifacts WHERE hash = $1", row["artifact"]) == body
    )
    scores = await pool.fetchrow("SELECT * FROM model_metrics")
    assert scores is not None
    assert (scores["version"], scores["rows"], scores["n"]) == (found.version, "held_out", 100)
    assert (scores["log_loss"], scores["null_log_loss"], scores["auc"]) == (0.68, 0.69, 0.6)


async def test_the_same_twice_is_once(pool: Pool) -> None:
    """Another content under the same name is told, and changes nothing."""
    (version,) = await registered(pool, 1)
    assert await registered(pool, 1) == [version]
    assert await pool.fetchval("SELECT count(*) FROM model_metrics") == 1
    same = boosted.artifact(1, hyperparameters={"other": 1})
    assert read_gbdt(same).version == version
    with pytest.raises(ConflictError, match="registered already, with another content"):
        await registry.register(pool, "gbdt", same)
    with pytest.raises(ConflictError, match="registered already"):
        await registry.register(pool, "gbdt_two", boosted.artifact(1))
    assert await pool.fetchval("SELECT count(*) FROM model_versions") == 1
    assert await pool.fetchval("SELECT count(*) FROM models") == 1
    assert await pool.fetchval("SELECT count(*) FROM artifacts") == 1


async def test_promotions_and_rollbacks(pool: Pool) -> None:
    """One is active; a rollback goes to what was active before the promotion, each in the log."""
    one, two, three = await registered(pool, 1, 2, 3)
    assert await active(pool) == []
    assert await promote(pool, one) == Change("gbdt", one, None, 1, changed=True)
    assert await promote(pool, two) == Change("gbdt", two, one, 2, changed=True)
    assert await promote(pool, two) == Change("gbdt", two, two, 2, changed=False)
    await promote(pool, three)
    assert await active(pool) == [three]
    back = await registry.rollback(pool, "gbdt", CHAIN.feature_set, "slow")
    assert back == Change("gbdt", two, three, 4, changed=True)
    assert await registry.rollback(pool, "gbdt", CHAIN.feature_set) == Change(
        "gbdt", one, two, 5, changed=True
    )
    with pytest.raises(MisuseError, match=f"no version was active before {one}"):
        await registry.rollback(pool, "gbdt", CHAIN.feature_set)
    assert await active(pool) == [one]
    await promote(pool, three)
    assert (await registry.rollback(pool, "gbdt", CHAIN.feature_set)).version == one
    log = await pool.fetch("SELECT generation, from_version, to_version, reason FROM rollback_log")
    assert [tuple(row) for row in log] == [
        (4, three, two, "slow"), (5, two, one, ""), (7, three, one, ""),
    ]  # fmt: skip
    told = [(row["generation"], row["version"]) for row in await registry.history(pool, "gbdt")]
    assert told == [(1, one), (2, two), (3, three), (4, two), (5, one), (6, three), (7, one)]


async def of_now(pool: Pool) -> tuple[object, ...]:
    """The active version, the shadow and the generation; and who is marked as the shadow."""
    row = await pool.fetchrow("SELECT active, shadow, generation FROM models")
    marked = [row["version"] for row in await registry.versions(pool) if row["is_shadow"]]
    return (*(row or ()), marked)


async def test_a_shadow_speaks_beside_the_active_version(pool: Pool) -> None:
    """Each change is a generation with its row; one that becomes active is no shadow any more."""
    one, two, three = await registered(pool, 1, 2, 3)
    of = CHAIN.feature_set
    first = await registry.shadow(pool, one, of, "look at it")
    assert first == Shadowed("gbdt", one, None, 1, changed=True)
    assert await of_now(pool) == (None, one, 1, [one])
    await promote(pool, one)
    assert await of_now(pool) == (one, None, 2, [])
    with pytest.raises(MisuseError, match=f"{one} is the active version"):
        await registry.shadow(pool, one, of)
    assert await registry.shadow(pool, two, of) == Shadowed("gbdt", two, None, 3, changed=True)
    assert await registry.shadow(pool, two, of) == Shadowed("gbdt", two, two, 3, changed=False)
    assert (await registry.shadow(pool, three, of)).former == two
    await promote(pool, two)
    assert await of_now(pool) == (two, three, 5, [three])
    await registry.rollback(pool, "gbdt", of)
    assert await of_now(pool) == (one, three, 6, [three])
    ended = await registry.unshadow(pool, "gbdt", "seen enough")
    assert ended == Shadowed("gbdt", None, three, 7, changed=True)
    assert not (await registry.unshadow(pool, "gbdt")).changed
    assert await of_now(pool) == (one, None, 7, [])
    told = await registry.shadows(pool, "gbdt", 10)
    assert [(row["generation"], row["version"], row["reason"]) for row in told] == [
        (7, None, "seen enough"), (4, three, ""), (3, two, ""), (2, None, "it became active"),
        (1, one, "look at it"),
    ]  # fmt: skip
    assert [row["generation"] for row in await registry.history(pool, "gbdt")] == [2, 5, 6]


async def test_a_rollback_of_a_promotion_is_of_no_later_change(pool: Pool) -> None:
    """Who names the generation does not go back once more behind somebody else."""
    one, two, three = await registered(pool, 1, 2, 3)
    for version in (one, two, three):
        await registry.promote(pool, version, CHAIN.feature_set, watch=True)
    assert await of_now(pool) == (three, two, 3, [two])
    first, second = await asyncio.gather(
        *(
            registry.rollback(pool, "gbdt", CHAIN.feature_set, "worse", generation=3)
            for _ in range(2)
        ),
        return_exceptions=True,
    )
    assert {type(first), type(second)} == {Change, ConflictError}
    with pytest.raises(ConflictError, match=f"{two} is active now"):
        await registry.rollback(pool, "gbdt", CHAIN.feature_set, "worse", generation=3)
    assert await of_now(pool) == (two, None, 4, [])


async def test_what_may_not_be_a_shadow(pool: Pool, other: asyncpg.Connection) -> None:
    """Damage, other features, unknown names, and who comes second; nothing changes by them."""
    one, two = await registered(pool, 1, 2)
    await promote(pool, one)
    with pytest.raises(RefusedError, match="trained on another feature set"):
        await registry.shadow(pool, two, OTHER.feature_set)
    async with other.transaction():
        await other.execute("UPDATE models SET generation = generation + 1")
        late = asyncio.create_task(registry.shadow(pool, two, CHAIN.feature_set))
        await waits(other)
    with pytest.raises(ConflictError, match=f"{one} is active now, none the shadow"):
        await late
    hashed = (await registry.version_of(pool, two))["artifact"]
    await pool.execute("UPDATE artifacts SET body = body || 'x'::bytea WHERE hash = $1", hashed)
    with pytest.raises(RefusedError, match="its bytes have another hash"):
        await registry.shadow(pool, two, CHAIN.feature_set)
    with pytest.raises(MisuseError, match="there is no version"):
        await registry.shadow(pool, "gbdt-0", CHAIN.feature_set)
    with pytest.raises(MisuseError, match="there is no model"):
        await registry.unshadow(pool, "other")
    assert await of_now(pool) == (one, None, 2, [])
    assert await registry.shadows(pool, "gbdt", 10) == []


async def test_of_two_promotions_at_once_one_wins(pool: Pool, other: asyncpg.Connection) -> None:
    """The one that waits for the other's commit is told of it, and changes nothing."""
    one, two, three = await registered(pool, 1, 2, 3)
    await promote(pool, one)
    async with other.transaction():
        await other.execute(
            "UPDATE models SET active = $1, generation = generation + 1 WHERE name = 'gbdt'", two
        )
        late = asyncio.create_task(promote(pool, three))
        await waits(other)
    with pytest.raises(ConflictError, match=f"{two} is active now"):
        await late
    assert await active(pool) == [two]
    # Had the other given up, it would have been taken.
    async with other.transaction():
        await other.execute("UPDATE models SET generation = generation + 1")
        late = asyncio.create_task(promote(pool, three))
        await waits(other)
        await other.execute("UPDATE models SET generation = generation - 1")
    assert (await late).version == three


async def waits(other: asyncpg.Connection) -> None:
    """Until somebody waits for a lock."""
    held_up = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    while not await other.fetchval(held_up):  # noqa: ASYNC110 -- only the server knows
        await asyncio.sleep(0.01)


async def test_many_at_once_are_told_apart(postgres: str) -> None:
    """As many generations as winners; every loser knows that it lost."""
    pool = await open_pool(postgres, StoreSettings(pool_max=8))
    try:
        names = await registered(pool, *range(1, 9))
        await promote(pool, names[0])
        results = await asyncio.gather(
            *(promote(pool, name) for name in names[1:]), return_exceptions=True
        )
        won = [found for found in results if isinstance(found, Change)]
        lost = [found for found in results if isinstance(found, ConflictError)]
        assert len(won) + len(lost) == 7
        assert won
        assert sorted(change.generation for change in won) == list(range(2, 2 + len(won)))
        assert await active(pool) == [max(won, key=lambda change: change.generation).version]
        assert [row["version"] for row in await registry.history(pool, "gbdt")][1:] == [
            change.version for change in sorted(won, key=lambda change: change.generation)
        ]
    finally:
        await pool.close()


@pytest.mark.parametrize("at", [0, 500, -2])
async def test_a_damaged_artifact_is_refused(pool: Pool, at: int) -> None:
    """A byte of it has changed in the store: refused by its hash, the old one stays."""
    one, two = await registered(pool, 1, 2)
    await promote(pool, one)
    row = await registry.version_of(pool, two)
    body = bytearray(
        await pool.fetchval("SELECT body FROM artifacts WHERE hash = $1", row["artifact"])
    )
    body[at] ^= 1
    await pool.execute(
        "UPDATE artifacts SET body = $2 WHERE hash = $1", row["artifact"], bytes(body)
    )
    with pytest.raises(RefusedError, match="its bytes have another hash"):
        await promote(pool, two)
    assert await active(pool) == [one]
    # Nor is it gone back to.
    await pool.execute("UPDATE promotions SET former = $1 WHERE version = $2", two, one)
    with pytest.raises(RefusedError, match="its bytes have another hash"):
        await registry.rollback(pool, "gbdt", CHAIN.feature_set)
    assert await active(pool) == [one]
    assert len(await registry.history(pool, "gbdt")) == 1


async def test_another_feature_set_is_refused(pool: Pool) -> None:
    """By its hash when it is to become active: other settings, or a column that there is not."""
    one, two = await registered(pool, 1, 2)
    await promote(pool, one)
    with pytest.raises(RefusedError, match="trained on another feature set"):
        await registry.promote(pool, two, OTHER.feature_set)

    def without(names: Sequence[str]) -> str:
        raise MisuseError(f"bars and features have no column of numbers {names[0]}")

    with pytest.raises(RefusedError, match=f"{two} looks at what is not there: .* bar_ret_1"):
        await registry.promote(pool, two, without)
    assert await active(pool) == [one]


async def test_what_its_canary_denies_is_refused(pool: Pool) -> None:
    """The document is whole, but the trees say something else than they said."""
    told = read_gbdt(boosted.artifact(1))
    row = told.canary[3].model_copy(update={"log_odds": told.canary[3].log_odds + 1e-9})
    wrong = (*told.canary[:3], row, *told.canary[4:])
    with pytest.raises(RefusedError, match="of a canary row"):
        await registry.register(pool, "gbdt", boosted.artifact(1, canary=wrong))
    assert await registry.versions(pool) == []
    right = canary_of(told.trees, told.canary_inputs)
    assert right == told.canary


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "hmm"}, "no artifact of boosted trees"),
        ({"schema_version": 2}, "of another version of tickstream"),
        ({"horizon": 6}, "its hash is not that of its content"),
        ({"version": "x", "hash": None}, "no model: version"),
        ({"canary": [], "hash": None}, "no model: canary"),
        ({"metrics": {}, "hash": None}, "no model: metrics.held_out"),
        ({"trees": "tree\n", "hash": None}, "no model of LightGBM"),
    ],
)
async def test_what_is_no_artifact(pool: Pool, change: dict[str, object], why: str) -> None:
    """One line says what is wrong; nothing is kept of it."""
    document = {**boosted.document(1), **change}
    if document["hash"] is None:
        del document["hash"]
        document["hash"] = digest_of(document)
    with pytest.raises(RefusedError, match=why) as caught:
        await registry.register(pool, "gbdt", json.dumps(document).encode())
    assert "\n" not in str(caught.value)
    assert await pool.fetchval("SELECT count(*) FROM artifacts") == 0


async def test_unknown_names_are_told(pool: Pool) -> None:
    """Versions and models that there are not, whatever they are called."""
    for name in ("gbdt-000000000000", "'; DROP TABLE models; --", ""):
        with pytest.raises(MisuseError, match="there is no version"):
            await promote(pool, name)
        with pytest.raises(MisuseError, match="there is no model"):
            await registry.rollback(pool, name, CHAIN.feature_set)
    with pytest.raises(RefusedError, match="is not in the database"):
        await registry.load(pool, "0" * 64)


async def test_a_database_that_goes_away(pool: Pool, other: asyncpg.Connection) -> None:
    """In the middle of a promotion: told in one line, nothing is changed, a repetition works."""
    one, two = await registered(pool, 1, 2)
    await promote(pool, one)
    async with other.transaction():
        await other.execute("UPDATE models SET generation = generation")
        late = asyncio.create_task(promote(pool, two))
        await waits(other)
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(UnavailableError, match="Postgres does not answer"):
        await late
    assert await active(pool) == [one]
    assert (await promote(pool, two)).changed
    assert await active(pool) == [two]


async def test_what_is_read_is_what_was_registered(pool: Pool) -> None:
    """Loaded by its hash it says the same, bit for bit."""
    found: Gbdt = await registry.register(pool, "gbdt", boosted.artifact(4))
    row = await registry.version_of(pool, found.version)
    again = await registry.load(pool, row["artifact"])
    assert canary_of(again.trees, found.canary_inputs) == found.canary
