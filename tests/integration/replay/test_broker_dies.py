"""The broker dies in the middle of a replay: one line and nothing half done, or it comes back."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from click.testing import CliRunner, Result

from pipeline.bus import topics
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.cli import replay as module
from pipeline.cli.main import cli
from pipeline.cli.progress import Progress
from pipeline.servers import Addresses, Fleet, start_servers
from pipeline.settings import TopicSettings
from schemas.topics import PRICES

MESSAGES = 60
# A tick and a megabyte of blanks: the client fetches a few of them ahead, never all.
BLANKS = b" " * 2**20
START = 1_700_000_000

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def broker(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A broker of our own, which may die."""
    home = tmp_path_factory.mktemp("broker")
    with start_servers(home, postgres=addresses.postgres, redis=addresses.redis) as fleet:
        asyncio.run(fill(fleet.addresses.kafka))
        yield fleet


@pytest.fixture
def own(broker: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """It lives, whatever a test before has done to it; named by its variable."""
    if not broker.alive()["kafka"]:
        broker.restart("kafka")
    monkeypatch.setenv("TICKSTREAM_KAFKA", broker.addresses.kafka)
    monkeypatch.setattr(module, "topics_cache", lambda: tmp_path / "cache")
    return broker


async def fill(kafka: str) -> None:
    """Large messages of a tick each."""
    await ensure_topics(kafka, TopicSettings(partitions=1))
    ticks = [
        json.dumps({"symbol": "A", "ts": START + i, "price": 100 + i % 7}).encode() + BLANKS
        for i in range(MESSAGES)
    ]
    async with Publisher(kafka) as publisher:
        await publisher.deliver(Outgoing(PRICES, value, partition=0) for value in ticks)


def killing(own: Fleet, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What kills the broker; who waits for it gives up soon, and not after the usual 20 s."""
    made: list[AIOKafkaConsumer] = []

    class Impatient(AIOKafkaConsumer):  # type: ignore[misc] # aiokafka has no types
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(topics, "AIOKafkaConsumer", Impatient)

    def kill() -> None:
        own.kill("kafka")
        for consumer in made:
            consumer._request_timeout_ms = 1000

    return kill


def at_the_first_ticks(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[int]:
    """Do something once a replay has made its first rows; counts of ticks that it told."""
    told: list[int] = []

    class Acting(Progress):
        def __call__(self, count: int, share: float | None = None) -> None:
            super().__call__(count, share)
            if not told:
                act()
            told.append(count)

    monkeypatch.setattr(module, "Progress", Acting)
    return told


def replay(out: Path, *arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, ["replay", "kafka:prices", "--out", str(out), *arguments])


@pytest.mark.parametrize("arguments", [(), ("--cache",)])
def test_a_broker_that_dies_ends_a_replay_in_one_line(
    own: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Exit code 1 and the broker's address; neither output nor kept messages are left half done."""
    told = at_the_first_ticks(monkeypatch, killing(own, monkeypatch))
    done = replay(tmp_path / "out", *arguments)
    assert told
    assert told[-1] < MESSAGES, "it was over before"
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("replaying")]
    assert line.startswith(f"error: Kafka at {own.addresses.kafka} does not answer"), line
    left = [path.name for path in tmp_path.iterdir() if path.name != "cache"]
    assert left == []
    kept = [
        path for path in (tmp_path / "cache").rglob("*") if path.suffix in {".parquet", ".partial"}
    ]
    assert kept == []


def test_a_broker_that_comes_back_costs_no_bit(
    own: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed and started again while it is read: the replay goes on, and writes the same files."""
    # However long a start takes on a busy machine; the test has its own limit.
    monkeypatch.setattr(topics, "_PATIENCE_MS", 200_000)
    whole = replay(tmp_path / "whole", "--json")
    again = threading.Thread(target=own.restart, args=("kafka",))

    def kill_and_start() -> None:
        own.kill("kafka")
        again.start()

    told = at_the_first_ticks(monkeypatch, kill_and_start)
    done = replay(tmp_path / "out", "--json")
    again.join()
    assert told[0] < MESSAGES
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sha256"] == json.loads(whole.stdout)["sha256"]
    assert json.loads(done.stdout)["inputs"] == json.loads(whole.stdout)["inputs"]
