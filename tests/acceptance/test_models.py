"""The registry on the command line: lists, promotions, rollbacks, and one line for what fails."""

import json
from datetime import date
from pathlib import Path

import pytest

from pipeline.models import registry
from pipeline.servers import Addresses
from pipeline.store import watches
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from tests.acceptance.commands import naming, only_line
from tests.acceptance.forked import tickstream
from tests.fixtures import boosted
from tests.fixtures.planted import SETTINGS, replayed

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def named(addresses: Addresses, postgres: str) -> dict[str, str]:
    """The variables of the servers, with a database of this test's own."""
    values = {**naming(addresses), "TICKSTREAM_POSTGRES": postgres}
    assert tickstream("topics", values=values).returncode == 0
    return values


async def registered(pool: Pool, *seeds: int) -> list[str]:
    """Names of new versions."""
    return [(await registry.register(pool, "gbdt", boosted.artifact(s))).version for s in seeds]


async def test_from_a_list_to_a_rollback(pool: Pool, named: dict[str, str]) -> None:
    """What a person types, and what a program reads."""
    assert tickstream("models", "list", values=named).stdout == ""
    one, two = await registered(pool, 1, 2)
    done = tickstream("models", "promote", one, "--reason", "first", values=named)
    assert (done.returncode, done.stdout) == (0, f"gbdt: {one} is active\n"), done.stderr
    done = tickstream("models", "promote", two, "--json", values=named)
    assert json.loads(done.stdout) == {
        "model": "gbdt", "version": two, "former": one, "generation": 2, "changed": True,
    }  # fmt: skip
    listed = tickstream("models", "list", "gbdt", values=named).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["~", one], ["*", two]]
    assert "log loss 0.680000 on 100 rows held out (-0.010000 to the base rate)" in listed[0]
    assert tickstream("models", "list", "other", "--json", values=named).stdout == "[]\n"
    shown = json.loads(tickstream("models", "show", two, "--json", values=named).stdout)
    assert (shown["version"], shown["is_active"]) == (two, True)
    assert [row["version"] for row in shown["history"]] == [one, two]
    text = tickstream("models", "show", two, values=named).stdout
    assert f"promoted {one} first" in text
    assert '["bar_ret_1", ' in text
    done = tickstream("models", "rollback", "gbdt", "--reason", "worse", values=named)
    assert done.stdout == f"gbdt: {one} is active, instead of {two}\n"
    done = tickstream("models", "promote", one, values=named)
    assert done.stdout == f"gbdt: {one} is active since generation 3\n"
    assert await watched(pool) == [2]
    unwatched = ("models", "promote", two, "--set", "models.watch=false")
    assert tickstream(*unwatched, values=named).returncode == 0
    assert await watched(pool) == [2]
    await watches.settle(pool, "gbdt", 2, "kept", "it did well", (9, 0.6, 0.7, 0.1))
    text = tickstream("models", "show", two, values=named).stdout
    assert f"promoted {two}  [kept: it did well]" in text


async def watched(pool: Pool) -> list[int]:
    """Generations of promotions that are watched."""
    return [row["generation"] for row in await pool.fetch("SELECT generation FROM watches")]


async def test_a_shadow_by_the_command_line(pool: Pool, named: dict[str, str]) -> None:
    """Set, listed, shown and ended; what cannot be one is a line."""
    one, two = await registered(pool, 1, 2)
    assert tickstream("models", "promote", one, values=named).returncode == 0
    done = tickstream("models", "shadow", two, "--reason", "look", values=named)
    assert (done.returncode, done.stdout) == (0, f"gbdt: {two} is the shadow\n"), done.stderr
    listed = tickstream("models", "list", values=named).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["*", one], ["~", two]]
    scored = (two, "shadow", date(2026, 1, 5), 1, 9, 1500, 0.68, 0.69, 0.25)
    await pool.execute(statement("add_day_scores"), *scored)
    shown = tickstream("models", "show", two, values=named).stdout
    assert f"shadow {two} look" in shown
    assert "held_out  log loss 0.680000 on 100 rows (-0.010000 to the base rate)" in shown
    assert "shadow 2026-01-05  log loss 0.680000 on 1,500 rows (-0.010000 to the base" in shown
    done = tickstream("models", "shadow", two, values=named)
    assert done.stdout == f"gbdt: {two} is the shadow since generation 2\n"
    done = tickstream("models", "shadow", one, values=named)
    assert f"{one} is the active version" in only_line(done, 2)
    done = tickstream("models", "shadow", "gbdt", "--none", "--json", values=named)
    assert json.loads(done.stdout) == {
        "model": "gbdt", "shadow": None, "former": two, "generation": 3, "changed": True,
    }  # fmt: skip
    done = tickstream("models", "shadow", "gbdt", "--none", values=named)
    assert done.stdout == "gbdt: none is the shadow since generation 3\n"
    done = tickstream("models", "shadow", two, "--bar", "ticks:9", values=named)
    assert f"{two} was trained on another feature set" in only_line(done, 1)
    assert await pool.fetchval("SELECT shadow FROM models") is None


