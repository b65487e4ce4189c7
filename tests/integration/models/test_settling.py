"""A trained version meets the active one: better ones are promoted, others are kept and told."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConflictError, MisuseError, RefusedError, UnavailableError
from pipeline.models import registry
from pipeline.models.boosting import Hyperparameters
from pipeline.models.comparison import RULE
from pipeline.models.jobs import Trained, Wish, train_gbdt
from pipeline.models.settling import Judged, Settled, compared, held_against, settle
from pipeline.settings import load_settings
from pipeline.store.pool import Pool
from schemas.gbdt import Gbdt
from tests.fixtures.planted import SETTINGS, replayed

CHAIN = load_settings(SETTINGS).chain
SMALL = Hyperparameters(trees=30, leaves=7, rate=0.1, least_rows=50, folds=2)
BLIND = ("bar_ret_1", "rsi_14", "boll_z_20")  # they know nothing of the next move
SEEING = ("queue_imbalance", *BLIND)
N = 12_000
Make = Callable[..., Trained]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay with a signal in the queue."""
    return replayed(tmp_path_factory.mktemp("settling"), N, 1)[0]


@pytest.fixture
def make(run: Path, tmp_path: Path) -> Make:
    """Trains a version on it."""

    def made(features: tuple[str, ...], **changes: Any) -> Trained:
        wish = replace(Wish(run, features, hyperparameters=SMALL), **changes)
        return train_gbdt(wish, tmp_path / "gbdt.json")[0]

    return made


async def settled(pool: Pool, kafka: str, trained: Trained, *, promote: bool = True) -> Settled:
    """Of the model gbdt, by the settings of the replay."""
    return await settle(pool, kafka, "gbdt", trained, CHAIN.feature_set, promote=promote)


async def active(pool: Pool) -> str | None:
    """The active version."""
    found: str | None = await pool.fetchval("SELECT active FROM models")
    return found


async def test_only_a_better_one_is_promoted(pool: Pool, kafka: str, make: Make) -> None:
    """Blind: not even beside the base rate; seeing: at once; blind again: the seeing one stays."""
    blind, seeing = make(BLIND), make(SEEING)
    first = await settled(pool, kafka, blind)
    assert (first.champion, first.change) == (None, None)
    assert first.comparison is not None
    assert not first.comparison.better
    assert await active(pool) is None
    second = await settled(pool, kafka, seeing)
    assert second.change is not None
    assert second.change.version == await active(pool) == seeing.version.version
    third = await settled(pool, kafka, make(BLIND, hyperparameters=replace(SMALL, seed=9)))
    assert third.champion == seeing.version.version
    assert third.change is None
    assert await active(pool) == seeing.version.version
    rows = await pool.fetch("SELECT * FROM model_comparisons ORDER BY id")
    assert [(row["challenger"], row["champion"], row["better"]) for row in rows] == [
        (blind.version.version, None, False),
        (seeing.version.version, None, True),
        (third.version, seeing.version.version, False),
    ]
    assert {row["rule"] for row in rows} == {RULE}
    held = seeing.version.metrics.held_out
    assert rows[1]["challenger_log_loss"] == pytest.approx(held.log_loss, rel=1e-12)
    assert rows[1]["champion_log_loss"] == pytest.approx(held.null_log_loss, rel=1e-12)
    assert (rows[1]["n"], rows[1]["first_ts"], rows[1]["last_ts"]) == (
        held.n, held.first_ts, held.last_ts,
    )  # fmt: skip
    log = await registry.history(pool, "gbdt")
    assert log[0]["reason"] == second.why
    # A repetition of a job that had come to its end.
    again = await settled(pool, kafka, seeing)
    assert (again.change, again.why) == (None, "it is the active version")


async def test_without_a_wish_nothing_is_promoted(pool: Pool, kafka: str, make: Make) -> None:
    """It is registered and compared; a person may promote it."""
    found = await settled(pool, kafka, make(SEEING), promote=False)
    assert found.comparison is not None
    assert found.comparison.better
    assert found.change is None
    assert await active(pool) is None


async def test_importance_is_kept(pool: Pool, kafka: str, make: Make) -> None:
    """By three methods, of all symbols and of each; once, however often the job runs."""
    version = (await settled(pool, kafka, make(SEEING))).version
    await settled(pool, kafka, make(SEEING))
    rows = await pool.fetch("SELECT * FROM feature_importance WHERE place = 1")
    assert {(row["method"], row["symbol"]) for row in rows} == {
        ("gain", "*"), ("permutation", "*"), ("permutation", "A"), ("permutation", "B"),
        ("shap", "*"), ("shap", "A"), ("shap", "B"),
    }  # fmt: skip
    assert {row["feature"] for row in rows} == {"queue_imbalance"}
    assert {row["version"] for row in rows} == {version}
    assert await pool.fetchval("SELECT count(*) FROM feature_importance") == 7 * len(SEEING)


async def test_rows_that_the_active_one_was_trained_on_do_not_count(
    pool: Pool, kafka: str, make: Make
) -> None:
    """It is held against them behind its own range only; if none are left, not at all."""
    late = make(SEEING, held_out=0.1)
    await settled(pool, kafka, late)
    early = make(SEEING, held_out=0.25)
    judged = held_against(early, late.version)
    assert judged.first_ts > late.version.data.last_ts
    assert judged.comparison.n == late.held.sum()
    data = late.version.data.model_copy(update={"last_ts": 2**62})
    with pytest.raises(MisuseError, match="was trained on all rows that are held out"):
        held_against(early, replace(late.version, data=data))


