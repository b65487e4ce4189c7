"""A user's mistake or a missing server: one line that says what to do, the right exit code."""

import gzip
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from pipeline.servers import Addresses, Fleet
from schemas.blocks import COLUMNS, STAGES
from tests.acceptance import commands
from tests.acceptance.commands import naming, only_line
from tests.acceptance.forked import tickstream

NOWHERE = {
    "TICKSTREAM_KAFKA": "127.0.0.1:1",
    "TICKSTREAM_POSTGRES": "postgresql://me:geheim@127.0.0.1:1/x",
    "TICKSTREAM_REDIS": "redis://:geheim@127.0.0.1:1/0",
}
ANNOUNCED = ("making the database cluster", "fetching Apache Kafka")
HEADER = b"symbol,ts,price\n"
FILES = {
    "garbage.csv": bytes(range(128, 256)) * 20 + b"\x1b[31m\n\0\n" + bytes(range(256)) * 10,
    "no_price.csv": b"symbol,ts,size\nES,1378072800000000000,1\n",
    "no_symbol.csv.gz": gzip.compress(b"ts,price\n1378072800000000000,1640.25\n"),
    "ragged.csv": HEADER + b"ES,1378072800000000000\n",
    "not_gzip.csv.gz": HEADER,
    "cut.csv.gz": gzip.compress(HEADER + b"ES,1378072800000000000,1640.25\n" * 500)[:-30],
    "not_parquet.parquet": HEADER,
    "not_arrow.arrow": HEADER,
    "suffix.txt": HEADER,
    "none": HEADER,
}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the malformed files, an empty one and one of a header alone."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_bytes(HEADER)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_malformed_file_is_no_input(place: Path, fleet: Fleet, name: str) -> None:
    """Neither `publish` nor `replay` takes it, both name it, nothing is left behind."""
    published = tickstream("publish", place / name, values=naming(fleet.addresses))
    assert str(place / name) in only_line(published, 2)
    replayed = tickstream("replay", place / name, "--out", place / "out")
    assert str(place / name) in only_line(replayed, 2)
    assert not [path for path in place.iterdir() if "out" in path.name]


def test_a_missing_file_is_no_input(place: Path) -> None:
    """It is named before any server is asked for, also behind a good one."""
    for command in (("publish",), ("publish", place / "header.csv"), ("replay", "--out", "out")):
        line = only_line(tickstream(*command, place / "missing.csv", cwd=place), 2)
        assert f"{place / 'missing.csv'}: no such file" in line


@pytest.mark.parametrize("name", ["empty.csv", "header.csv"])
def test_an_empty_file_is_an_empty_answer(place: Path, fleet: Fleet, name: str) -> None:
    """As every reader expects: outputs with columns and no rows, exit code 0; nothing published."""
    done = tickstream("replay", place / name, "--out", place / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    manifest = json.loads((place / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == manifest
    assert set(manifest["rows"].values()) == {0}
    for stage in STAGES:
        table = pq.read_table(place / "out" / f"{stage}.parquet")
        assert table.num_rows == 0
        assert table.column_names == [column.name for column in COLUMNS[stage]]
    published = tickstream("publish", place / name, values=naming(fleet.addresses))
    assert published.returncode == 0, published.stderr
    assert "published 0 ticks" in published.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("replay", "header.csv", "--out", "o", "--set", "nope=1"), "nope: there is no such"),
        (("replay", "header.csv", "--out", "o", "--set", "guard.nope=1"), "guard.nope: there is"),
        (("replay", "header.csv", "--out", "o", "--set", "guard.mode=mild"), "'full' or 'plain'"),
        (("replay", "header.csv", "--out", "o", "--set", "replay.block=0"), "replay.block"),
        (("replay", "header.csv", "--out", "o", "--set", "guard"), "--set takes KEY=VALUE"),
        (("replay", "header.csv", "--out", "o", "--bar", "daily"), "--bar: clock 'daily'"),
        (("replay", "header.csv", "--out", "o", "--bar", "time:0s"), "--bar: clock 'time:0s'"),
        (("replay", "header.csv", "--out", "o", "--from", "1600000000"), "for kafka:prices"),
        (("replay", "kafka:prices", "--out", "o", "--from", "yesterday"), "--from 'yesterday'"),
        (("replay", "kafka:prices", "--out", "o", "--to", "2026-01-01T00:00:00"), "with zone"),
        (("replay", "kafka:other", "--out", "o"), "only kafka:prices"),
        (("replay", "header.csv", "--out", "."), "exists and is not the output of a replay"),
        (("replay", "header.csv", "--out", "/proc/x/y"), "/proc/x/y: cannot be written"),
        (("publish", "header.csv", "--speed", "fast"), "--speed takes a positive number or max"),
        (("publish", "header.csv", "--speed", "0"), "--speed takes a positive number or max"),
        (("publish", "header.csv", "--speed", "nan"), "--speed takes a positive number or max"),
        (("worker", "--bar", "daily"), "--bar: clock 'daily'"),
        (("worker", "--set", "nope=1"), "nope: there is no such"),
        (("api", "--set", "nope=1"), "nope: there is no such"),
        (("up", "--workers", "9"), "topics.partitions"),
        (("up", "--data-dir", "/proc/x"), "/proc/x cannot be used"),
        (("demo", "--data-dir", "/proc/x", "--set", "api.port=50999"), "/proc/x cannot be used"),
        (("demo", "--set", "api.port=0"), "0 is not a port"),
        (("parity", "--data-dir", "missing"), "missing: no such data directory"),
    ],
)
def test_a_wrong_argument_is_one_line(
    place: Path, fleet: Fleet, command: tuple[str, ...], words: str
) -> None:
    """Exit code 2, and the line says what is wrong with which argument."""
    named = naming(fleet.addresses) if command[0] in {"publish", "replay"} else {}
    assert words in only_line(tickstream(*command, values=named, cwd=place), 2)


