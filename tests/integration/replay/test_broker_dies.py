"""The broker dies in the middle of a replay: one line and nothing half done, or it comes back."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

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


@pytest.fixture
def own(addresses: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A broker of our own, which may die; named by its variable."""
    home = tmp_path / "broker"
    with start_servers(home, postgres=addresses.postgres, redis=addresses.redis) as fleet:
        asyncio.run(fill(fleet.addresses.kafka))
        monkeypatch.setenv("TICKSTREAM_KAFKA", fleet.addresses.kafka)
        monkeypatch.setattr(module, "topics_cache", lambda: tmp_path / "cache")
        yield fleet


async def fill(kafka: str) -> None:
    """Large messages of a tick each."""
    await ensure_topics(kafka, TopicSettings(partitions=1))
    ticks = [
        json.dumps({"symbol": "A", "ts": START + i, "price": 100 + i % 7}).encode() + BLANKS
        for i in range(MESSAGES)
    ]
    async with Publisher(kafka) as publisher:
        await publisher.deliver(Outgoing(PRICES, value, partition=0) for value in ticks)


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
    told = at_the_first_ticks(monkeypatch, lambda: own.kill("kafka"))
    done = replay(tmp_path / "out", *arguments)
    assert told
    assert told[-1] < MESSAGES, "it was over before"
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("replaying")]
    assert line.startswith(f"error: Kafka at {own.addresses.kafka} does not answer"), line
    left = [path.name for path in tmp_path.iterdir() if path.name not in {"broker", "cache"}]
    assert left == []
    kept = [
        path for path in (tmp_path / "cache").rglob("*") if path.suffix in {".parquet", ".partial"}
    ]
    assert kept == []


def test_a_broker_that_comes_back_costs_no_bit(
    own: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed and started again while it is read: the replay goes on, and writes the same files."""
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
