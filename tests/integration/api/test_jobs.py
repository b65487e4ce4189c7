"""Jobs by GraphQL: asked for, listed, cancelled; and the runner that does them, or dies of them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import httpx
import psutil
import pytest

from agents import training
from agents.jobs import arguments_of
from agents.training import Runner
from pipeline.cli.replay import replay
from pipeline.servers.child import Child, Command, locked
from pipeline.servers.postgres import PostgresServer
from pipeline.settings import JobsSettings, Settings, StoreSettings, child_environment
from pipeline.store import jobs
from pipeline.store.jobs import Claim, State
from pipeline.store.keys import Role, create_key
from pipeline.store.live import LiveStore
from pipeline.store.pool import Pool, open_pool
from pipeline.store.statements import statement
from tests.acceptance.forked import tickstream
from tests.integration.api.conftest import Feed, ask, make_rows, served

FIELDS = """id kind state source from to bar settings trials year key principal askedAt startedAt
  finishedAt attempts cancelAsked error directory rows { stage count }
  figures { finalEquity totalReturn sharpe maxDrawdown trades winRate } fingerprint
  run { service fingerprint partitions { partition mark } }"""
REPLAY = f"""mutation ($key: String!, $source: JobSource! = STORED, $from: DateTime, $to: DateTime,
    $bar: String, $settings: [String!]! = []) {{
  startReplay(key: $key, source: $source, from: $from, to: $to, bar: $bar, settings: $settings) {{
    {FIELDS} }}
}}"""
BACKTEST = f"""mutation ($key: String!, $trials: Int! = 1, $year: Int) {{
  startBacktest(key: $key, trials: $trials, year: $year, bar: "ticks:10") {{ {FIELDS} }}
}}"""
JOBS = f"""query ($first: Int, $after: BigInt, $state: JobState) {{
  jobs(first: $first, after: $after, state: $state) {{ {FIELDS} }}
}}"""
JOB = f"query ($id: BigInt!) {{ job(id: $id) {{ {FIELDS} }} }}"
CANCEL = f"mutation ($id: BigInt!) {{ cancelJob(id: $id) {{ {FIELDS} }} }}"
# Kernels may be compiled on the way, by processes that let all others go first.
pytestmark = pytest.mark.timeout(500)
SHORT = timedelta(seconds=60)
PASSED = timedelta(seconds=-1)


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    """The database of the API."""
    assert settings.postgres is not None
    opened = await open_pool(settings.postgres, StoreSettings())
    yield opened
    await opened.close()


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with served(settings) as found:
        yield found


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def started(client: httpx.AsyncClient, query: str = REPLAY, **given: Any) -> dict[str, Any]:
    """The job that was asked for."""
    answer = await ask(client, query, **{"key": "k", **given})
    assert "errors" not in answer, answer
    (job,) = answer["data"].values()
    assert isinstance(job, dict)
    return job


async def code_of(client: httpx.AsyncClient, query: str, **given: Any) -> str:
    """The code of the error of an answer."""
    answer = await ask(client, query, **given)
    found: str = answer["errors"][0]["extensions"]["code"]
    return found


async def becomes(pool: Pool, number: int, state: State, seconds: float = 200) -> dict[str, Any]:
    """The job, as soon as it stands there."""
    for _ in range(int(seconds / 0.1)):
        job = await jobs.find(pool, number)
        assert job is not None
        if job["state"] == state:
            return job
        await asyncio.sleep(0.1)
    pytest.fail(f"{job}: is not {state}")


async def test_a_job_is_told_as_it_was_asked_for(client: httpx.AsyncClient, pool: Pool) -> None:
    """All that was given, in its words; the fingerprint is that of these settings."""
    given: dict[str, Any] = {
        "from": "2026-01-05T09:30:00.000000001Z",
        "to": "2026-01-06T00:00:00.000000000Z",
        "bar": "ticks:10",
        "settings": ["fills.taker_bp=5"],
    }
    job = await started(client, source="TOPIC", **given)
    assert job == {
        **dict.fromkeys(
            ("startedAt", "finishedAt", "error", "directory", "figures", "run", "trials", "year")
        ),
        **given,
        "id": job["id"],
        "kind": "REPLAY",
        "state": "QUEUED",
        "source": "TOPIC",
        "key": "k",
        "principal": "local",
        "askedAt": job["askedAt"],
        "attempts": 0,
        "cancelAsked": False,
        "rows": [],
        "fingerprint": job["fingerprint"],
    }
    stored = await jobs.find(pool, int(job["id"]))
    assert stored is not None
    # The command line of the version that runs takes them.
    words = arguments_of(stored, Path("out"), ["fills.taker_bp=1"])
    context = replay.make_context("replay", words[1:])
    assert context.params["sets"] == ("fills.taker_bp=1", "fills.taker_bp=5")
    assert context.params["start"] == given["from"]
    assert context.params["source"] == "kafka:prices"


async def test_the_same_key_is_the_same_job(client: httpx.AsyncClient) -> None:
    """Asked again it is not made again; with another content it is a conflict."""
    first = await started(client, settings=["fills.taker_bp=5"])
    assert await started(client, settings=["fills.taker_bp=5"]) == first
    others: list[dict[str, Any]] = [
        {"settings": []},
        {"settings": ["fills.taker_bp=5"], "bar": "ticks:1"},
    ]
    for other in others:
        assert await code_of(client, REPLAY, key="k", **other) == "CONFLICT"
    assert await code_of(client, BACKTEST, key="k") == "CONFLICT"
    many = await asyncio.gather(*(started(client, key="other") for _ in range(8)))
    assert len({job["id"] for job in many}) == 1
    assert len((await ask(client, JOBS))["data"]["jobs"]) == 2


async def test_what_cannot_be_done_is_not_stored(client: httpx.AsyncClient) -> None:
    """Each mistake is said at once, and nothing waits for a runner."""
    for given, code in (
        ({"key": ""}, "BAD_INPUT"),
        ({"key": "x" * 65}, "BAD_INPUT"),
        ({"key": "a\0"}, "BAD_INPUT"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "BAD_INPUT"),
        ({"bar": "never"}, "BAD_INPUT"),
        ({"settings": ["user.features=[]"]}, "BAD_INPUT"),
        ({"settings": ["fills.taker_bp=-1"]}, "BAD_INPUT"),
        ({"source": "/etc/passwd"}, "BAD_REQUEST"),
    ):
        assert await code_of(client, REPLAY, **{"key": "k", **given}) == code, given
    for name, value in (("trials", 0), ("trials", 1_000_001), ("year", 0), ("year", 367)):
        assert await code_of(client, BACKTEST, key="k", **{name: value}) == "BAD_INPUT", name
    assert (await ask(client, JOBS))["data"]["jobs"] == []


async def test_as_many_wait_as_may(settings: Settings) -> None:
    """One more is refused; one that was cancelled makes room."""
    few = settings.model_copy(update={"jobs": JobsSettings(queued_max=2)})
    async with served(few) as client:
        one = await started(client, key="1")
        await started(client, key="2")
        assert await code_of(client, REPLAY, key="3") == "LIMITED"
        assert (await started(client, key="1"))["id"] == one["id"]
        await ask(client, CANCEL, id=one["id"])
        await started(client, key="3")


async def test_they_are_listed_by_pages(client: httpx.AsyncClient) -> None:
    """Newest first, from behind the last one of the page before; by state; one by its number."""
    made = [(await started(client, key=str(number)))["id"] for number in range(5)]
    assert (await ask(client, CANCEL, id=made[1]))["data"]["cancelJob"]["state"] == "CANCELLED"

    async def ids(**given: Any) -> list[str]:
        return [job["id"] for job in (await ask(client, JOBS, **given))["data"]["jobs"]]

    assert await ids() == made[::-1]
    assert await ids(first=2) == [made[4], made[3]]
    assert await ids(first=2, after=made[3]) == [made[2], made[1]]
    assert await ids(first=9, after=made[2], state="QUEUED") == [made[0]]
    assert await ids(state="CANCELLED") == [made[1]]
    assert await code_of(client, JOBS, first=501) == "BAD_INPUT"
    assert (await ask(client, JOB, id=made[1]))["data"]["job"]["cancelAsked"] is True
    assert (await ask(client, JOB, id="0"))["data"] == {"job": None}
    assert await code_of(client, CANCEL, id="0") == "BAD_INPUT"


async def test_keys_are_by_principal_and_readers_are_refused(
    settings: Settings, pool: Pool
) -> None:
    """Two operators may use one key, each for a job of its own; a reader gets nothing."""
    api = settings.api.model_copy(update={"auth": True})
    keys = [await create_key(pool, "k", role, None) for role in (Role.OPERATOR, Role.OPERATOR)]
    reader = await create_key(pool, "k", Role.READER, None)
    async with served(settings.model_copy(update={"api": api})) as client:
        made = []
        for key in keys:
            client.headers["authorization"] = f"Bearer {key.text}"
            made.append(await started(client))
        assert [job["principal"] for job in made] == [f"key:{key.id}" for key in keys]
        client.headers["authorization"] = f"Bearer {reader.text}"
        for query in (REPLAY, BACKTEST):
            assert await code_of(client, query, key="k") == "FORBIDDEN"
        for query in (JOB, CANCEL):
            assert await code_of(client, query, id=made[0]["id"]) == "FORBIDDEN"
        assert await code_of(client, JOBS) == "FORBIDDEN"


async def test_postgres_away_is_said(
    client: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    """Nothing is taken that is not stored; afterwards it is taken, without a restart."""
    postgres_server.kill()
    assert await code_of(client, REPLAY, key="k") == "UNAVAILABLE"
    await asyncio.to_thread(postgres_server.start)
    assert (await started(client))["state"] == "QUEUED"


async def test_plans_have_no_scan(client: httpx.AsyncClient, pool: Pool) -> None:
    """Pages of a large table of jobs, and the next one to do, come by an index."""
    del client
    await pool.execute(
        "INSERT INTO jobs (kind, arguments, principal, key, fingerprint, state, error)"
        " SELECT 'replay', '{}', 'p', n::text, 'f', 'failed', 'e' FROM generate_series(1, 20000) n"
    )
    await pool.execute("ANALYZE jobs")
    for name, arguments in (
        ("jobs", (100, 10_000)),
        ("jobs_of_state", (100, 10_000, "failed")),
        ("jobs_of_state", (100, 10_000, "queued")),
        ("job", (7,)),
        ("job_by_key", ("p", "7")),
        ("queued_jobs", ()),
        ("settle_jobs", (3, "e")),
        ("claim_job", ("r", SHORT)),
        ("hold_job", (1, "r", 1, SHORT)),
    ):
        rows = await pool.fetch(f"EXPLAIN {statement(name)}", *arguments)
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan" not in plan, plan


async def taken(pool: Pool, name: str = "r", lease: timedelta = SHORT, attempts: int = 3) -> Any:
    """What a runner of this name gets."""
    return await jobs.claim(pool, name, lease, attempts)


async def test_of_many_runners_one_wins(client: httpx.AsyncClient, pool: Pool) -> None:
    """Each job is given to one of those who ask at once; the oldest is given first."""
    made = [int((await started(client, key=str(number)))["id"]) for number in range(3)]
    found = await asyncio.gather(*(taken(pool, f"r{number}") for number in range(12)))
    assert sorted(one[0].id for one in found if one) == made
    assert await taken(pool) is None


async def test_a_lease_that_passed_is_anothers(client: httpx.AsyncClient, pool: Pool) -> None:
    """The former holder can neither prolong, give back nor finish it."""
    number = int((await started(client))["id"])
    former, _ = await taken(pool, "first", PASSED)
    held, _ = await taken(pool, "second")
    assert (held.id, held.attempt) == (number, 2)
    assert await jobs.hold(pool, former, SHORT) is None
    assert await jobs.release(pool, former) is False
    assert await jobs.finish(pool, former, State.FAILED, error="x") is False
    assert await jobs.hold(pool, held, SHORT) is False
    result: dict[str, Any] = {"rows": [], "fingerprint": "f", "figures": None}
    for _ in range(2):  # told again when the answer was lost
        assert await jobs.finish(pool, held, State.DONE, directory="d", result=result) is True
    job = await jobs.find(pool, number)
    assert job is not None
    assert (job["state"], job["directory"], job["error"]) == ("done", "d", None)


async def test_a_job_that_kills_its_runners_fails(client: httpx.AsyncClient, pool: Pool) -> None:
    """After so many attempts it is not begun again; one that was to be cancelled is cancelled."""
    made = [int((await started(client, key=key))["id"]) for key in "ab"]
    for _ in range(2):
        assert (await taken(pool, lease=PASSED, attempts=2))[0].id == made[0]
    assert (await taken(pool, lease=PASSED, attempts=2))[0].id == made[1]
    await ask(client, CANCEL, id=str(made[1]))
    assert await taken(pool, attempts=2) is None
    states = [(await ask(client, JOB, id=str(number)))["data"]["job"] for number in made]
    assert [job["state"] for job in states] == ["FAILED", "CANCELLED"]
    assert "died or was cut off 2 times" in states[0]["error"]
    assert states[1]["error"] is None


@contextmanager
def runner(settings: Settings, home: Path, *sets: str) -> Iterator[Popen[bytes]]:
    """A runner process; it is killed if the test did not end it."""
    assert settings.postgres is not None
    words = [part for one in (f"jobs.directory={json.dumps(str(home))}", *sets)
             for part in ("--set", one)]  # fmt: skip
    with Popen(
        [sys.executable, "-m", "agents.training", *words],
        env=child_environment({"TICKSTREAM_POSTGRES": settings.postgres}),
        stdin=DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def fed(feed: Feed) -> None:
    """Ticks of an instrument, a second apart."""
    rows = make_rows("ticks", "A", 600, flag=0, side=0)
    for name in ("price", "size"):
        rows.columns[name][:] = 100 + rows.columns[name] % 7
    for name in ("bid", "ask", "bid_size", "ask_size", "open", "high", "low"):
        rows.columns[name][:] = float("nan")
    await feed.put({"ticks": rows}, ["A"])


async def test_from_asking_to_the_output(
    settings: Settings, client: httpx.AsyncClient, pool: Pool, feed: Feed, tmp_path: Path
) -> None:
    """A replay is what the command makes, byte for byte; a backtest has its figures; one fails."""
    await fed(feed)
    replay = await started(client, key="replay", bar="ticks:10")
    backtest = await started(client, BACKTEST, key="backtest", trials=3)
    topic = await started(client, key="topic", source="TOPIC")
    chain = settings.chain.model_copy(
        update={"bars": settings.chain.bars.model_copy(update={"clock": "ticks:10"})}
    )
    await LiveStore(pool, settings.worker.group, chain.fingerprint()).claim(0)
    with runner(settings, tmp_path / "jobs") as process:
        for job in (replay, backtest):
            await becomes(pool, int(job["id"]), State.DONE)
        await becomes(pool, int(topic["id"]), State.FAILED)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0
    values = {"TICKSTREAM_POSTGRES": str(settings.postgres)}
    done = await asyncio.to_thread(
        lambda: tickstream(
            "replay", "postgres:ticks", "--out", tmp_path / "own", "--bar", "ticks:10", "--json",
            values=values,
        )
    )  # fmt: skip
    manifest = json.loads(done.stdout)
    found = (await ask(client, JOB, id=replay["id"]))["data"]["job"]
    assert {row["stage"]: int(row["count"]) for row in found["rows"]} == manifest["rows"]
    assert manifest["rows"]["bars"] > 50
    written = json.loads((Path(found["directory"]) / "manifest.json").read_text())
    assert written["sha256"] == manifest["sha256"]
    assert found["fingerprint"] == manifest["settings_hash"] == chain.fingerprint()
    assert found["run"]["service"] == settings.worker.group
    assert found["figures"] is None
    assert (found["attempts"], found["error"]) == (1, None)
    assert found["askedAt"] <= found["startedAt"] <= found["finishedAt"]
    tested = (await ask(client, JOB, id=backtest["id"]))["data"]["job"]
    metrics = json.loads((Path(tested["directory"]) / "metrics.json").read_text())
    assert metrics["trials"] == tested["trials"] == 3
    assert tested["figures"]["finalEquity"] == metrics["final_equity"]
    assert tested["figures"]["sharpe"] == metrics["performance"]["sharpe"]
    assert tested["figures"]["trades"] == metrics["trading"]["trades"]
    failed = (await ask(client, JOB, id=topic["id"]))["data"]["job"]
    assert "no kafka: set TICKSTREAM_KAFKA" in failed["error"]
    assert failed["rows"] == []


def child_of(process: Popen[bytes], word: str) -> int | None:
    """The process below this one whose command line has a word."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if word in child.cmdline():
                return child.pid
        except psutil.Error:
            continue
    return None


