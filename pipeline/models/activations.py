"""Activations with the versions that they name, as the chain takes them."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pipeline.errors import MisuseError, RefusedError, StateError
from pipeline.models import registry
from pipeline.settings import Settings
from pipeline.stages.boosted import Activated, Boosted
from pipeline.stages.chain import Chain
from pipeline.store.activations import activations
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from schemas.models import Activation

Planned = Mapping[int, Sequence[Activated]]  # by partition, in the order of the places
NONE_PLANNED: Final[Planned] = MappingProxyType({})


async def activated(
    pool: Pool, planned: Sequence[Activation], known: MutableMapping[str, Boosted]
) -> list[Activated]:
    """Activations that were stored, with their versions; `known` by artifact grows.

    Raises:
        StateError: a version cannot be used any more: the rows by it cannot be made again.
        UnavailableError: Postgres does not answer.
    """
    named = {name for one in planned for name in _named(one) if name is not None}
    rows = await pool.fetch(statement("artifacts_of"), sorted(named)) if named else []
    found: dict[str, Boosted] = {}
    for row in rows:
        try:
            found[row["version"]] = await boosted(pool, row["artifact"], known)
        except RefusedError as error:
            raise StateError(f"{row['version']} has spoken and cannot any more: {error}") from error
    if len(found) < len(named):
        missing = ", ".join(sorted(named - found.keys()))
        raise StateError(f"{missing} has spoken and is not in the registry")

    def known_as(name: str | None) -> Boosted | None:
        return None if name is None else found[name]

    return [
        Activated(
            one,
            known_as(one.version),
            known_as(one.shadow),
            {regime: known_as(name) for regime, name in one.selected.items()},
        )
        for one in planned
    ]


def _named(activation: Activation) -> tuple[str | None, ...]:
    return activation.version, activation.shadow, *activation.selected.values()


async def boosted(pool: Pool, artifact: str, known: MutableMapping[str, Boosted]) -> Boosted:
    """A version by the hash of its artifact.

    Raises:
        RefusedError: it is not there, or cannot be used.
        UnavailableError: Postgres does not answer.
    """
    if artifact not in known:
        version = await registry.load(pool, artifact)
        known[artifact] = Boosted(version.version, version.trees)
    return known[artifact]


def behind(chain: Chain, planned: Iterable[Activation]) -> list[Activation]:
    """Those that a chain has not applied."""
    last = chain.activation
    return [one for one in planned if last is None or one.place > last.place]


async def of_live_run(
    pool: Pool, settings: Settings, partitions: Iterable[int]
) -> dict[int, list[Activated]]:
    """What the live run of `worker.group` activated, for a replay of its partitions.

    A version that speaks of other features or of another horizon than these settings is silent.

    Raises:
        StateError: a version cannot be used any more.
        UnavailableError: Postgres does not answer.
    """
    if not await pool.fetchval(statement("has_activations")):
        return {}
    known: dict[str, Boosted] = {}
    fits: dict[str | None, bool] = {None: True}
    found = {}
    for partition in partitions:
        planned = await activations(pool, settings.worker.group, partition)
        for name in {name for one in planned for name in _named(one)} - fits.keys():
            fits[name] = await _fits(pool, str(name), settings)
        told = [
            replace(
                one,
                version=one.version if fits[one.version] else None,
                shadow=one.shadow if fits[one.shadow] else None,
                selected={r: name if fits[name] else None for r, name in one.selected.items()},
            )
            for one in planned
        ]
        if told:
            found[partition] = await activated(pool, told, known)
    return found


async def _fits(pool: Pool, name: str, settings: Settings) -> bool:
    """Whether a version can speak by these settings."""
    version = await registry.version_of(pool, name)
    try:
        same = settings.chain.feature_set(version["features"]) == str(version["feature_set"])
    except MisuseError:
        return False
    return same and int(version["horizon"]) == settings.predictions.horizon


async def plan_stored(pool: Pool, service: str, chain: Chain) -> list[Activation]:
    """Have a chain do what a live run of its partition did, from where its state is.

    Raises:
        StateError: a version cannot be used any more.
        UnavailableError: Postgres does not answer.
    """
    planned = behind(chain, await activations(pool, service, chain.partition))
    for one in await activated(pool, planned, {}):
        chain.plan(one)
    return planned
