"""Trainings by a schedule: once for all services, from stored ticks to an active version."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import psutil
import pytest

from pipeline.models import registry
from pipeline.models.scheduled import due
from pipeline.servers.postgres import PostgresServer
from pipeline.settings import (
    Settings,
    StoreSettings,
    child_environment,
    load_settings,
)
from pipeline.stages.chain import Chain
from pipeline.store import jobs
from pipeline.store.jobs import NewJob
from pipeline.store.live import LiveStore, PartitionBatch
from pipeline.store.migrate import migrate
from pipeline.store.pool import Pool, open_pool
from tests.acceptance.commands import only_line
from tests.acceptance.forked import tickstream
from tests.fixtures.planted import SETTINGS, market
from tests.fixtures.ticks import arrivals_of

# Kernels may be compiled on the way, by processes that let all others go first.
pytestmark = pytest.mark.timeout(1800)
SCHEDULE = (
    *SETTINGS, "training.every=300d", "training.range=36500d",
    'training.features=["queue_imbalance", "rsi_14"]',
)  # fmt: skip
NOW = 1_780_000_000 * 10**9
LEASE = timedelta(seconds=60)
PASSED = timedelta(seconds=-1)


@pytest.fixture(autouse=True)
def _no_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services as the extra `gbdt` installs them: LightGBM loads scikit-learn where it is there.

    That alone takes two seconds of the processor, at each training.
    """
    (tmp_path / "lean").mkdir()
    (tmp_path / "lean" / "sklearn.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lean"), prepend=os.pathsep)


async def fed(pool: Pool, n: int) -> None:
    """Live ticks of a market whose next move hangs on the queue."""
    came = arrivals_of(market(n, 1)[0])
    settings = load_settings(SETTINGS)
    block = Chain(settings.chain).step(came)
    store = LiveStore(pool, settings.worker.group, settings.chain.fingerprint())
    claim = await store.claim(0)
    rows = {"ticks": block.rows["ticks"]}
    symbols = list(rows["ticks"].symbols)
    await store.commit([PartitionBatch(0, claim.epoch, n, rows, [], symbols, [])])


