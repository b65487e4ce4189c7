"""From the publisher's send to the row on its topic and on Redis pub/sub, at 10,000 ticks/s.

A bar a tick, 100 symbols; a message is a JSON array of ten ticks of ten symbols.
The worker subscribes to `prices` only, so the idle topic is made of idle partitions: half of those
of `prices`, or all but one, which then has all symbols. Publisher and readers are one process of
their own.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.clock import monotonic
from tests.acceptance.commands import environment, wait_until
from tests.bench.live.knobs import knob
from tests.bench.live.machine import Crew, Machine, busy_seconds, crew, machine
from tests.bench.live.telling import table, tell

PARTITIONS = 4
_WARMUP = 5.0
_AFTER_SILENCE = 2.0
_START = 60.0
_TARGETS = {"topic": (6.0, 20.0), "pub/sub": (None, 25.0)}

pytestmark = pytest.mark.timeout(900)


def _pulse(repository: Path, ground: Machine, *arguments: object) -> dict[str, Any]:
    addresses = ground.fleet.addresses
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench.live.pulse", addresses.kafka, addresses.redis),
            *("--warmup", str(_WARMUP), "--ticks", str(int(knob("LATENCY_TICKS")))),
            *map(str, arguments),
        ],
        cwd=repository,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _measured(repository: Path, ground: Machine, found: Crew, *arguments: object) -> dict[str, Any]:
    """What a pulse found, and how many cores who used meanwhile."""
    begin = (monotonic(), found.cpu(), ground.cpu(), busy_seconds())
    figures = _pulse(repository, ground, *arguments)
    end = (monotonic(), found.cpu(), ground.cpu(), busy_seconds())
    seconds, *spent = (late - early for early, late in zip(begin, end, strict=True))
    cores = [one / seconds for one in spent]
    return figures | dict(zip(("worker", "servers", "machine"), cores, strict=True))


def _settle(repository: Path, ground: Machine, found: Crew) -> None:
    """The worker has started and knows every partition."""
    wait_until(
        lambda: "worker_started" in found.workers[0].log.read_text(), _START, "the worker's start"
    )
    _pulse(repository, ground, "--partitions", "0,1,2,3", "--seconds", 1)


@contextmanager
def _echoing(repository: Path, ground: Machine) -> Iterator[None]:
    """Nothing but a consumer and a producer between the topics."""
    ticks = str(int(knob("LATENCY_TICKS")))
    kafka = ground.fleet.addresses.kafka
    command = [sys.executable, "-m", "tests.bench.live.echo", kafka, "--ticks", ticks]
    with subprocess.Popen(
        command, cwd=repository, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.terminate()


def _rows(case: str, found: dict[str, Any]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for route, figures in found["routes"].items():
        if not figures["rows"]:
            lines.append((case, route, "0", "-", "-", "-", "-"))
            continue
        middle, tail = _TARGETS[route.split()[0]]
        lines.append(
            (
                case,
                route,
                f"{figures['rows']:,}",
                *(f"{figures[name]:.1f}" for name in ("p50", "p99", "max")),
                f"{'-' if middle is None else f'{middle:g}'} / {tail:g}",
            )
        )
    return lines


def test_latency(repository: Path, tmp_path: Path) -> None:
    """Prints p50 and p99 of three cases and four ways; every tick must reach its topic."""
    every, half, one = "0,1,2,3", "0,1", "0"
    seconds, silence = knob("LATENCY_SECONDS"), knob("SILENCE")
    cases = {
        "steady": ("--partitions", every, "--seconds", seconds),
        f"first {_AFTER_SILENCE:g} s after {silence:g} s of silence": (
            *("--partitions", every, "--seconds", _AFTER_SILENCE),
            *("--silence", silence),
        ),
        "half of the partitions idle": ("--partitions", half, "--seconds", seconds),
        "all of them but one idle": ("--partitions", one, "--seconds", seconds),
        f"one busy, first {_AFTER_SILENCE:g} s after {silence:g} s of silence": (
            *("--partitions", one, "--seconds", _AFTER_SILENCE),
            *("--silence", silence),
        ),
    }
    with machine(tmp_path / "echo", PARTITIONS) as ground, _echoing(repository, ground):
        echo = _pulse(repository, ground, *cases["steady"])
    with machine(tmp_path, PARTITIONS) as ground, crew(ground, "latency", "ticks:1") as started:
        _settle(repository, ground, started)
        found = {
            case: _measured(repository, ground, started, *arguments)
            for case, arguments in cases.items()
        }
        assert started.workers[0].stop() == 0
    rows = [row for case, figures in found.items() for row in _rows(case, figures)]
    floor, ours = (one["routes"]["topic predictions"] for one in (echo, found["steady"]))
    header = ("case", "way", "rows", "p50 ms", "p99 ms", "max ms", "wanted p50 / p99")
    lines = [
        f"10,000 ticks/s, 100 symbols, ticks:1, {knob('LATENCY_TICKS'):.0f} ticks a message",
        *table(header, rows),
        (
            f"the way itself, steady (an echo by aiokafka; nothing is computed, stored or cached):"
            f" p50 {floor['p50']:.1f} p99 {floor['p99']:.1f} ms; ours are"
            f" {ours['p50'] / floor['p50']:.1f} and {ours['p99'] / floor['p99']:.1f} times that"
        ),
        *(
            f"cores busy, {case}: load and readers {one['cores']:.2f} while sending; over all "
            f"worker {one['worker']:.2f} servers {one['servers']:.2f} machine {one['machine']:.2f}"
            for case, one in found.items()
        ),
    ]
    tell(repository, "latency", lines)
    for case, figures in found.items():
        assert figures["routes"]["topic predictions"]["rows"] == figures["ticks"], case