@pytest.mark.parametrize(
    ("settings", "changes", "why"),
    [
        ((), {"horizon": 2}, "speaks of 1 bars, not 2"),
        (("features.rsi_bars=9",), {}, "was trained on another feature set"),
    ],
)
async def test_what_cannot_be_compared_is_not_promoted(
    pool: Pool,
    kafka: str,
    make: Make,
    tmp_path: Path,
    settings: tuple[str, ...],
    changes: dict[str, Any],
    why: str,
) -> None:
    """Another horizon, or a replay whose features are others; the old one stays."""
    champion = (await settled(pool, kafka, make(SEEING))).version
    run, _ = replayed(tmp_path / "other", N, 3, more=settings)
    found = await settled(pool, kafka, make(SEEING, directory=run, **changes))
    assert (found.comparison, found.change) == (None, None)
    assert "cannot be compared" in found.why
    assert why in found.why
    assert await active(pool) == champion


async def test_a_damaged_active_version_cannot_be_compared(
    pool: Pool, kafka: str, make: Make
) -> None:
    """Its bytes are not those that were registered: nothing is decided by them."""
    champion = (await settled(pool, kafka, make(SEEING))).version
    await pool.execute("UPDATE artifacts SET body = 'x'")
    found = await settled(pool, kafka, make(SEEING, hyperparameters=replace(SMALL, seed=4)))
    assert "its bytes have another hash" in found.why
    assert await active(pool) == champion


async def test_features_of_another_live_run_are_refused(pool: Pool, kafka: str, make: Make) -> None:
    """It is better on its replay, but the live run computes its features otherwise."""
    other = load_settings([*SETTINGS, "features.rsi_bars=9"]).chain
    with pytest.raises(RefusedError, match="trained on another feature set"):
        await settle(pool, kafka, "gbdt", make(SEEING), other.feature_set, promote=True)
    assert await active(pool) is None


async def test_a_promotion_meanwhile(
    pool: Pool, kafka: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decided about one opponent is not done to another."""
    seeing, other = make(SEEING), make(SEEING, hyperparameters=replace(SMALL, seed=5))
    await registry.register(pool, "gbdt", other.body)

    async def promoted(found: Judged) -> None:
        await registry.promote(pool, other.version.version, CHAIN.feature_set)
        assert found.comparison.better

    monkeypatch.setattr(asyncio, "to_thread", _then(asyncio.to_thread, promoted))
    with pytest.raises(ConflictError, match=f"{other.version.version} is active now"):
        await settled(pool, kafka, seeing)
    assert await active(pool) == other.version.version


def _then(to_thread: Any, what: Callable[[Judged], Any]) -> Any:
    """Something happens while two versions are compared."""

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        found = await to_thread(function, *arguments)
        if function is held_against:
            await what(found)
        return found

    return run


async def test_a_database_that_goes_away(
    pool: Pool, kafka: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job fails clearly, and the next one does what is left: nothing is there twice."""
    trained = make(SEEING)
    real = registry.load

    async def away(*_: object) -> Gbdt:
        raise UnavailableError("Postgres does not answer: gone")

    monkeypatch.setattr(registry, "load", away)
    with pytest.raises(UnavailableError, match="gone"):
        await settled(pool, kafka, trained)
    assert await active(pool) is None
    monkeypatch.setattr(registry, "load", real)
    assert (await settled(pool, kafka, make(SEEING))).change is not None
    assert await active(pool) == trained.version.version
    assert await pool.fetchval("SELECT count(*) FROM model_versions") == 1


async def test_two_versions_on_a_younger_replay(
    pool: Pool, make: Make, run: Path, tmp_path: Path
) -> None:
    """What neither was trained on judges them, and is kept; older rows cannot."""
    blind, seeing = make(BLIND), make(SEEING)
    for one in (blind, seeing):
        await registry.register(pool, "gbdt", one.body)
    names = seeing.version.version, blind.version.version
    judged = await compared(pool, *names, run)
    found = judged.comparison
    assert (found.better, found.n) == (True, seeing.held.sum())
    assert found.challenger == pytest.approx(seeing.version.metrics.held_out.log_loss, rel=1e-12)
    told = json.loads(seeing.body)["metrics"]["regimes"]
    assert {regime: one.n for regime, one in judged.regimes.items()} == {
        regime: scores["n"] for regime, scores in told.items()
    }
    assert all(
        one.challenger == pytest.approx(told[regime]["log_loss"], rel=1e-12)
        for regime, one in judged.regimes.items()
    )
    assert judged.regimes["normal"].better
    assert not (await compared(pool, *names[::-1], run)).comparison.better
    rows = await pool.fetch("SELECT * FROM model_comparisons ORDER BY id")
    assert [(row["challenger"], row["champion"], row["better"]) for row in rows] == [
        (*names, True), (*names[::-1], False),
    ]  # fmt: skip
    assert await active(pool) is None
    other, _ = replayed(tmp_path / "other", 2000, 3, more=("features.rsi_bars=9",))
    with pytest.raises(MisuseError, match="was trained on another feature set"):
        await compared(pool, *names, other)
    old, _ = replayed(tmp_path / "old", 2000, 3)
    with pytest.raises(MisuseError, match="no row with an outcome is younger"):
        await compared(pool, *names, old)
    with pytest.raises(MisuseError, match="there is no version"):
        await compared(pool, names[0], "gbdt-0", run)