@contextmanager
def service(
    home: Path, log: Path, values: Mapping[str, str], *sets: str
) -> Iterator["Popen[bytes]"]:
    """The service training; it is killed if the test did not end it."""
    chosen = (f"jobs.directory={json.dumps(str(home))}", *SCHEDULE, *sets)
    words = [part for one in chosen for part in ("--set", one)]
    with (
        log.open("ab") as sink,
        Popen(
            [sys.executable, "-m", "agents.training", *words],
            env=child_environment(values),
            stdin=DEVNULL,
            stderr=sink,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def until(found: Callable[[], Any], seconds: float = 900) -> Any:
    """What is found, as soon as it is true."""
    for _ in range(int(seconds / 0.1)):
        if value := found():
            return value
        await asyncio.sleep(0.1)
    pytest.fail("it did not come")


async def stands(pool: Pool, state: str, seconds: float = 900) -> dict[str, Any]:
    """The newest job, as soon as it stands there."""
    job: dict[str, Any] = {}
    for _ in range(int(seconds / 0.1)):
        for job in await jobs.newest(pool, 1):
            if job["state"] == state:
                return job
        await asyncio.sleep(0.1)
    pytest.fail(f"{job}: is not {state}")


async def test_two_services_train_once(
    pool: Pool, postgres: str, kafka: str, tmp_path: Path
) -> None:
    """Both ask for the turn, one does it; the better one is active, and a later turn keeps it."""
    await fed(pool, 8000)
    values = {"TICKSTREAM_POSTGRES": postgres, "TICKSTREAM_KAFKA": kafka}
    log = tmp_path / "log"
    with service(tmp_path / "a", log, values) as one, service(tmp_path / "b", log, values):
        job = await stands(pool, "done")
        await until(lambda: log.read_text().count("training_asked") == 2)
        one.terminate()
        assert await asyncio.to_thread(one.wait, 900) == 0
    assert len(await jobs.newest(pool, 9)) == 1
    assert (job["kind"], job["principal"], job["attempts"]) == ("training", "schedule:gbdt", 1)
    told = job["result"]["training"]
    (version,) = await registry.versions(pool)
    assert version["is_active"]
    assert (told["outcome"], told["better"], told["champion"]) == ("promoted", True, None)
    assert told["version"] == version["version"]
    assert version["data"]["inputs"] == [
        {"table": "ticks", "partition": 0, "from": 0, "to": 8000, "rows": 8000}
    ]
    assert version["features"] == ["queue_imbalance", "rsi_14"]
    # The replay is gone, what was trained is there.
    assert names(Path(job["directory"])) == ["gbdt.json", "training.json"]
    more = ("training.every=299d", 'training.features=["rsi_14"]')
    with service(tmp_path / "a", log, values, *more):
        await until(lambda: log.read_text().count("training_asked") == 3)
        job = await stands(pool, "done")
    told = job["result"]["training"]
    assert (told["outcome"], told["better"]) == ("kept", False)
    assert told["champion"] == version["version"]


async def test_without_data_it_is_skipped(
    pool: Pool, postgres: str, kafka: str, tmp_path: Path
) -> None:
    """No ticks at all, or too few of them; the reason is told, and nothing is registered."""
    values = {"TICKSTREAM_POSTGRES": postgres, "TICKSTREAM_KAFKA": kafka}
    with service(tmp_path / "jobs", tmp_path / "log", values):
        told = (await stands(pool, "done"))["result"]["training"]
    assert (told["outcome"], told["version"]) == ("skipped", None)
    assert told["why"] == "no bar has an outcome 1 bars later"
    await fed(pool, 900)
    done = tickstream("train", "range", "postgres:ticks", "--out", tmp_path / "own",
                      *(part for one in SCHEDULE for part in ("--set", one)),
                      values=values, timeout=900)  # fmt: skip
    assert (done.returncode, "too few to train on" in done.stdout) == (0, True), done.stderr
    assert await registry.versions(pool) == []


async def test_symbols_that_are_named_teach_alone(
    pool: Pool, postgres: str, kafka: str, tmp_path: Path
) -> None:
    """The rows of others are replayed, and neither trained on nor judged by."""
    await fed(pool, 8000)
    values = {"TICKSTREAM_POSTGRES": postgres, "TICKSTREAM_KAFKA": kafka}
    sets = (*SCHEDULE, 'training.symbols=["B"]', "training.promote=false")
    done = tickstream("train", "range", "postgres:ticks", "--out", tmp_path / "own", "--json",
                      *(part for one in sets for part in ("--set", one)),
                      values=values, timeout=900)  # fmt: skip
    told = json.loads(done.stdout)["training"]
    assert (told["outcome"], told["better"]) == ("kept", True)
    (version,) = await registry.versions(pool)
    assert version["data"]["symbols"] == ["B"]
    assert version["data"]["rows"] < 3100
    assert not version["is_active"]


def child_of(process: "Popen[bytes]") -> int | None:
    """The process that trains below a service."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "pipeline.cli" in child.cmdline():
                return child.pid
        except psutil.Error:
            continue
    return None


async def test_kill_9_in_the_middle(pool: Pool, postgres: str, kafka: str, tmp_path: Path) -> None:
    """The training dies with its service; another one begins it anew, once the lease passed."""
    await fed(pool, 8000)
    values = {"TICKSTREAM_POSTGRES": postgres, "TICKSTREAM_KAFKA": kafka}
    home, log = tmp_path / "jobs", tmp_path / "log"
    with service(home, log, values, "jobs.lease_seconds=1") as process:
        pid = await until(lambda: child_of(process))
        process.kill()
        await asyncio.to_thread(process.wait)
        await until(lambda: not psutil.pid_exists(pid))
    assert (await stands(pool, "running"))["attempts"] == 1
    with service(home, log, values):
        job = await stands(pool, "done")
    assert (job["attempts"], job["result"]["training"]["outcome"]) == (2, "promoted")
    assert names(home) == [f"training-{job['id']}.2"]


def silent() -> int:
    """A port that nothing listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_kafka_away(pool: Pool, postgres: str, kafka: str, tmp_path: Path) -> None:
    """It is told in one line and put off; when Kafka is there it is done, and promoted."""
    await fed(pool, 8000)
    log = tmp_path / "log"
    values = {"TICKSTREAM_POSTGRES": postgres, "TICKSTREAM_KAFKA": f"127.0.0.1:{silent()}"}
    with service(tmp_path / "jobs", log, values):
        await until(lambda: "job_put_off" in log.read_text())
        job = await stands(pool, "queued")
        assert (job["retries"], job["attempts"]) == (1, 1)
        assert job["trouble"].startswith("a server was away")
        assert job["not_before"] > job["started_at"]
        (line,) = [text for text in log.read_text().splitlines() if "job_put_off" in text]
        assert "Kafka at 127.0.0.1" in line
        assert "seconds=5" in line
    assert await pool.fetchval("SELECT active FROM models") is None
    await pool.execute("UPDATE jobs SET not_before = now()")
    with service(tmp_path / "jobs", log, {**values, "TICKSTREAM_KAFKA": kafka}):
        job = await stands(pool, "done")
    assert (job["attempts"], job["result"]["training"]["outcome"]) == (2, "promoted")


async def test_postgres_away(kafka: str, tmp_path: Path) -> None:
    """In the middle of a training: one line of each who misses it, and it is done afterwards."""
    with PostgresServer(tmp_path / "postgres") as server:
        pool = await open_pool(server.address, StoreSettings())
        await migrate(pool)
        await fed(pool, 8000)
        values = {"TICKSTREAM_POSTGRES": server.address, "TICKSTREAM_KAFKA": kafka}
        log = tmp_path / "log"
        sets = ("jobs.at_once=2", "jobs.lease_seconds=600")
        with service(tmp_path / "jobs", log, values, *sets) as process:
            await until(lambda: child_of(process))
            server.kill()
            await until(lambda: "job_put_off" in log.read_text())
            await asyncio.sleep(3)
            server.start()
            await stands(pool, "queued")
            await pool.execute("UPDATE jobs SET not_before = now()")
            job = await stands(pool, "done")
        await pool.close()
    told = log.read_text()
    assert job["result"]["training"]["outcome"] == "promoted"
    assert job["retries"] == 1
    # By the turn that looks for work, and by the one that had a job.
    assert told.count("jobs_not_read") == told.count("end_not_told") == 1


def turn(settings: Settings, days: int) -> NewJob:
    """The training of a turn so many days later."""
    return due(settings, NOW + days * 86_400 * 10**9)


async def test_one_turn_at_a_time(pool: Pool) -> None:
    """Of many who ask one is first; a new one replaces one that waits, and lets one run."""
    settings = load_settings(["training.every=1d"])
    found = await asyncio.gather(*(jobs.schedule(pool, turn(settings, 0)) for _ in range(8)))
    (first,) = {job["id"] for job in found if job}
    other = replace(turn(settings, 0), principal="schedule:other")
    assert (await jobs.schedule(pool, other) or {})["id"] != first
    second = await jobs.schedule(pool, turn(settings, 1))
    assert second is not None
    assert (await jobs.find(pool, first) or {})["state"] == "cancelled"
    taken = [await jobs.claim(pool, "r", LEASE, 3) for _ in range(2)]
    assert {one[0].id for one in taken if one} == {second["id"], second["id"] - 1}
    assert await jobs.schedule(pool, turn(settings, 2)) is None
    held = next(one[0] for one in taken if one and one[0].id == second["id"])
    await jobs.finish(pool, held, jobs.State.FAILED, error="x")
    assert (await jobs.schedule(pool, turn(settings, 2)) or {})["state"] == "queued"


async def test_what_is_put_off_waits(pool: Pool) -> None:
    """Nobody takes it up before; it does not count as a runner that died of it."""
    await jobs.schedule(pool, turn(load_settings(["training.every=1d"]), 0))
    for number in range(1, 4):
        taken = await jobs.claim(pool, "r", LEASE, 2)
        assert taken is not None
        assert taken[0].attempt == number
        assert await jobs.put_off(pool, taken[0], LEASE, "away")
        assert not await jobs.put_off(pool, taken[0], LEASE, "away")
        assert await jobs.claim(pool, "r", LEASE, 2) is None
        await pool.execute("UPDATE jobs SET not_before = now()")
    for _ in range(2):
        assert await jobs.claim(pool, "r", PASSED, 2) is not None
    assert await jobs.claim(pool, "r", LEASE, 2) is None
    assert (await stands(pool, "failed"))["retries"] == 3


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    """A file, a server that does not answer, and a schedule without Kafka."""
    out = ("--out", tmp_path / "out")
    done = tickstream("train", "range", "ticks.csv", *out, timeout=900)
    assert "replay a file first" in only_line(done, 2)
    away = {
        "TICKSTREAM_POSTGRES": "postgresql://me:geheim@127.0.0.1:1/x",
        "TICKSTREAM_KAFKA": "127.0.0.1:1",
    }
    done = tickstream("train", "range", "postgres:ticks", *out, values=away, timeout=900)
    line = only_line(done, 75)
    assert "Postgres does not answer" in line
    assert "geheim" not in line
    only = {"TICKSTREAM_POSTGRES": away["TICKSTREAM_POSTGRES"]}
    with service(tmp_path, tmp_path / "log", only) as process:
        assert process.wait(900) == 2
    assert "set TICKSTREAM_KAFKA" in (tmp_path / "log").read_text()
