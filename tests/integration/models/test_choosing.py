"""The choice of a version for each regime, by what all of them lose on a replay."""

import json
from pathlib import Path

import pytest

from pipeline.bus.topics import ensure_topics
from pipeline.errors import MisuseError
from pipeline.models import announce, choosing, registry
from pipeline.models.boosting import Hyperparameters
from pipeline.models.choosing import Choice, choices
from pipeline.models.jobs import Wish, train_gbdt
from pipeline.servers import Addresses
from pipeline.settings import TopicSettings, load_settings
from pipeline.store.pool import Pool
from schemas.blocks import VOL_REGIMES
from tests.fixtures import boosted
from tests.fixtures.planted import SETTINGS, replayed

MORE = ("regimes.vol_window=50",)
CHAIN = load_settings([*SETTINGS, *MORE]).chain
SMALL = Hyperparameters(trees=20, leaves=7, rate=0.1, least_rows=50, folds=2)
SEEING, BLIND, BLINDER = ("queue_imbalance",), ("rsi_14",), ("boll_z_20",)
LEAST = 240  # rows: 30 stretches of four horizons, of a bar of each of two books


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay with a signal in the queue."""
    return replayed(tmp_path_factory.mktemp("choosing"), 10_000, 1, more=MORE)[0]


@pytest.fixture(scope="module")
def bodies(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], bytes]:
    """Versions that see the signal, and that do not."""
    home = tmp_path_factory.mktemp("versions")
    return {
        names: train_gbdt(Wish(run, names, hyperparameters=SMALL), home / names[0])[0].body
        for names in (SEEING, BLIND, BLINDER)
    }


async def registered(pool: Pool, *bodies: bytes) -> list[str]:
    """Names of versions of the model gbdt; the first is the active one."""
    names = [(await registry.register(pool, "gbdt", body)).version for body in bodies]
    await registry.promote(pool, names[0], CHAIN.feature_set)
    return names


async def test_the_best_is_chosen_where_it_is_better(
    pool: Pool, run: Path, bodies: dict[tuple[str, ...], bytes]
) -> None:
    """By the rule of a promotion; where there are too few rows to tell, it is named and not so."""
    blind, seeing, _ = await registered(pool, bodies[BLIND], bodies[SEEING], bodies[BLINDER])
    found = await choices(pool, "gbdt", run)
    assert list(found) == list(VOL_REGIMES)
    assert {choice.version for choice in found.values()} == {seeing}
    told = json.loads(bodies[SEEING])["metrics"]["regimes"]
    for regime, choice in found.items():
        assert choice.comparison is not None
        assert choice.comparison.n == told[regime]["n"]
        assert choice.comparison.challenger == pytest.approx(told[regime]["log_loss"], rel=1e-12)
        few = choice.comparison.n < LEAST
        assert choice.chosen == (None if few else seeing)
        assert ("are too few to tell" in choice.comparison.why) == few
    assert {choice.chosen for choice in found.values()} == {None, seeing}
    await registry.promote(pool, seeing, CHAIN.feature_set)
    found = await choices(pool, "gbdt", run)
    assert {choice.chosen for choice in found.values()} == {None}
    assert blind in {choice.version for choice in found.values()} or found["low"].version


async def test_it_is_selected_and_told(
    pool: Pool, addresses: Addresses, run: Path, bodies: dict[tuple[str, ...], bytes]
) -> None:
    """In the regimes that were asked for; who was selected and is not better is not any more."""
    await ensure_topics(addresses.kafka, TopicSettings())
    blind, seeing = await registered(pool, bodies[BLIND], bodies[SEEING])
    heard: list[str] = []

    def tell(regime: str, _: Choice) -> None:
        heard.append(regime)

    change = choosing.best_in(["normal"], run, tell)
    found = await change(pool, addresses.kafka, "gbdt", CHAIN.feature_set, "auto")
    assert (found.selected, heard) == ({"normal": seeing}, ["normal"])
    await announce.promote(pool, addresses.kafka, seeing, CHAIN.feature_set)
    change = choosing.best_in([], run, tell)
    found = await change(pool, addresses.kafka, "gbdt", CHAIN.feature_set, "auto")
    assert (found.selected, found.changed) == ({}, True)
    assert heard[1:] == list(VOL_REGIMES)
    assert (await registry.version_of(pool, blind))["regimes"] == []


async def test_what_cannot_be_judged(
    pool: Pool, tmp_path: Path, run: Path, bodies: dict[tuple[str, ...], bytes]
) -> None:
    """None is active, or no row is young enough; other versions that do not fit are left out."""
    with pytest.raises(MisuseError, match="gbdt: none is active"):
        await choices(pool, "gbdt", run)
    _, seeing = await registered(pool, bodies[BLIND], bodies[SEEING])
    foreign = await registry.register(pool, "gbdt", boosted.artifact(1, horizon=1))
    found = await choices(pool, "gbdt", run)
    assert foreign.version not in {choice.version for choice in found.values()}
    await pool.execute(
        "UPDATE artifacts SET body = 'x' FROM model_versions v"
        " WHERE v.artifact = hash AND v.version = $1",
        seeing,
    )
    assert set((await choices(pool, "gbdt", run)).values()) == {Choice(None, None)}
    old, _ = replayed(tmp_path / "old", 2000, 3, more=MORE)
    with pytest.raises(MisuseError, match="no row with an outcome is younger"):
        await choices(pool, "gbdt", old)
    other, _ = replayed(tmp_path / "other", 2000, 3, more=("features.rsi_bars=9",))
    with pytest.raises(MisuseError, match="was trained on another feature set"):
        await choices(pool, "gbdt", other)
