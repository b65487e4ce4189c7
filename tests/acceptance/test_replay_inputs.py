"""`tickstream replay` of a topic, of what is kept of it and of stored ticks, also when killed."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from platformdirs import user_cache_path

from pipeline.servers import Addresses, start_servers
from schemas.blocks import STAGES
from tests.acceptance.commands import (
    TICKSTREAM,
    environment,
    naming,
    only_line,
    wait_until,
)
from tests.acceptance.forked import tickstream
from tests.fixtures.ticks import walk

TICKS = 3000

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """Servers of this module's own, with ticks of three symbols on `prices`."""
    home = tmp_path_factory.mktemp("inputs")
    table = walk(TICKS)
    table.to_csv(home / "t.csv", index=False)
    with start_servers(home / "data") as fleet:
        values = naming(fleet.addresses)
        done = tickstream("publish", home / "t.csv", "--frame", 10, values=values)
        assert done.returncode == 0, done.stderr
        assert tickstream("migrate", values=values).returncode == 0
        yield fleet.addresses


def cache_home(folder: Path) -> str:
    """A cache of this test's own but for the compiled kernels."""
    (folder / "cache" / "tickstream").mkdir(parents=True)
    compiled = folder / "cache" / "tickstream" / "numba"
    compiled.symlink_to(user_cache_path("tickstream") / "numba", target_is_directory=True)
    return str(folder / "cache")


def replay(source: object, out: Path, *more: object, values: Mapping[str, str]) -> dict[str, Any]:
    """The manifest of a replay as a user types it."""
    done = tickstream("replay", source, "--out", out, *more, "--json", values=values)
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)
    assert manifest == json.loads((out / "manifest.json").read_text())
    return manifest


