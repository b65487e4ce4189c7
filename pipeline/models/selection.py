"""Which version of a model speaks in which volatility regime: stated in the registry, and told."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import MisuseError
from pipeline.models import registry
from pipeline.models.announce import Announced, telling
from pipeline.models.registry import FeatureSetOf, check_features
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from schemas.blocks import VOL_REGIMES

Chosen = Mapping[str, str | None]  # versions by regime; None: the active one


@dataclass(frozen=True, slots=True)
class Selection:
    """Which versions speak by regime from a generation on; not `changed` if they did already."""

    model: str
    selected: Mapping[str, str]
    generation: int
    changed: bool


async def select(
    pool: Pool,
    model: str,
    chosen: Chosen,
    feature_set_of: FeatureSetOf,
    reason: str = "",
) -> Selection:
    """Have versions of a model speak in these regimes; what is stated of others stays.

    Raises:
        MisuseError: no regime is named, there is no such model, regime, or version of it, or none
            is active.
        RefusedError: a version is damaged, or was trained on other features than there are here.
        ConflictError: another change came first.
    """
    if not chosen:
        raise MisuseError(f"in which regimes? There are {', '.join(VOL_REGIMES)}")
    unknown = [regime for regime in chosen if regime not in VOL_REGIMES]
    if unknown:
        raise MisuseError(f"there is no regime {unknown[0]!r}: {', '.join(VOL_REGIMES)}")
    head = await registry.speaking(pool, model)
    now: dict[str, str] = json.loads(head["selected"])
    both = {**now, **chosen}
    wanted = {one: name for one in VOL_REGIMES if (name := both.get(one)) is not None}
    if wanted == now:
        return Selection(model, wanted, head["generation"], changed=False)
    if head["active"] is None and wanted:
        raise MisuseError(f"{model}: none is active, which speaks where none is selected")
    for name in sorted({name for name in chosen.values() if name is not None}):
        await _check(pool, model, name, feature_set_of)
    generation = await pool.fetchval(
        statement("select_versions"), model, head["generation"], json.dumps(wanted), reason
    )
    if generation is None:
        raise await registry.came_first(pool, model)
    return Selection(model, wanted, generation, changed=True)


async def _check(pool: Pool, model: str, name: str, feature_set_of: FeatureSetOf) -> None:
    """Whether a version of the model can be used here."""
    row = await registry.version_of(pool, name)
    if row["model"] != model:
        raise MisuseError(f"{name} is a version of {row['model']}, not of {model}")
    check_features(await registry.load(pool, row["artifact"]), feature_set_of)


def speaking_in(regimes: Iterable[str]) -> Announced[Selection]:
    """A change that has a version speak in these regimes, and tells the stream.

    To repeat it tells the stream what it was not told. It raises what `select` raises; a refusal is
    an alert; and UnavailableError, whose message says whether it is so in the registry.
    """

    async def change(
        pool: Pool, kafka: str, version: str, feature_set_of: FeatureSetOf, reason: str = ""
    ) -> Selection:
        model = (await registry.version_of(pool, version))["model"]
        chosen = dict.fromkeys(regimes, version)
        return await announced(pool, kafka, model, chosen, feature_set_of, reason)

    return change


def active_in(regimes: Iterable[str]) -> Announced[Selection]:
    """The same of a model: the active version speaks in these regimes, in all of them if none."""

    async def change(
        pool: Pool, kafka: str, model: str, feature_set_of: FeatureSetOf, reason: str = ""
    ) -> Selection:
        chosen = dict.fromkeys(tuple(regimes) or VOL_REGIMES)
        return await announced(pool, kafka, model, chosen, feature_set_of, reason)

    return change


async def announced(
    pool: Pool,
    kafka: str,
    model: str,
    chosen: Chosen,
    feature_set_of: FeatureSetOf,
    reason: str = "",
) -> Selection:
    """Have versions speak as they are chosen and tell the stream; see `speaking_in`."""
    names = ", ".join(sorted({name for name in chosen.values() if name is not None}))
    change = partial(select, pool, model, chosen, feature_set_of, reason)
    return await telling(pool, kafka, model, names, change, partial(_words, chosen))


def _words(chosen: Chosen, selection: Selection) -> tuple[str, str]:
    """What is so, and a command that tells it."""
    regime, name = next(iter(chosen.items()))
    what = f"{selection.model} --none" if name is None else name
    return f"{selection.model} is selected anew", f"select {what} --regime {regime}"


async def changes(pool: Pool, model: str, limit: int) -> list[dict[str, Any]]:
    """The newest selections of a model, newest first."""
    rows = await pool.fetch(statement("newest_selections"), model, limit)
    return [{**row, "selected": json.loads(row["selected"])} for row in rows]
