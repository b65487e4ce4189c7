"""The latest state over HTTP, beside Ariadne as installed and routes written by hand."""

import asyncio
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from pipeline.settings import child_environment
from tests.bench.live.knobs import knob
from tests.bench.live.telling import table, tell
from tests.bench.served import peers
from tests.bench.served.ground import Ground, ground
from tests.integration.api.conftest import make_rows

SYMBOLS: Final = [f"S{number}" for number in range(8)]
QUERY: Final = (
    f"query($s: [String!]!) {{ symbols(names: $s) {{ features {{ {' '.join(peers.COLUMNS)} }} }} }}"
)
OURS: Final = "tickstream"
CONNECTIONS: Final = (16, 1)
REQUESTS: Final = {16: 8000, 1: 1500}
COMMANDS: Final = ("cmdstat_mget", "cmdstat_get")

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Target:
    """A server that is asked."""

    port: int
    path: str
    query: str
    headers: str = ""


def measured(repository: Path, target: Target, connections: int) -> dict[str, Any]:
    """One run of the load: rate, p50 and p99 in ms, the last answer."""
    body = {"query": target.query, "variables": {"s": SYMBOLS}}
    amounts = (str(connections), str(REQUESTS[connections]))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench.served.load"),
            *(str(target.port), target.path, *amounts),
        ],
        cwd=repository,
        env=child_environment({"BENCH_HEADERS": target.headers, "PYTHONPATH": str(repository)}),
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reads(here: Ground) -> int:
    """Reads that Valkey was asked for."""
    with Redis.from_url(here.valkey.address) as client:
        stats: Any = client.info("commandstats")
    return sum(int(stats.get(name, {"calls": 0})["calls"]) for name in COMMANDS)


def test_latest_state(repository: Path, tmp_path: Path) -> None:
    """Prints requests a second and their time, 8 symbols x 8 fields, each server in turn."""
    rows = [{"features": make_rows("features", symbol, 1)} for symbol in SYMBOLS]
    found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    with ground(tmp_path) as here, ExitStack() as stack:
        asyncio.run(here.prepare(rows, SYMBOLS))
        with Redis.from_url(here.valkey.address) as client:
            for symbol in SYMBOLS:
                client.set(peers.key_of(symbol), json.dumps(peers.row_of(symbol)))
        _, port = stack.enter_context(here.api(repository))
        headers = f"Authorization: Bearer {here.key}\r\n"
        targets = {OURS: Target(port, "/graphql", QUERY, headers)}
        for kind in peers.KINDS:
            _, port = stack.enter_context(here.peer(repository, kind))
            targets[kind] = Target(port, "/", peers.QUERY)
        asked = 0
        for _ in range(int(knob("RUNS"))):
            for connections in CONNECTIONS:
                for name, target in targets.items():
                    before = reads(here)
                    found[name, connections].append(measured(repository, target, connections))
                    asked += reads(here) - before if name == OURS else 0
    for (name, _), answers in found.items():
        answer = answers[0]["answer"]["data"]
        cells = answer["symbols"] if name == OURS else answer["latest"]
        got = [one["features"] for one in cells] if name == OURS else cells
        assert [(row["symbol"], len(row)) for row in got] == [(symbol, 8) for symbol in SYMBOLS]
    _tell(repository, found, asked)


def _tell(repository: Path, found: dict[tuple[str, int], list[dict[str, Any]]], asked: int) -> None:
    middle = {
        key: {name: statistics.median(run[name] for run in runs) for name in ("rate", "p50", "p99")}
        for key, runs in found.items()
    }
    ours = middle[OURS, 16]["rate"]
    names = dict.fromkeys(name for name, _ in found)
    lines = [
        (
            name,
            f"{middle[name, 16]['rate']:,.0f}",
            f"{ours / middle[name, 16]['rate']:.2f}",
            f"{middle[name, 16]['p50']:.2f}",
            f"{middle[name, 16]['p99']:.2f}",
            f"{middle[name, 1]['p50']:.2f}",
            f"{middle[name, 1]['p99']:.2f}",
        )
        for name in names
    ]
    runs = len(next(iter(found.values())))
    header = ("server", "requests/s", "ours x", "p50 ms", "p99 ms", "alone p50", "alone p99")
    tell(
        repository,
        "api",
        [
            "8 symbols x 8 fields over HTTP, 16 connections and one alone; one process each",
            *table(header, lines),
            f"median of {runs}, in turn; the load's process shares the cores",
            f"ours with a key, and {asked} reads of the cache by it",
        ],
    )
