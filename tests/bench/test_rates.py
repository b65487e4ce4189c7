"""How fast the bundled sample is replayed, file to Parquet; test_live.py has the live rates."""

import statistics
from pathlib import Path

import pytest

from pipeline.clock import monotonic
from pipeline.replay.engine import replay_file
from pipeline.settings import load_settings
from tests.bench.live.telling import table, tell

TICKS = 120_000
RUNS = 5

pytestmark = pytest.mark.timeout(300)


def _replay_seconds(sample: Path, out: Path) -> list[float]:
    settings = load_settings()
    found = []
    for number in range(RUNS + 1):
        begin = monotonic()
        manifest = replay_file(sample, out / str(number), settings)
        found.append(monotonic() - begin)
        assert manifest["rows"]["ticks"] == TICKS
    return found[1:]  # the first one compiles


def test_replay_rate(repository: Path, sample: Path, tmp_path: Path) -> None:
    """Prints ticks a second of a warm replay through all stages."""
    found = _replay_seconds(sample, tmp_path / "out")
    seconds = statistics.median(found)
    row = (f"ES sample, {TICKS:,} ticks", f"{seconds:.3f}", f"{TICKS / seconds:,.0f}")
    spread = f"median of {RUNS}, {min(found):.3f} to {max(found):.3f} s"
    tell(
        repository,
        "replay",
        [*table(("replay, file to Parquet", "seconds", "ticks/s"), [row]), spread],
    )
