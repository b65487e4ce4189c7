"""A trained version in the registry: compared with the active one, promoted if it is better."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import MisuseError, RefusedError
from pipeline.kernels.trees import predict
from pipeline.models import announce, importance, regimes, registry
from pipeline.models.boosting import lightgbm_module
from pipeline.models.comparison import RULE, Comparison
from pipeline.models.importance import Importance
from pipeline.models.jobs import Trained
from pipeline.models.registry import Change, FeatureSetOf, check_features
from pipeline.models.samples import inputs_of, read_samples
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from schemas.blocks import Array
from schemas.gbdt import Gbdt
from schemas.models import digest_of


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of it; `why` in words. No comparison where none was possible."""

    version: str
    champion: str | None
    comparison: Comparison | None
    change: Change | None
    why: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison and the event times (ns) of its rows; and of the rows of each regime alone."""

    comparison: Comparison
    first_ts: int
    last_ts: int
    regimes: Mapping[str, Comparison]


async def settle(
    pool: Pool,
    kafka: str,
    name: str,
    trained: Trained,
    feature_set_of: FeatureSetOf,
    *,
    promote: bool,
    watch: bool = False,
) -> Settled:
    """Register a version of the model `name`, compare it, and promote it if it is better.

    Its opponent is the active version, on those rows that neither was trained on, or the base rate
    of its own training when none is active. `promote` asks for the promotion; without it only the
    comparison is kept. `watch` is that of `registry.promote`. To repeat all this is harmless.

    Raises:
        RefusedError: the version cannot be used; or is better, and not for the live run's features.
        ConflictError: another version became active meanwhile.
        UnavailableError: a server does not answer.
    """
    version = (await registry.register(pool, name, trained.body)).version
    for one in await asyncio.to_thread(_importance, trained):
        await pool.execute(
            statement("add_importance"), version, one.method, one.symbol, list(one.features),
            list(one.values), list(one.places),
        )  # fmt: skip
    row = await registry.version_of(pool, version)
    champion, generation = row["active"], row["generation"]
    if champion == version:
        return Settled(version, champion, None, None, "it is the active version")
    try:
        opponent = await _loaded(pool, champion)
        judged = await asyncio.to_thread(held_against, trained, opponent)
    except (RefusedError, MisuseError) as error:
        return Settled(version, champion, None, None, f"cannot be compared: {error}")
    comparison = judged.comparison
    await _keep(pool, name, trained, champion, judged)
    if not (promote and comparison.better):
        return Settled(version, champion, comparison, None, comparison.why)
    change = await announce.promote(
        pool, kafka, version, feature_set_of, comparison.why, generation=generation, watch=watch
    )
    return Settled(version, champion, comparison, change, comparison.why)


async def _loaded(pool: Pool, version: str | None) -> Gbdt | None:
    if version is None:
        return None
    return await registry.load(pool, (await registry.version_of(pool, version))["artifact"])


def _importance(trained: Trained) -> list[Importance]:
    """By all methods, on the held-out rows."""
    samples, held, version = trained.samples, trained.held, trained.version
    booster = lightgbm_module().Booster(model_str=trained.version.text)
    x, rose, symbol = samples.x[held], samples.rose[held], samples.symbol[held]
    seed = int(version.hyperparameters.get("seed", 1))
    return [
        importance.gain(booster),
        *importance.permutation(version.trees, x, rose, symbol, samples.symbols, seed),
        *importance.shap(booster, x, symbol, samples.symbols),
    ]


def held_against(trained: Trained, champion: Gbdt | None) -> Judged:
    """A version and its opponent, None for the base rate, on rows that neither was trained on.

    Raises:
        MisuseError: they speak of different horizons, or the opponent looks at what this replay
            has not, or was trained on all of the rows.
    """
    samples, rows = trained.samples, trained.held
    if champion is None:
        other = np.full(len(rows), float(trained.version.data.rose))
    else:
        rows = rows & (samples.ts > champion.data.last_ts)
        other = _said(trained, champion)
    if not rows.any():
        raise MisuseError("the active version was trained on all rows that are held out")
    _, p = predict(trained.version.trees, samples.x)
    found = regimes.compared(samples, rows, p, other)
    apart = regimes.compare_by_regime(samples, rows, p, other)
    return Judged(found, int(samples.ts[rows].min()), int(samples.ts[rows].max()), apart)


def _said(trained: Trained, champion: Gbdt) -> Array:
    """What another version says of all rows, (n,)."""
    samples = trained.samples
    if champion.horizon != samples.horizon:
        raise MisuseError(
            f"{champion.version} speaks of {champion.horizon} bars, not {samples.horizon}"
        )
    check_features(champion, samples.chain.feature_set)
    return predict(champion.trees, inputs_of(samples, trained.directory, champion.features))[1]


async def compared(pool: Pool, version: str, other: str, directory: Path) -> Judged:
    """Hold two versions against each other on a replay that may be younger than both; it is kept.

    Raises:
        MisuseError: there is no such version, the directory is no replay's, or they cannot be held
            against each other on its rows.
        RefusedError: one of them is damaged.
    """
    one, opponent = await registry.version_of(pool, version), await _loaded(pool, other)
    challenger = await registry.load(pool, one["artifact"])
    try:
        trained = await asyncio.to_thread(_on_replay, challenger, directory)
        judged = await asyncio.to_thread(held_against, trained, opponent)
    except RefusedError as error:  # it looks at what this replay has not
        raise MisuseError(str(error)) from error
    await _keep(pool, one["model"], trained, other, judged)
    return judged


def _on_replay(version: Gbdt, directory: Path) -> Trained:
    """A version with the rows of a replay that lie behind all that it was trained on."""
    samples = read_samples(directory, version.features, version.horizon)
    check_features(version, samples.chain.feature_set)
    held = samples.known & (samples.ts > version.data.last_ts)
    if not held.any():
        raise MisuseError(f"{directory}: no row with an outcome is younger than {version.version}")
    return Trained(directory, b"", version, samples, held)


async def _keep(
    pool: Pool, model: str, trained: Trained, champion: str | None, judged: Judged
) -> None:
    comparison = judged.comparison
    await pool.execute(
        statement("add_comparison"), model, trained.version.version, champion, judged.first_ts,
        judged.last_ts, digest_of(dict(trained.samples.facts)), comparison.n,
        comparison.challenger, comparison.champion, comparison.standard_error, RULE,
        comparison.better,
    )  # fmt: skip