@pytest.mark.parametrize(
    "command",
    [(), ("publish",), ("replay", "x.csv"), ("topics", "--nope"), ("nope",), ("schema", "trades")],
)
def test_usage_errors_are_clicks_own(command: tuple[str, ...]) -> None:
    """A command that cannot be parsed: usage and one error, exit code 2."""
    done = tickstream(*command)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: tickstream")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("worker",), ("api",), ("topics",), ("migrate",), ("parity",)])
def test_no_server_at_all_names_the_ways_out(place: Path, command: tuple[str, ...]) -> None:
    """Nothing runs and nothing is named: the variable is, exit code 2."""
    values = {"XDG_DATA_HOME": str(place)}
    assert "TICKSTREAM_" in only_line(commands.tickstream(*command, values=values), 2)


@pytest.mark.parametrize(
    ("command", "server"),
    [
        (("topics",), "Kafka"),
        (("publish", "header.csv"), "Kafka"),
        (("replay", "kafka:prices", "--out", "o"), "Kafka"),
        (("migrate",), "Postgres"),
        (("parity",), "Postgres"),
        (("worker",), "Postgres"),
    ],
)
def test_an_unreachable_server_is_named(place: Path, command: tuple[str, ...], server: str) -> None:
    """One line with the server, no password; exit code 1, which of parity means a difference."""
    code = 3 if command == ("parity",) else 1
    line = only_line(tickstream(*command, values=NOWHERE, cwd=place), code)
    assert server in line
    assert "geheim" not in line


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("parity",), 3),
        (("parity", "--from", "2026-01-01T00:00:00Z"), 3),
        (("replay", "postgres:ticks", "--out", "o"), 1),
    ],
)
def test_a_database_without_tables_names_the_migration(
    addresses: Addresses, bare: str, place: Path, command: tuple[str, ...], code: int
) -> None:
    """One that was never migrated: one line with the command that does it, nothing left behind."""
    values = naming(replace(addresses, postgres=bare))
    done = tickstream(*command, values=values, cwd=place)
    assert only_line(done, code).endswith("does not exist: run `tickstream migrate`")
    assert not [path for path in place.iterdir() if path.name in {"o", ".o.partial"}]


@pytest.mark.parametrize("name", list(NOWHERE))
def test_up_names_the_variable_of_an_unreachable_server(
    place: Path, fleet: Fleet, name: str
) -> None:
    """`up` and `demo` with one of the three addresses dead say which variable holds it."""
    values = {**naming(fleet.addresses), name: NOWHERE[name]}
    for command in (("up", "--data-dir", place / "data"), ("demo", "--exit")):
        line = only_line(tickstream(*command, values=values), 1)
        assert name in line
        assert "geheim" not in line


def test_doctor_has_a_line_for_each_server() -> None:
    """Three lines on what does not answer, without passwords, and exit code 1."""
    done = commands.tickstream("doctor", values=NOWHERE)
    only_line(done, 1)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["BAD", name] for name in ("kafka", "postgres", "redis")
    ]
    assert "geheim" not in done.stdout


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


def test_a_taken_port_is_named(place: Path, taken: int) -> None:
    """`up` and `demo` that were asked for it start nothing."""
    for command in (("up",), ("demo", "--exit")):
        done = tickstream(*command, "--data-dir", place / "data", "--set", f"api.port={taken}")
        assert f"port {taken} for the API is taken" in only_line(done, 1)
    assert not (place / "data" / "kafka").exists()


def test_a_data_directory_in_use_is_named(place: Path, fleet: Fleet) -> None:
    """A second owner is refused: one line with the directory and the process that has it."""
    record = next(iter(fleet.logs().values()))
    directory = record.parent.parent
    for command in ("up", "demo"):
        line = only_line(tickstream(command, "--data-dir", directory, cwd=place), 1)
        assert f"data directory {directory} is in use by process {os.getpid()}" in line


def test_the_first_start_without_a_network(place: Path) -> None:
    """No Kafka jars: one error that names TICKSTREAM_KAFKA; nothing is left running."""
    dead = "http://127.0.0.1:9"
    home = place / "home"
    home.mkdir()
    values = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".data"),
        **{name: dead for low in ("http_proxy", "https_proxy") for name in (low, low.upper())},
    }
    done = tickstream("demo", "--exit", "--data-dir", place / "data", values=values)
    lines = done.stderr.splitlines()
    assert done.returncode == 1, done.stderr
    assert lines[-1].startswith("error: the Kafka jars cannot be had"), done.stderr
    assert "TICKSTREAM_KAFKA" in lines[-1]
    assert all(line.startswith(ANNOUNCED) for line in lines[:-1]), done.stderr
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(place / "data") in " ".join(process.info["cmdline"] or [])
    ]
    assert not left
