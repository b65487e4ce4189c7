"""A worse version is promoted on a live run: it is rolled back, told, and replays say the same."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bus.publisher import Publisher
from pipeline.cli.stack import prepare
from pipeline.models import registry
from pipeline.models.jobs import Wish, train_gbdt
from pipeline.servers import Addresses, start_servers
from pipeline.settings import load_settings
from pipeline.sources.feed import publish_file
from schemas.blocks import STAGES
from tests.acceptance import evidence
from tests.acceptance.commands import TICKSTREAM, Worker, environment, naming, tickstream
from tests.acceptance.feeding import UntilTold
from tests.acceptance.parity.tables import apart
from tests.fixtures import boosted
from tests.fixtures.planted import SETTINGS, market, replayed

LIVE = tuple(part for text in SETTINGS for part in ("--set", text))
CHAIN = load_settings(SETTINGS).chain
RATE = 500.0  # ticks a second
TICKS = 40_000
PATIENCE = 120.0  # seconds
FAST = ("--set", "models.score_seconds=0.5", "--set", "models.watch_rows=1500")

pytestmark = pytest.mark.timeout(600)


@contextmanager
def training(addresses: Addresses, log: Path) -> Iterator[None]:
    """The service that scores, as a process of its own."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [TICKSTREAM, "worker", "--service", "training", *LIVE, *FAST],
            env=environment(naming(addresses)), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
        )  # fmt: skip
    try:
        yield
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def command(addresses: Addresses, *arguments: object) -> str:
    """What a command of the registry says."""
    done = tickstream("models", *arguments, *LIVE, values=naming(addresses))
    assert done.returncode == 0, done.stderr
    return done.stdout


async def register(addresses: Addresses, home: Path) -> tuple[str, str]:
    """One that knows what the market hangs on, and one that knows the contrary."""
    run, _ = replayed(home / "before", 6000, 3)
    good, _ = train_gbdt(Wish(run, ("queue_imbalance",)), home / "good.json")
    bad = boosted.artifact(2, chain=CHAIN, horizon=1)
    async with evidence.pool_of(addresses) as pool:
        names = [(await registry.register(pool, "gbdt", body)).version for body in (good.body, bad)]
    return names[0], names[1]


async def spoken(addresses: Addresses, generation: int) -> None:
    """Wait until there is a row by a generation."""
    sql = """SELECT count(*) FROM activations a JOIN predictions p USING (partition)
              WHERE a.generation = $1 AND (p."offset", p."index") >= (a."offset", a."index")"""
    async with evidence.connection_to(addresses) as connection:

        async def holds() -> bool:
            return bool(await connection.fetchval(sql, generation))

        await evidence.until(holds, PATIENCE)


async def rolled_back(addresses: Addresses) -> list[Any]:
    """The log of rollbacks."""
    async with evidence.connection_to(addresses) as connection:
        return list(await connection.fetch("SELECT * FROM rollback_log"))


async def live(addresses: Addresses, home: Path) -> tuple[str, str]:
    """Feed; promote the good one, then the bad one; wait until it has gone again; feed the rest."""
    good, bad = await register(addresses, home)
    table, _ = market(TICKS, 4)
    table.to_csv(home / "ticks.csv", index=False)
    pace = UntilTold(rate=RATE)
    async with Publisher(addresses.kafka) as publisher, asyncio.TaskGroup() as group:
        feeding = group.create_task(
            publish_file(home / "ticks.csv", publisher, pace=pace, frame=10)
        )

        async def begun() -> bool:
            return bool(await evidence.marks(addresses))

        await evidence.until(begun, PATIENCE)
        await asyncio.to_thread(command, addresses, "promote", good)
        await spoken(addresses, 1)
        await asyncio.to_thread(command, addresses, "promote", bad, "--reason", "on paper")
        await spoken(addresses, 2)

        async def gone() -> bool:
            return bool(await rolled_back(addresses))

        await evidence.until(gone, PATIENCE)
        await spoken(addresses, 3)
        pace.hurry.append(True)
        assert await feeding == TICKS
        await evidence.until(lambda: evidence.drained(addresses), PATIENCE)
    return good, bad


def test_a_worse_version_does_not_stay(tmp_path: Path) -> None:
    """Rolled back by its live losses, an alert, every row as a replay makes it, scores by role."""
    with start_servers(tmp_path / "data") as fleet:
        addresses = fleet.addresses
        asyncio.run(prepare(addresses, load_settings(SETTINGS)))
        with (
            Worker(addresses, tmp_path / "worker.log", *SETTINGS) as worker,
            training(addresses, tmp_path / "training.log"),
        ):
            good, bad = asyncio.run(live(addresses, tmp_path))
            (row,) = asyncio.run(rolled_back(addresses))
            assert (row["from_version"], row["to_version"]) == (bad, good)
            assert row["reason"].startswith(f"its shadow {good} was better: log loss ")
            alerts = [
                json.loads(one.value or b"")
                for one in asyncio.run(evidence.records(addresses, "alerts"))
            ]
            (alert,) = [one for one in alerts if one["kind"] == "model_rolled_back"]
            assert (alert["version"], alert["active"], alert["why"]) == (bad, good, row["reason"])
            assert alert["live_log_loss"] > alert["shadow_log_loss"]
            assert worker.stop() == 0
        values = naming(addresses)
        done = tickstream("parity", *LIVE, values=values, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"bit-equal: ticks {TICKS:,}")
        out = tmp_path / "replay"
        done = tickstream("replay", "kafka:prices", "--out", out, *LIVE, values=values, timeout=300)
        assert done.returncode == 0, done.stderr
        for stage in STAGES:
            assert asyncio.run(apart(addresses.postgres, stage, out)) == []
        spoken_of = json.loads((out / "manifest.json").read_text())["models"]["gbdt"]
        for partition in {one["partition"] for one in spoken_of}:
            mine = [one for one in spoken_of if one["partition"] == partition]
            assert [(one["version"], one["shadow"]) for one in mine] == [
                (good, None), (bad, good), (good, None),
            ]  # fmt: skip
        shown = command(addresses, "show", good)
        assert "live " in shown
        assert "shadow " in shown
        assert f"promoted {bad} on paper [worse: its shadow {good} was better" in shown
        said = json.loads(command(addresses, "show", bad, "--json"))["scores"]
        assert {one["rows"] for one in said} == {"held_out", "live"}
        assert np.isfinite([one["log_loss"] for one in said]).all()
