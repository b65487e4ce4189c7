"""Scores of a live run: rows from Kafka, activations and scores in Postgres."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import ensure_topics, offset_bounds
from pipeline.errors import ConflictError, UnavailableError
from pipeline.models import registry
from pipeline.models.live_scores import TOPICS, Scoring
from pipeline.models.scoring import log_loss
from pipeline.servers import Addresses
from pipeline.settings import Settings, TopicSettings, load_settings
from pipeline.store import scores as store
from pipeline.store.activations import Planned, plan
from pipeline.store.places import Kept
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from schemas.blocks import VOL_REGIMES, Array, Rows
from schemas.codec import block_bytes
from tests.fixtures import boosted
from tests.fixtures.markets import chained, market

N, SWAP, HORIZON = 9000, 6000, 5
LONG = 60.0  # seconds that no turn takes
SETTINGS = load_settings(["bars.clock=ticks:1"])
VERSIONS = [boosted.speaking(seed, chain=SETTINGS.chain) for seed in (1, 2)]
PLANNED = [
    boosted.activated(VERSIONS[0], offset=1000),
    boosted.activated(
        VERSIONS[1], VERSIONS[0], offset=SWAP, generation=2, selected={"normal": VERSIONS[0]}
    ),
]


@pytest.fixture(scope="module")
def rows() -> list[Rows]:
    """Bars and predictions of a market: one version, then another one with the first beside it."""
    return chained(market(N, 5), TOPICS, PLANNED)


@pytest.fixture
async def kafka(addresses: Addresses, pool: Pool, settings: Settings) -> str:
    """A broker; scores begin at the present end of its topics, with what was activated."""
    await ensure_topics(addresses.kafka, TopicSettings())
    await begin_here(addresses.kafka, pool, settings)
    return addresses.kafka


async def begin_here(kafka: str, pool: Pool, settings: Settings) -> None:
    """Have rows that others published count as seen, and the versions as activated."""
    for seed in (1, 2):
        await registry.register(pool, "gbdt", boosted.artifact(seed, chain=SETTINGS.chain))
    service = settings.worker.group
    await pool.fetchrow(statement("claim"), service, 0, settings.chain.fingerprint())
    async with pool.acquire() as connection, connection.transaction():
        await plan(connection, service, [Planned(0, 1, one.activation) for one in PLANNED])
    places = {}
    for topic in TOPICS:
        end = (await offset_bounds(kafka, topic))[0][1]
        places[topic] = (end, -1, -1)
    await store.keep(pool, service, 0, Kept(0, places, b""), [])


@pytest.fixture
def settings() -> Settings:
    """Those of the market."""
    return SETTINGS


async def publish(
    kafka: str, rows: list[Rows], start: int, stop: int, sizes: Mapping[str, int]
) -> None:
    """Rows of every stage in blocks of different sizes, as no worker does."""
    async with Publisher(kafka) as publisher:
        for one in rows:
            for begin in range(start, stop, sizes[one.stage]):
                part = one.take(slice(begin, min(begin + sizes[one.stage], stop)))
                await publisher.deliver([Outgoing(one.stage, block_bytes(part), b"0", 0)])


def expected(rows: list[Rows], upto: int = N) -> dict[tuple[str, str], tuple[int, float, float]]:
    """By version and role: rows, log loss, and that of the base rate."""
    bars, said = (one.take(slice(0, upto)) for one in rows)
    close = bars["close"]
    was, later = close[:-HORIZON], close[HORIZON:]
    known, rose = later != was, later > was
    swapped = np.arange(len(was)) >= SWAP - int(bars["offset"][0])
    one, two = (each.version for each in VERSIONS)

    def of(column: str, at: Array) -> tuple[int, float, float]:
        p = said[column][:-HORIZON]
        at = at & known & ~np.isnan(p)
        if not at.any():
            return 0, np.nan, np.nan
        null = said["p_base_rate"][:-HORIZON]
        return int(at.sum()), log_loss(p[at], rose[at]), log_loss(null[at], rose[at])

    own = said["gbdt_regime"][:-HORIZON] == VOL_REGIMES.index("normal")
    assert own[swapped].any() or upto < N
    return {
        (one, "live"): of("p_gbdt", ~swapped | own),
        (two, "live"): of("p_gbdt", swapped & ~own),
        (one, "shadow"): of("shadow_p", swapped),
    }


async def kept(pool: Pool) -> dict[tuple[str, str], tuple[int, float, float]]:
    """The same as it is stored."""
    names = [each.version for each in VERSIONS]
    found = await store.of_all_days(pool, names)
    return {
        (name, role): (row["n"], row["log_loss"], row["null_log_loss"])
        for name, roles in found.items()
        for role, row in roles.items()
    }


def near(found: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    """The same rows, and figures up to the order in which they are summed up."""
    assert {key: value[0] for key, value in found.items()} == {
        key: value[0] for key, value in wanted.items()
    }
    for key, value in wanted.items():
        assert found[key][1:] == pytest.approx(value[1:], rel=1e-9)


async def test_live_and_shadow_are_scored(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """Each version in its roles, on the rows whose outcome has come; and no row of a training."""
    await publish(kafka, rows, 0, N, {"bars": 300, "predictions": 300})
    found = await Scoring(kafka, pool, settings).turn(LONG)
    wanted = expected(rows)
    assert found == sum(n for (_, role), (n, *_) in wanted.items() if role == "live")
    assert all(n > 500 for n, *_ in wanted.values())
    near(await kept(pool), wanted)
    assert await Scoring(kafka, pool, settings).turn(LONG) == 0
    told = await store.by_day(pool, VERSIONS[0].version, 10)
    assert [row["rows"] for row in told][:1] == ["held_out"]
    assert {row["rows"] for row in told} == {"held_out", "live", "shadow"}


async def test_restarts_and_repeats_change_nothing(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """A scorer of its own for each stretch, blocks that differ, what was published comes again."""
    begin = 0
    for stop in (1, 2500, 2500, 5998, 6003, N):
        sizes = {"bars": 70 + begin % 50, "predictions": 130}
        await publish(kafka, rows, max(0, begin - 1500), stop, sizes)
        await Scoring(kafka, pool, settings).turn(LONG)
        begin = stop
    near(await kept(pool), expected(rows))


async def test_one_topic_behind_the_other(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """Only what both have is taken; the rest waits for the other one."""
    sizes = {"bars": 500, "predictions": 500}
    bars, said = rows
    await publish(kafka, [bars], 0, N, sizes)
    assert await Scoring(kafka, pool, settings).turn(LONG) == 0
    await publish(kafka, [said], 0, 4000, sizes)
    await Scoring(kafka, pool, settings).turn(LONG)
    near(await kept(pool), {k: v for k, v in expected(rows, 4000).items() if v[0]})
    await publish(kafka, [said], 4000, N, sizes)
    await Scoring(kafka, pool, settings).turn(LONG)
    near(await kept(pool), expected(rows))


async def test_a_turn_that_dies_or_has_company(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its transaction, or as the second of two: what was stored is counted once."""
    await publish(kafka, rows, 0, N, {"bars": 300, "predictions": 300})

    async def dies(*_: Any) -> None:
        raise UnavailableError("Postgres does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "keep", dies)
        with pytest.raises(UnavailableError):
            await Scoring(kafka, pool, settings).turn(LONG)
    assert await kept(pool) == {}
    turns = await asyncio.gather(
        *(Scoring(kafka, pool, settings).turn(LONG) for _ in range(2)), return_exceptions=True
    )
    assert all(isinstance(one, int | ConflictError) for one in turns), turns
    await Scoring(kafka, pool, settings).turn(LONG)
    near(await kept(pool), expected(rows))