async def test_kill_9_of_a_runner_in_the_middle(
    settings: Settings, client: httpx.AsyncClient, pool: Pool, feed: Feed, tmp_path: Path
) -> None:
    """Its process dies with it; another runner takes the job up when the lease has passed."""
    await fed(feed)
    number = int((await started(client, BACKTEST))["id"])
    with runner(settings, tmp_path, "jobs.lease_seconds=1") as process:
        await becomes(pool, number, State.RUNNING)
        for _ in range(200):
            if (pid := child_of(process, "pipeline.cli")) is not None:
                break
            await asyncio.sleep(0.02)
        assert pid is not None
        process.kill()
        await asyncio.to_thread(process.wait)
        for _ in range(100):
            if not psutil.pid_exists(pid):
                break
            await asyncio.sleep(0.05)
        assert not psutil.pid_exists(pid)
    assert (await ask(client, JOB, id=str(number)))["data"]["job"]["state"] == "RUNNING"
    assert (tmp_path / f"backtest-{number}.1").is_dir()
    with runner(settings, tmp_path):
        job = await becomes(pool, number, State.DONE)
    assert job["attempts"] == 2
    assert names(tmp_path) == [f"backtest-{number}.2"]
    assert (Path(job["directory"]) / "report.html").is_file()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Every job is a process that sleeps; those that were begun."""
    made: list[Child] = []

    def begin(_job: Any, place: Path, _sets: Any) -> Child:
        (place / "output").mkdir(parents=True)
        command = Command(argv=("sleep", "300"), cwd=place)
        with locked("job", place / "lock") as lock:
            made.append(Child("job", command, log=place / "log", lock=lock))
        return made[-1]

    monkeypatch.setattr(training, "begin", begin)
    return made


@pytest.fixture
async def running(
    settings: Settings, pool: Pool, tmp_path: Path
) -> AsyncIterator[Callable[..., asyncio.Event]]:
    """Starts a runner in this process; the event stops it."""
    tasks: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    def start(**given: Any) -> asyncio.Event:
        stop = asyncio.Event()
        chosen = settings.model_copy(update={"jobs": JobsSettings(lease_seconds=1, **given)})
        made = Runner(pool, chosen, tmp_path, (), stop)
        tasks.append((stop, asyncio.create_task(made.run())))
        return stop

    yield start
    for stop, task in tasks:
        stop.set()
        async with asyncio.timeout(30):
            await task


async def test_a_running_job_is_cancelled(
    client: httpx.AsyncClient, pool: Pool, slow: list[Child], running: Any, tmp_path: Path
) -> None:
    """Its process ends, nothing of it stays, and the runner goes on to the next one."""
    number, second = [int((await started(client, key=key))["id"]) for key in "ab"]
    running()
    await becomes(pool, number, State.RUNNING)
    answer = await ask(client, CANCEL, id=str(number))
    assert answer["data"]["cancelJob"]["state"] == "RUNNING"
    assert answer["data"]["cancelJob"]["cancelAsked"] is True
    job = await becomes(pool, number, State.CANCELLED)
    assert (job["error"], job["directory"]) == (None, None)
    await becomes(pool, second, State.RUNNING)
    assert not slow[0].alive
    assert names(tmp_path) == [f"replay-{second}.1"]
    again = await ask(client, CANCEL, id=str(number))
    assert again["data"]["cancelJob"]["state"] == "CANCELLED"


async def test_no_more_at_once_than_is_set(
    client: httpx.AsyncClient, pool: Pool, slow: list[Child], running: Any
) -> None:
    """Two of four run, and are held for longer than a lease; one that ends makes room."""
    made = [int((await started(client, key=str(number)))["id"]) for number in range(4)]
    running(at_once=2)
    await becomes(pool, made[1], State.RUNNING)
    await asyncio.sleep(2.5)
    states = [(await jobs.find(pool, number) or {})["state"] for number in made]
    assert states == ["running", "running", "queued", "queued"]
    assert [job["attempts"] for job in await jobs.newest(pool, 9)] == [0, 0, 1, 1]
    slow[0].kill()
    assert (await becomes(pool, made[2], State.RUNNING))["attempts"] == 1
    failed = [job for job in await jobs.newest(pool, 9) if job["state"] == "failed"]
    assert "was killed" in failed[0]["error"]


async def test_what_takes_too_long_fails(
    client: httpx.AsyncClient, pool: Pool, slow: list[Child], running: Any, tmp_path: Path
) -> None:
    """Its log stays, what it wrote does not."""
    number = int((await started(client))["id"])
    running(seconds_max=0.5)
    assert "jobs.seconds_max" in (await becomes(pool, number, State.FAILED))["error"]
    assert not slow[0].alive
    await asyncio.sleep(0.3)
    assert names(tmp_path / f"replay-{number}.1") == ["lock", "log"]


async def test_a_runner_that_is_stopped_gives_back(
    client: httpx.AsyncClient, pool: Pool, slow: list[Child], running: Any, tmp_path: Path
) -> None:
    """The job waits again as if it had not been begun."""
    number = int((await started(client))["id"])
    stop = running()
    await becomes(pool, number, State.RUNNING)
    stop.set()
    assert (await becomes(pool, number, State.QUEUED))["attempts"] == 0
    assert not slow[0].alive
    for _ in range(50):
        if not names(tmp_path):
            break
        await asyncio.sleep(0.05)
    assert names(tmp_path) == []


async def test_a_lost_lease_ends_the_process(
    client: httpx.AsyncClient, pool: Pool, slow: list[Child], running: Any
) -> None:
    """When another runner has it, or Postgres was away for longer than the lease, it is cut off."""
    number = int((await started(client))["id"])
    running()
    await becomes(pool, number, State.RUNNING)
    await pool.execute("UPDATE jobs SET runner = 'another', lease_until = now() + interval '60 s'")
    for _ in range(100):
        if slow and not slow[0].alive:
            break
        await asyncio.sleep(0.05)
    assert not slow[0].alive
    job = await jobs.find(pool, number)
    assert job is not None
    assert (job["state"], job["runner"]) == ("running", "another")


async def test_postgres_away_for_longer_than_a_lease(
    client: httpx.AsyncClient,
    pool: Pool,
    slow: list[Child],
    running: Any,
    postgres_server: PostgresServer,
) -> None:
    """The process is cut off, as another could have it by then; then the job is begun anew."""
    number = int((await started(client))["id"])
    running()
    await becomes(pool, number, State.RUNNING)
    for _ in range(200):
        if slow:
            break
        await asyncio.sleep(0.05)
    postgres_server.kill()
    for _ in range(200):
        if not slow[0].alive:
            break
        await asyncio.sleep(0.05)
    assert not slow[0].alive
    await asyncio.to_thread(postgres_server.start)
    for _ in range(200):
        if len(slow) > 1:
            break
        await asyncio.sleep(0.05)
    job = await becomes(pool, number, State.RUNNING)
    assert job["attempts"] == 2
    held = Claim(number, job["runner"], 2)
    assert await jobs.hold(pool, held, SHORT) is False
