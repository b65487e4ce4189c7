"""A live run that was killed again and again has the bits of its replay, at every stage."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from pipeline.errors import UnavailableError
from pipeline.replay.engine import replay_topic
from pipeline.replay.parity import compare
from pipeline.servers import Addresses, start_servers
from pipeline.settings import load_settings
from schemas.blocks import STAGES
from tests.acceptance import evidence
from tests.acceptance.parity.recording import LARGEST, Recording, Script, record
from tests.acceptance.parity.tables import apart
from tests.acceptance.parity.tapes import samples_of

SEED: Final = 20130901
STRATEGIES: Final = Path(__file__).parents[2] / "fixtures" / "strategies"
# By the number of partitions: who decides, when bars close, how orders are filled.
CHAINS: Final = {
    1: ("bars.clock=ticks:5", "signals.follow=momentum_20", "fills.long_only=true"),
    2: (
        "bars.clock=time:1s",
        f'user.features=["{STRATEGIES / "sma_cross.py"}"]',
        f'user.engines=["{STRATEGIES / "own_engines.py"}"]',
        "signals.follow=sma_cross",
        "fills.mode=next_quote",
    ),
    4: (
        "bars.clock=ticks:7",
        "guard.mode=plain",
        "signals.follow=macd_hist",
        "fills.slippage_bp=0.5",
        "fills.impact=0.1",
    ),
    8: (
        "bars.clock=ticks:3",
        "bars.execution_latency=50000000",
        "signals.cost_bp=0",
        "fills.sizing=volatility",
    ),
}
EVERYWHERE: Final = ("predictions.horizon=3", "equity.period=10s")


@pytest.fixture(scope="module")
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Addresses]:
    """Embedded servers of our own: the topics are made anew for each run."""
    try:
        fleet = start_servers(tmp_path_factory.mktemp("parity") / "data")
    except UnavailableError as error:
        if request.config.getoption("--require-servers"):
            raise
        pytest.skip(f"NO SERVERS: {error}")
    with fleet:
        yield fleet.addresses


def _script(partitions: int, ticks: int, kills: int, restarts: int, rate: float) -> Script:
    sets = (*CHAINS[partitions], *EVERYWHERE)
    return Script(partitions, 1 if partitions < 4 else 2, ticks, rate, kills, restarts, sets)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("partitions", [2, 8])
def test_live_and_replay_are_bit_equal(
    ground: Addresses, samples: Path, tmp_path: Path, partitions: int
) -> None:
    """100,000 ticks in two runs, each with kills and batches of 1 to 1,024 messages."""
    script = _script(partitions, ticks=50_000, kills=2, restarts=1, rate=5_000.0)
    _prove(ground, script, samples, rows=6_000, home=tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("partitions", CHAINS)
def test_live_and_replay_are_bit_equal_for_long(
    ground: Addresses, samples: Path, tmp_path: Path, partitions: int
) -> None:
    """A million ticks and twenty kills on 1, 2, 4 and 8 partitions."""
    script = _script(partitions, ticks=1_000_000, kills=20, restarts=4, rate=6_000.0)
    _prove(ground, script, samples, rows=40_000, home=tmp_path)


def _prove(ground: Addresses, script: Script, samples: Path, rows: int, home: Path) -> None:
    recording = asyncio.run(record(ground, script, samples_of(samples, rows), home, SEED))
    assert recording.ticks >= script.ticks
    assert recording.kills == script.kills
    assert recording.resumed >= script.restarts
    assert {1, LARGEST} <= {*recording.batches}
    assert len(recording.ends) == script.partitions
    assert min(recording.ends.values()) > 0
    counts = asyncio.run(_counts(recording.addresses))
    print(f"\n{recording}; rows {counts}")  # noqa: T201 -- the figures are asked for
    assert min(counts.values()) > 0, counts
    asyncio.run(_told_equal(recording, counts))
    asyncio.run(_files_equal(recording, home / "replay"))


async def _counts(addresses: Addresses) -> dict[str, int]:
    connection = await asyncpg.connect(addresses.postgres)
    try:
        return {
            stage: await connection.fetchval(f"SELECT count(*) FROM {stage}")  # noqa: S608 -- a stage
            for stage in STAGES
        }
    finally:
        await connection.close()


async def _told_equal(recording: Recording, counts: dict[str, int]) -> None:
    """By the product's own comparison, every stored row of it."""
    ranges = {partition: (0, end) for partition, end in recording.ends.items()}
    settings = load_settings(recording.sets)
    async with evidence.pool_of(recording.addresses) as pool:
        report = await compare(recording.addresses.kafka, pool, settings, ranges)
    assert report.difference is None
    assert report.rows == counts


async def _files_equal(recording: Recording, out: Path) -> None:
    """By files of a replay in blocks of another size, merged over the partitions."""
    ranges = {partition: (0, end) for partition, end in recording.ends.items()}
    settings = load_settings((*recording.sets, "replay.block=997"))
    await replay_topic(recording.addresses.kafka, ranges, out, settings)
    for stage in STAGES:
        assert await apart(recording.addresses.postgres, stage, out) == []
