"""How long a leak check of a million ticks takes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.replay.leakcheck import check_file
from pipeline.settings import load_settings
from pipeline.sources.files import read_tables, typed
from tests.bench.live.telling import table, tell

TICKS = 1_000_000
GAP = 3600 * 10**9
CLOCKS = ("time:10s", "ticks:1")

pytestmark = pytest.mark.timeout(900)


def million(sample: Path, out: Path) -> Path:
    """The sample again and again, each time an hour after the end of the one before."""
    once = pa.concat_tables([typed(part)[0] for part in read_tables(sample)])
    ts = np.asarray(once.column("ts"))
    place = once.column_names.index("ts")
    parts = [
        once.set_column(place, "ts", pa.array(ts + k * (ts[-1] - ts[0] + GAP)))
        for k in range(-(-TICKS // len(ts)))
    ]
    pq.write_table(pa.concat_tables(parts).slice(0, TICKS), out)
    return out


def test_a_million_ticks(repository: Path, sample: Path, tmp_path: Path) -> None:
    """Prints the seconds; there is no leak in the built-in columns."""
    path = million(sample, tmp_path / "million.parquet")
    rows = []
    for clock in CLOCKS:
        report = check_file(path, load_settings((f"bars.clock={clock}",)).chain)
        assert not report.leaks, report.line()
        assert report.ticks == TICKS
        assert report.cuts >= 1000
        cells = (report.cuts, report.shocks, report.restarts, report.reruns)
        rows.append((clock, *(f"{cell:,}" for cell in cells), f"{report.seconds:.1f}"))
    header = ("leakcheck, 1,000,000 ticks", "cuts", "shocks", "restarts", "reruns", "seconds")
    tell(repository, "leakcheck", table(header, rows))
