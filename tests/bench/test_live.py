"""Sustained rates of one worker with all sinks, beside Quix Streams on the same broker.

Broker, Postgres, Valkey and worker share the machine. All messages are published before the worker
starts; the clock runs from the moment a tenth is stored until all is stored. No rate is asserted,
only that each tick is stored once.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench import peers
from tests.bench.live.feed import SYMBOLS, Framing
from tests.bench.live.knobs import knob
from tests.bench.live.machine import Machine, machine
from tests.bench.live.rate import Load, Sustained, fill, load_of, median, run
from tests.bench.live.telling import table, tell

PARTITIONS = 4
_QUIX_TICKS = 500_000
_SHORT = 20.0  # seconds below which a rate is not called sustained

pytestmark = pytest.mark.timeout(5400)


@dataclass(frozen=True, slots=True)
class Case:
    """A configuration and what it is to reach."""

    name: str
    framing: Framing
    clock: str
    target: int


SINGLE = Case("time:1s, one JSON tick a message", Framing(1), "time:1s", 25_000)
CASES = (
    Case("time:1s, JSON arrays of 100", Framing(100), "time:1s", 300_000),
    Case("time:1s, Arrow blocks of 1,000", Framing(1000, arrow=True), "time:1s", 600_000),
    Case("ticks:1, JSON arrays of 100", Framing(100), "ticks:1", 100_000),
    SINGLE,
)


def _quix(repository: Path, ground: Machine, load: Load, runs: int) -> float | str:
    """Ticks a second of Quix Streams over the single ticks of `prices`, or why there are none."""
    try:
        script = peers.scripts(repository) / "kafka_quix.py"
        python = peers.environment("quix", ["quixstreams", "numpy"])
    except pytest.skip.Exception as missing:
        return str(missing)
    count = str(min(load.ticks, _QUIX_TICKS))
    state = ground.home / "quix"
    found = [
        peers.measured(python, script, state, ground.kafka, "state", count, str(state / str(n)))
        for n in range(runs)
    ]
    return statistics.median(float(lines[0]["eps"]) for lines in found)


def _row(case: Case, runs: list[Sustained], quix: float | str) -> tuple[str, ...]:
    middle = median(runs)
    return (
        case.name,
        f"{middle.rate:,.0f}",
        f"{min(one.rate for one in runs):,.0f}..{max(one.rate for one in runs):,.0f}",
        f"{middle.seconds:.1f}{'' if middle.seconds >= _SHORT else ' (short)'}",
        f"{middle.worker_micros:.2f}",
        f"{middle.servers_micros:.2f}",
        f"{middle.cores:.2f}",
        f"{case.target:,}",
        f"{middle.rate / case.target:.2f}",
        f"{middle.rate / quix:.1f}" if isinstance(quix, float) else "-",
    )


def test_live_rates(repository: Path, tmp_path: Path) -> None:
    """Prints ticks a second and CPU a tick of four configurations, and the ratios to Quix."""
    runs = int(knob("RUNS"))
    found: dict[str, list[Sustained]] = {}
    quix: float | str = ""
    for number, case in enumerate(CASES):
        load = load_of(case.framing, case.clock, case.target, knob("SECONDS"))
        with machine(tmp_path / str(number), PARTITIONS) as ground:
            fill(ground, load)
            found[case.name] = [
                run(ground, f"live{number}x{turn}", load)[0] for turn in range(runs)
            ]
            if case is SINGLE:
                quix = _quix(repository, ground, load, runs)
    told = f"{quix:,.0f} ticks/s" if isinstance(quix, float) else f"NOT MEASURED: {quix}"
    header = (
        *("configuration", "ticks/s", "min..max", "seconds", "worker us/tick"),
        *("servers us/tick", "cores busy", "target", "of target", "x Quix"),
    )
    lines = [
        f"one worker, {SYMBOLS} symbols, {PARTITIONS} partitions, all sinks, median of {runs}",
        *table(header, [_row(case, found[case.name], quix) for case in CASES]),
        f"Quix Streams, five features, no sink, one JSON tick a message: {told}",
    ]
    tell(repository, "live", lines)