async def test_versions_are_selected_by_regime(pool: Pool, named: dict[str, str]) -> None:
    """Stated, listed, shown, and stated no more."""
    one, two = await registered(pool, 1, 2)
    regimes = ("--regime", "extreme", "--regime", "high")
    done = tickstream("models", "select", two, *regimes, values=named)
    assert "gbdt: none is active" in only_line(done, 2)
    assert tickstream("models", "promote", one, values=named).returncode == 0
    done = tickstream("models", "select", two, *regimes, "--reason", "storm", values=named)
    assert done.stdout == f"gbdt: high by {two}, extreme by {two}\n", done.stderr
    done = tickstream("models", "select", two, *regimes, "--json", values=named)
    assert json.loads(done.stdout) == {
        "model": "gbdt", "selected": {"high": two, "extreme": two}, "generation": 2,
        "changed": False,
    }  # fmt: skip
    listed = tickstream("models", "list", "gbdt", values=named).stdout.splitlines()
    assert [line.endswith("  speaks in high, extreme") for line in listed] == [False, True]
    assert (
        f"high by {two}, extreme by {two} storm"
        in tickstream("models", "show", one, values=named).stdout
    )
    done = tickstream("models", "select", "gbdt", "--none", values=named)
    assert done.stdout == "gbdt: all by the active version\n"
    done = tickstream("models", "select", "gbdt", "--none", "--regime", "low", values=named)
    assert done.stdout == "gbdt: all by the active version, as it was\n"
    assert "in which regimes?" in only_line(tickstream("models", "select", two, values=named), 2)
    done = tickstream("models", "select", two, "--regime", "mid", values=named)
    assert (done.returncode, "'mid' is not one of" in done.stderr) == (2, True)
    done = tickstream("models", "select", two, *regimes, "--bar", "ticks:9", values=named)
    assert f"{two} was trained on another feature set" in only_line(done, 1)


async def test_what_fails_is_one_line(pool: Pool, named: dict[str, str]) -> None:
    """Exit code 2 for what is not there, 1 for what is refused."""
    (one,) = await registered(pool, 1)
    done = tickstream("models", "promote", "gbdt-0", values=named)
    assert "there is no version 'gbdt-0'" in only_line(done, 2)
    done = tickstream("models", "show", "gbdt-0", values=named)
    assert "there is no version 'gbdt-0'" in only_line(done, 2)
    done = tickstream("models", "rollback", "gbdt", values=named)
    assert "gbdt: none is active" in only_line(done, 2)
    done = tickstream("models", "rollback", "other", values=named)
    assert "there is no model 'other'" in only_line(done, 2)
    done = tickstream("models", "promote", one, "--bar", "ticks:9", values=named)
    assert f"{one} was trained on another feature set" in only_line(done, 1)
    await pool.execute("UPDATE artifacts SET body = 'x'")
    done = tickstream("models", "promote", one, values=named)
    assert "its bytes have another hash" in only_line(done, 1)
    assert await pool.fetchval("SELECT active FROM models") is None


def test_servers_that_are_away(tmp_path: Path, addresses: Addresses) -> None:
    """Named but silent, or neither named nor running."""
    away = {**naming(addresses), "TICKSTREAM_POSTGRES": "postgresql://me:geheim@127.0.0.1:1/x"}
    for command in (("list",), ("show", "v"), ("promote", "v"), ("rollback", "gbdt")):
        line = only_line(tickstream("models", *command, values=away), 1)
        assert "Postgres does not answer" in line
        assert "geheim" not in line
        line = only_line(tickstream("models", *command, "--data-dir", tmp_path), 2)
        assert "no postgres: set TICKSTREAM_POSTGRES" in line


TRAIN = ("--trees", 20, "--leaves", 7, "--folds", 2, "--held-out", 0.3)


async def test_from_a_replay_to_an_active_version(
    pool: Pool, named: dict[str, str], tmp_path: Path
) -> None:
    """Trained, kept, registered; Postgres away is one line and the next run goes on from there."""
    run, _ = replayed(tmp_path, 8000, 1)
    live = [part for text in SETTINGS for part in ("--set", text)]
    command = ("train", "gbdt", run, *TRAIN, "--feature", "queue_imbalance", "--promote", *live)
    away = {**named, "TICKSTREAM_POSTGRES": "postgresql://me:geheim@127.0.0.1:1/x"}
    done = tickstream(*command, "--json", values=away)
    line = only_line(done, 1, "growing trees")
    assert "Postgres does not answer" in line
    assert f"the same command goes on from {run}/gbdt.json" in line
    kept = (run / "gbdt.json").read_bytes()
    done = tickstream(*command, values=named)
    assert done.returncode == 0, done.stderr
    version = json.loads(kept)["version"]
    first, second, third = done.stdout.splitlines()
    assert f"gbdt.json: found {version}, " in first
    assert second.startswith("better than the base rate: log loss ")
    assert third == f"gbdt: {version} is active"
    assert [row["is_active"] for row in await registry.versions(pool)] == [True]
    shown = tickstream("models", "show", version, values=named).stdout
    assert "permutation  *              1 queue_imbalance" in shown
    done = tickstream(*command, "--seed", 5, "--json", values=named)
    told = json.loads(done.stdout)
    assert (told["champion"], told["promoted"]) == (version, False)
    done = tickstream("models", "compare", version, told["version"], run, values=named)
    assert done.stdout.startswith(f"{version} is "), done.stderr
    assert f"better than {told['version']}: log loss " in done.stdout
    done = tickstream("models", "compare", version, "gbdt-0", run, values=named)
    assert "there is no version" in only_line(done, 2)
    out = tmp_path / "only.json"
    done = tickstream("train", "gbdt", run, *TRAIN, "--out", out, "--json")
    assert json.loads(done.stdout) == json.loads(out.read_bytes())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "is not the output of a replay"),
        (("{run}", "--feature", "nope"), "no column of numbers nope"),
        (("{run}", "--name", "Gbdt"), "--name 'Gbdt'"),
        (("{run}",), "are too few to judge by"),
    ],
)
def test_what_cannot_be_trained_on(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """Exit code 2, one line, and nothing is left behind."""
    run, _ = replayed(tmp_path, 200, 1)
    filled = [text.format(run=run) for text in arguments]
    assert words in only_line(tickstream("train", "gbdt", *filled, cwd=tmp_path), 2)
    assert not (run / "gbdt.json").exists()
