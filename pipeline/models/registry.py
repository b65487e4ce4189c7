"""The registry: versions of models in Postgres, what they come from, and which of them speak."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import ConflictError, MisuseError, RefusedError
from pipeline.models.gbdt import check_canary
from pipeline.stages.chain import ChainSettings
from pipeline.store.pool import Connection, Pool
from pipeline.store.statements import statement
from schemas.blocks import VOL_REGIMES
from schemas.gbdt import GBDT, Gbdt, read_gbdt
from schemas.models import digest_of

FeatureSetOf = Callable[[Sequence[str]], str]  # hash of what these columns are here
Row = dict[str, Any]
_JSON: Final = ("hyperparameters", "data", "metrics")


@dataclass(frozen=True, slots=True)
class Change:
    """What a promotion or a rollback did; not `changed` when the version was active already."""

    model: str
    version: str
    former: str | None
    generation: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Shadowed:
    """Which version became the shadow of a model in the place of which; None: there is none.

    Not `changed` when it was so already.
    """

    model: str
    shadow: str | None
    former: str | None
    generation: int
    changed: bool


async def register(pool: Pool, model: str, body: bytes) -> Gbdt:
    """Keep a version, by the hash of its bytes; it is not active. Twice the same is once.

    Raises:
        RefusedError: the artifact is damaged, or does not say what its own canary says.
        ConflictError: a version of this name is registered with another content.
    """
    version = _read(body)
    held = version.metrics.held_out
    artifact = hashlib.sha256(body).hexdigest()
    data = version.data.model_dump(mode="json")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(statement("add_artifact"), artifact, body)
        await connection.execute(statement("add_model"), model)
        added = await connection.fetchval(
            statement("add_version"),
            version.version,
            model,
            GBDT,
            artifact,
            list(version.features),
            version.feature_set,
            version.horizon,
            json.dumps(dict(version.hyperparameters)),
            json.dumps(data),
            digest_of(data),
            version.data.first_ts,
            version.data.last_ts,
            version.metrics.model_dump_json(),
        )
        if added is None:
            await _same(connection, version.version, model, artifact)
            return version
        scores = held.log_loss, held.null_log_loss, held.brier, held.auc
        await connection.execute(
            statement("add_scores"),
            version.version,
            "held_out",
            held.first_ts,
            held.last_ts,
            held.n,
            *scores,
        )
    return version


async def _same(connection: Connection, version: str, model: str, artifact: str) -> None:
    row = await connection.fetchrow(statement("version"), version)
    if row is None or row["artifact"] != artifact or row["model"] != model:
        raise ConflictError(f"{version} is registered already, with another content")


async def versions(pool: Pool, model: str | None = None) -> list[Row]:
    """Every version, or those of a model, oldest first; `is_active` and `is_shadow` tell who is.

    `regimes` are those in which it speaks in the place of the active one.
    """
    return [_told(row) for row in await pool.fetch(statement("versions"), model)]


async def version_of(pool: Pool, version: str) -> Row:
    """One version.

    Raises:
        MisuseError: there is none of this name.
    """
    row = await pool.fetchrow(statement("version"), version)
    if row is None:
        raise MisuseError(f"there is no version {version!r}: see `tickstream models list`")
    return _told(row)


async def history(pool: Pool, model: str) -> list[Row]:
    """Promotions and rollbacks of a model, oldest first."""
    return [dict(row) for row in await pool.fetch(statement("promotions"), model)]


async def importance(
    pool: Pool, versions: Sequence[str], symbol: str, top: int
) -> dict[str, list[Row]]:
    """By version the features with the highest values by each method, on the rows of a symbol."""
    found: dict[str, list[Row]] = {version: [] for version in versions}
    for row in await pool.fetch(statement("importance_of"), list(versions), symbol, top):
        found[row["version"]].append(dict(row))
    return found


async def comparisons(pool: Pool, model: str, limit: int) -> list[Row]:
    """The newest comparisons of versions of a model, newest first."""
    return [dict(row) for row in await pool.fetch(statement("comparisons"), model, limit)]


async def promotions(pool: Pool, model: str, limit: int) -> list[Row]:
    """The newest promotions and rollbacks of a model, newest first."""
    return [dict(row) for row in await pool.fetch(statement("newest_promotions"), model, limit)]


async def shadows(pool: Pool, model: str, limit: int) -> list[Row]:
    """The newest changes of the shadow of a model, newest first; no version: it had none then."""
    return [dict(row) for row in await pool.fetch(statement("newest_shadows"), model, limit)]


async def load(pool: Pool, artifact: str) -> Gbdt:
    """A version by the hash of its artifact.

    Raises:
        RefusedError: it is not there, its bytes have not that hash, or they cannot be used.
    """
    body = await pool.fetchval(statement("artifact"), artifact)
    if body is None:
        raise RefusedError(f"artifact {artifact[:12]} is not in the database")
    return await asyncio.to_thread(_verified, body, artifact)


def _verified(body: bytes, artifact: str) -> Gbdt:
    """A version, of a megabyte some tens of milliseconds of work."""
    if hashlib.sha256(body).hexdigest() != artifact:
        raise RefusedError(f"artifact {artifact[:12]} is damaged: its bytes have another hash")
    return _read(body)


async def promote(
    pool: Pool,
    version: str,
    feature_set_of: FeatureSetOf,
    reason: str = "",
    generation: int | None = None,
    *,
    watch: bool = False,
) -> Change:
    """Make a version the active one of its model, if that is still of this generation.

    Without a generation it is about the one that is active now. To `watch` is to have the version
    that was active before go on as the shadow, and the promotion judged by it (see `watching`).

    Raises:
        MisuseError: there is no such version.
        RefusedError: it is damaged, or was trained on other features than there are here.
        ConflictError: another promotion or rollback came first.
    """
    row = await version_of(pool, version)
    if generation is not None:
        row["generation"] = generation
    return await _change(pool, row, feature_set_of, reason, watch=watch)


async def rollback(
    pool: Pool,
    model: str,
    feature_set_of: FeatureSetOf,
    reason: str = "",
    generation: int | None = None,
) -> Change:
    """Make the version active again that was it before the active one was promoted.

    With a generation only if the model is still of this one.

    Raises:
        MisuseError: there is no such model, or none was active before.
        RefusedError: what was active before is damaged, or looks at other features.
        ConflictError: another promotion or rollback came first.
    """
    head = await speaking(pool, model)
    if generation is not None and head["generation"] != generation:
        raise await came_first(pool, model)
    former = await pool.fetchval(statement("former"), model)
    if former is None:
        now = head["active"]
        raise MisuseError(
            f"{model}: no version was active before {now}" if now else f"{model}: none is active"
        )
    # What is decided here is decided about the version that was active when we looked.
    then = {name: head[name] for name in ("active", "shadow", "generation")}
    row = {**await version_of(pool, former), **then}
    return await _change(pool, row, feature_set_of, reason, rolled_back=True)


async def shadow(
    pool: Pool, version: str, feature_set_of: FeatureSetOf, reason: str = ""
) -> Shadowed:
    """Have a version predict beside the active one of its model: it is scored and does not trade.

    Raises:
        MisuseError: there is no such version, or it is the active one.
        RefusedError: it is damaged, or was trained on other features than there are here.
        ConflictError: another change came first.
    """
    row = await version_of(pool, version)
    if row["is_active"]:
        raise MisuseError(f"{version} is the active version: it speaks already")
    if not row["is_shadow"]:
        check_features(await load(pool, row["artifact"]), feature_set_of)
    return await _beside(pool, row["model"], row, version, reason)


async def unshadow(pool: Pool, model: str, reason: str = "") -> Shadowed:
    """Have no version of a model predict beside the active one.

    Raises:
        MisuseError: there is no such model.
        ConflictError: another change came first.
    """
    return await _beside(pool, model, await speaking(pool, model), None, reason)


async def _beside(
    pool: Pool, model: str, now: Mapping[str, Any], version: str | None, reason: str
) -> Shadowed:
    """Make a version the shadow if the model is as it was `now`."""
    former, generation = now["shadow"], now["generation"]
    if former == version:
        return Shadowed(model, version, former, generation, changed=False)
    made = await pool.fetchval(statement("shadow"), model, generation, version, reason)
    if made is None:
        raise await came_first(pool, model)
    return Shadowed(model, version, former, made, changed=True)


async def speaking(pool: Pool, model: str) -> Mapping[str, Any]:
    """Which versions of a model speak, and of which generation that is."""
    head = await pool.fetchrow(statement("model"), model)
    if head is None:
        raise MisuseError(f"there is no model {model!r}: see `tickstream models list`")
    return dict(head)


async def came_first(pool: Pool, model: str) -> ConflictError:
    """What to say to whom another change has left nothing to do."""
    head = await speaking(pool, model)
    return ConflictError(
        f"{model}: another change came first: {head['active']} is active now, "
        f"{head['shadow'] or 'none'} the shadow; look at it, then try again"
    )


async def _change(
    pool: Pool,
    row: Mapping[str, Any],
    feature_set_of: FeatureSetOf,
    reason: str,
    *,
    rolled_back: bool = False,
    watch: bool = False,
) -> Change:
    version, model, former = row["version"], row["model"], row["active"]
    if former == version:  # whoever made it so
        return Change(model, version, former, row["generation"], changed=False)
    found = await load(pool, row["artifact"])
    check_features(found, feature_set_of)
    watched = watch and former is not None
    beside, why = row["shadow"], "it was active before"
    if watched:
        beside = former
    elif beside == version:
        beside, why = None, "it became active"
    generation = await pool.fetchval(
        statement("promote"), model, row["generation"], version, former, rolled_back, reason,
        beside, why, beside != row["shadow"], watched,
    )  # fmt: skip
    if generation is None:
        raise await came_first(pool, model)
    return Change(model, version, former, generation, changed=True)


def check_chain(version: Gbdt, settings: ChainSettings) -> None:
    """Whether a version can speak in a chain of these settings.

    Raises:
        RefusedError: it looks at other features, or speaks of another horizon.
    """
    check_features(version, settings.feature_set)
    ahead = settings.predictions.horizon
    if version.horizon != ahead:
        raise RefusedError(
            f"{version.version} speaks of {version.horizon} bars, predictions.horizon is {ahead}"
        )


def check_features(version: Gbdt, feature_set_of: FeatureSetOf) -> None:
    """Whether what a version was trained on is what there is here.

    Raises:
        RefusedError: a column is missing, or comes by other settings or another definition.
    """
    try:
        here = feature_set_of(version.features)
    except MisuseError as error:
        raise RefusedError(f"{version.version} looks at what is not there: {error}") from error
    if here != version.feature_set:
        raise RefusedError(
            f"{version.version} was trained on another feature set: other settings of guard, bars, "
            "features or user, or another definition of a column"
        )


def _read(body: bytes) -> Gbdt:
    try:
        version = read_gbdt(body)
        check_canary(version)
    except ValueError as error:
        raise RefusedError(f"the artifact cannot be used: {error}") from error
    return version


def _told(row: Any) -> Row:
    found = dict(row)
    found.update((name, json.loads(found[name])) for name in _JSON)
    found["regimes"].sort(key=VOL_REGIMES.index)
    return found