def test_a_second_replay_does_without_the_broker(servers: Addresses, tmp_path: Path) -> None:
    """--cache keeps a stretch under XDG_CACHE_HOME; then no broker is named, the bits stay."""
    home = {"XDG_CACHE_HOME": cache_home(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    values = {**naming(servers), **home}
    stretch = ("--to", "2030-01-01T00:00:00Z", "--cache")
    first = replay("kafka:prices", tmp_path / "a", *stretch, values=values)
    assert first["rows"]["ticks"] == TICKS
    assert first == replay("kafka:prices", tmp_path / "b", *stretch, values=home)
    kept = list((tmp_path / "cache" / "tickstream" / "topics").rglob("*.parquet"))
    messages = sum(one["messages"] for one in first["inputs"])
    assert sum(pq.read_metadata(path).num_rows for path in kept) == messages >= TICKS // 10
    other = tickstream("replay", "kafka:prices", "--out", "o", "--cache", values=home, cwd=tmp_path)
    assert "not kept here either" in only_line(other, 1)


def test_offsets_and_times_bound_the_topic(servers: Addresses, tmp_path: Path) -> None:
    """--offsets of several partitions; a time before and after all messages."""
    values = naming(servers)
    whole = replay("kafka:prices", tmp_path / "w", "--from", "2020-01-01T00:00:00Z", values=values)
    spans = {one["partition"]: (one["from"], one["to"]) for one in whole["inputs"]}
    assert whole["rows"]["ticks"] == TICKS
    named = [n for n, (low, high) in spans.items() if high > low]
    told = [part for n in named for part in ("--offsets", f"{n}:{spans[n][0]}-{spans[n][1]}")]
    same = replay("kafka:prices", tmp_path / "o", *told, values=values)
    assert same["sha256"] == whole["sha256"]
    one = replay("kafka:prices", tmp_path / "1", "--offsets", f"{named[0]}:2-5", values=values)
    assert one["rows"]["ticks"] == 30
    none = replay("kafka:prices", tmp_path / "n", "--from", "2030-01-01T00:00:00Z", values=values)
    assert set(none["rows"].values()) == {0}


def test_stored_ticks_are_an_input(servers: Addresses, tmp_path: Path) -> None:
    """postgres:ticks of a database without any is an empty answer."""
    empty = replay("postgres:ticks", tmp_path / "out", values=naming(servers))
    assert set(empty["rows"].values()) == {0}
    assert empty["inputs"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("kafka:prices", "--offsets", "0:5"), "is no PARTITION:FROM-TO"),
        (("kafka:prices", "--offsets", "x:1-5"), "is no PARTITION:FROM-TO"),
        (("kafka:prices", "--offsets", "0:1-5", "--offsets", "0:7-"), "partition 0 twice"),
        (("kafka:prices", "--offsets", "0:1-5", "--from", "1700000000"), "give one of them"),
        (("kafka:prices", "--offsets", "99:0-1"), "there is no partition 99"),
        (("kafka:prices", "--offsets", "0:0-99999999"), "partition 0 holds the offsets from 0"),
        (("kafka:prices", "--from", "1700000001", "--to", "1700000000"), "--from is later"),
        (("postgres:ticks", "--offsets", "0:1-5"), "for kafka:prices, not for postgres:ticks"),
        (("postgres:ticks", "--cache"), "for kafka:prices, not for postgres:ticks"),
        (("t.csv", "--cache"), "for kafka:prices, not for t.csv"),
        (("t.csv", "--to", "1700000000"), "not for a file"),
        (("postgres:bars",), "only kafka:prices and postgres:ticks"),
    ],
)
def test_a_wrong_stretch_is_one_line(
    servers: Addresses, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 2, what is wrong, and nothing left behind."""
    done = tickstream("replay", *arguments, "--out", "o", values=naming(servers), cwd=tmp_path)
    assert words in only_line(done, 2)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    """Unnamed: the variable, exit code 2; unreachable: the server, exit code 1, no password."""
    home = {"XDG_DATA_HOME": str(tmp_path)}
    for source, name in (("kafka:prices", "KAFKA"), ("postgres:ticks", "POSTGRES")):
        done = tickstream("replay", source, "--out", tmp_path / "o", values=home)
        assert f"TICKSTREAM_{name}" in only_line(done, 2)
    away = {"TICKSTREAM_POSTGRES": "postgresql://me:geheim@127.0.0.1:1/x"}
    line = only_line(tickstream("replay", "postgres:ticks", "--out", "o", values=away), 1)
    assert "Postgres" in line
    assert "geheim" not in line


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes some seconds with small blocks."""
    path = tmp_path_factory.mktemp("long") / "long.csv"
    walk(60_000).to_csv(path, index=False)
    return path


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children can be interrupted also where this run itself ignores Ctrl-C, in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


SLOW = ("--bar", "ticks:1", "--set", "replay.block=30")


def started(long: Path, out: Path) -> "subprocess.Popen[bytes]":
    """A replay that is at work on its files."""
    process = subprocess.Popen(
        [TICKSTREAM, "replay", str(long), "--out", str(out), *SLOW],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    partial = out.parent / f".{out.name}.partial"
    wait_until(lambda: partial.is_dir() or process.poll() is not None, 60, "a replay at work")
    time.sleep(0.3)
    assert process.poll() is None, "it ended before it could be interrupted"
    return process


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_leaves_nothing_half_written(
    long: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    """Nothing under a new name, all of the older output under an old one; the next one is whole."""
    values: dict[str, str] = {}
    old = replay(long, tmp_path / "old", "--bar", "time:1h", values=values)
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    for name in ("new", "old"):
        process = started(long, tmp_path / name)
        process.send_signal(sent)
        _, told = process.communicate(timeout=30)
        assert process.returncode == (130 if sent is signal.SIGINT else -sent)
        assert b"Traceback" not in told
    assert not (tmp_path / "new").exists()
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
    assert json.loads(before["manifest.json"]) == old
    if sent is signal.SIGINT:
        assert [path.name for path in tmp_path.iterdir()] == ["old"]
    again = replay(long, tmp_path / "old", "--bar", "time:2h", values=values)
    assert again["rows"]["bars"] < old["rows"]["bars"]
    assert {path.stem for path in (tmp_path / "old").glob("*.parquet")} >= set(STAGES)
    assert not (tmp_path / ".old.partial").exists()


def test_a_full_disk_is_one_line(long: Path, tmp_path: Path) -> None:
    """No space for the output: the file is named, exit code 1, nothing is left behind."""
    limited = 'ulimit -f 200; exec "$0" "$@"'
    command = (TICKSTREAM, "replay", str(long), "--out", str(tmp_path / "o"), "--bar", "ticks:1")
    done = subprocess.run(
        ["/bin/bash", "-c", limited, *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ".parquet: cannot be written: " in only_line(done, 1, f"replaying {long}")
    assert not list(tmp_path.iterdir())


def test_a_killed_replay_keeps_no_half_stretch(servers: Addresses, tmp_path: Path) -> None:
    """Killed while it keeps a topic: no file under a final name; the next run sweeps."""
    values = {**naming(servers), "XDG_CACHE_HOME": cache_home(tmp_path)}
    command = [TICKSTREAM, "replay", "kafka:prices", "--out", str(tmp_path / "o"), "--cache"]
    process = subprocess.Popen(
        [*command, "--set", "replay.block=1"], env=environment(values), stderr=subprocess.DEVNULL
    )
    home = tmp_path / "cache" / "tickstream" / "topics"
    wait_until(lambda: bool(list(home.rglob(".*.partial"))), 60, "messages being kept")
    process.kill()
    process.wait()
    assert not list(home.rglob("*.parquet"))
    assert list(home.rglob(".*.partial"))
    assert not (tmp_path / "o").exists()
    whole = replay("kafka:prices", tmp_path / "o", "--cache", values=values)
    assert whole["rows"]["ticks"] == TICKS
    assert list(home.rglob("*.parquet"))
    assert not list(home.rglob(".*.partial"))


def test_a_terminal_shows_the_time_left(long: Path, tmp_path: Path) -> None:
    """Count, rate, share and seconds left, on one moving line that is wiped in the end."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [TICKSTREAM, "replay", str(long), "--out", str(tmp_path / "o"), *SLOW],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(screen, 65_536)
        except OSError:  # how a terminal tells that nobody writes to it any more
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    os.close(screen)
    found = re.findall(rb"\r[^\r]*: ([0-9,]+) \(([0-9,]+)/s\), (\d+)%, (\d+) s left\x1b\[K", shown)
    shares = [int(share) for _, _, share, _ in found]
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert shown.endswith(b"\r\x1b[K")
