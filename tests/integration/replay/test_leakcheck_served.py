"""`leakcheck` of what servers hold: stretches of the topic, and the stored ticks."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.cli.main import cli
from pipeline.servers import Addresses, start_servers
from pipeline.settings import Settings, StoreSettings, TopicSettings, load_settings
from pipeline.store.pool import open_pool
from schemas.blocks import STAGES
from schemas.codec import tick_bytes
from schemas.topics import PRICES
from tests.fixtures.stored import stored
from tests.fixtures.ticks import walk

FRAME = 7  # ticks of a message: cuts lie within them, too
MESSAGES = {0: 120, 1: 60}  # by partition; there is one more, which is empty
CUTS = 60
SETTINGS = load_settings(["bars.clock=ticks:3", "regimes.vol_window=30"])
SETS = ("--bar", "ticks:3", "--set", "regimes.vol_window=30")
# What it gives is right on a prefix of what it has seen, and wrong on any other.
LEAKY = """
from pipeline.stages.custom import feature

SEEN = []


@feature(inputs=("close",), periods=1, unit="-")
def seen_so_far(close):
    \"\"\"A mean over all runs.\"\"\"
    SEEN.append(close[-1])
    return sum(SEEN) / len(SEEN)
"""


@pytest.fixture(scope="module")
def broker(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of our own, whose `prices` hold what we put there."""
    home = tmp_path_factory.mktemp("leakcheck")
    with start_servers(home, postgres=addresses.postgres, redis=addresses.redis) as fleet:
        kafka = fleet.addresses.kafka
        asyncio.run(fill(kafka))
        yield kafka


async def fill(kafka: str) -> None:
    """Arrays of ticks of two symbols to a partition, and one message that nobody can read."""
    await ensure_topics(kafka, TopicSettings(partitions=len(MESSAGES) + 1))
    async with Publisher(kafka) as publisher:
        for partition, count in MESSAGES.items():
            table = walk(count * FRAME, [f"P{partition}", f"Q{partition}"], partition)
            rows: list[dict[str, Any]] = [
                {str(k): v for k, v in row.items() if v == v and v is not None}  # noqa: PLR0124 -- NaN is null
                for row in table.to_dict("records")
            ]
            values = [tick_bytes(rows[at : at + FRAME]) for at in range(0, len(rows), FRAME)]
            values.insert(3, b"not a tick")
            await publisher.deliver(Outgoing(PRICES, v, partition=partition) for v in values)


def leakcheck(*arguments: object) -> Result:
    """The command, in this process."""
    options = ("--cuts", str(CUTS), *SETS, *map(str, arguments))
    return CliRunner().invoke(cli, ["leakcheck", *options])


@pytest.fixture
def named(broker: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The servers by their variables."""
    monkeypatch.setenv("TICKSTREAM_KAFKA", broker)
    monkeypatch.setenv("TICKSTREAM_POSTGRES", postgres)
    return SETTINGS.model_copy(update={"kafka": broker, "postgres": postgres})


@pytest.mark.usefixtures("named")
def test_every_row_of_a_topic_is_checked(tmp_path: Path) -> None:
    """As many rows of each stage as its replay writes, of all partitions, and no leak in them."""
    report = tmp_path / "report.json"
    done = leakcheck("kafka:prices", "--report", report)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("no leak: ")
    facts = json.loads(report.read_text())
    assert facts["ticks"] == sum(MESSAGES.values()) * FRAME
    assert facts["cuts"] >= CUTS
    out = tmp_path / "out"
    replay = CliRunner().invoke(cli, ["replay", "kafka:prices", "--out", str(out), *SETS])
    assert replay.exit_code == 0, replay.output
    written = {stage: pq.read_metadata(out / f"{stage}.parquet").num_rows for stage in STAGES}
    assert facts["rows"] == written
    assert {one["stage"] for one in facts["startups"]} == set(STAGES) - {"ticks"}


@pytest.mark.usefixtures("named")
def test_a_stretch_is_checked_alone(tmp_path: Path) -> None:
    """Offsets and times bound it, as they bound a replay; nothing in it is told."""
    report = tmp_path / "report.json"
    done = leakcheck("kafka:prices", "--offsets", "1:10-25", "--report", report)
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_text())["ticks"] == 15 * FRAME
    none = leakcheck("kafka:prices", "--from", "2100-01-01T00:00:00Z")
    assert none.exit_code == 2
    assert none.stderr.strip().splitlines()[-1] == "error: there is no tick to check"


@pytest.mark.usefixtures("named")
def test_a_leak_is_named_by_its_place_in_the_topic(tmp_path: Path) -> None:
    """Partition, offset and index of the message with the first row that knew too much."""
    mine = tmp_path / "mine.py"
    mine.write_text(LEAKY)
    done = leakcheck(
        "kafka:prices", "--offsets", "1:20-", "--set", f'user.features=["{mine}"]', "--json"
    )
    assert done.exit_code == 1, done.output
    (leak,) = json.loads(done.stdout)["leaks"]
    assert (leak["stage"], leak["column"]) == ("features", "seen_so_far")
    assert leak["partition"] == 1
    assert 20 <= leak["offset"] < MESSAGES[1]
    assert f"partition 1 offset {leak['offset']} index {leak['index']} (" in done.stderr


def test_stored_ticks_are_checked(named: Settings, tmp_path: Path) -> None:
    """Those of the tables, by event time too."""

    async def store() -> None:
        pool = await open_pool(str(named.postgres), StoreSettings())
        await stored(str(named.kafka), pool, PRICES, len(MESSAGES), named)
        await pool.close()

    asyncio.run(store())
    report = tmp_path / "report.json"
    done = leakcheck("postgres:ticks", "--report", report)
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_text())["ticks"] == sum(MESSAGES.values()) * FRAME
    none = leakcheck("postgres:ticks", "--to", "1990-01-01T00:00:00Z")
    assert none.exit_code == 2
    assert "there is no tick to check" in none.stderr
