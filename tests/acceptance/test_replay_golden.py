"""Replays of the real samples against values that pandas and TA-Lib computed, and byte for byte."""

import gzip
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.replay.engine import replay_file
from pipeline.settings import load_settings
from schemas.blocks import STAGES
from tests.acceptance.commands import tickstream

NAMES = {
    "log_ret_1": "bar_ret_1",
    "log_ret_20": "bar_ret_20",
    "ewma_vol_0.94": "bar_ewma_vol",
    "vol_z_20 (prior 20, ddof=1)": "volume_z_20",
}
WHOLE = 10**7
HEAD_ROWS = 4_000
"""Block 1 steps some thousand ticks a second, so it takes the first rows of each file."""
HEAD_BARS = 1_500
"""The same where each row is a bar and every stage works at each."""
LONG_HEAD = 5
"""So many times as much in a soak."""

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True, slots=True)
class Sample:
    """A file, its decision clock and the symbol that the golden values call the market."""

    name: str
    bar: str
    reference: str = ""

    def sets(self) -> list[str]:
        """The settings that QUANT 1.6 names for the comparison."""
        return ["guard.mode=plain", f"bars.clock={self.bar}"] + (
            [f"features.reference_symbol={self.reference}"] if self.reference else []
        )


ES = Sample("es_trades_20130901", "time:10s")
EQUITIES = Sample("us_equity_daily_1998_2021", "row", "SPY")
BETAS = ("beta_60", "corr_60")
# FB and QQQ too, but for their years without a row: longer than the join remembers.
BEFORE_THE_MARKET = ("AIG", "EEM", "GOOG", "GOOGL", "IBM", "IWM")
SAMPLES = (
    Sample("crypto_trades_20240808", "time:10s", "BTCUSDT"),
    Sample("crypto_quotes_20240808", "time:10s", "BTCUSDT"),
    Sample("fx_quotes_eurusd_201405", "time:60s"),
    ES,
    EQUITIES,
)
each_sample = pytest.mark.parametrize("one", SAMPLES, ids=lambda one: one.name)


def _replay(path: Path, out: Path, one: Sample, *more: str) -> dict[str, Any]:
    return replay_file(path, out, load_settings([*one.sets(), *more]))


@pytest.fixture(scope="module")
def whole(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sample], Path]:
    """Where the outputs of a whole file in one block lie; made when they are first asked for."""
    home = tmp_path_factory.mktemp("whole")

    @cache
    def replayed(one: Sample) -> Path:
        _replay(samples / f"{one.name}.csv.gz", home / one.name, one, f"replay.block={WHOLE}")
        return home / one.name

    return replayed


def _stat(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    """Number, first index, last and sum of the finite values, as the golden files have them."""
    ready = np.flatnonzero(np.isfinite(values))
    if not len(ready):
        return {"n": 0, "first": None, "last": None, "sum": 0.0}
    found = values[ready]
    return {
        "n": len(ready),
        "first": int(ready[0]),
        "last": float(found[-1]),
        "sum": math.fsum(found),
    }


def _agrees(got: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    """The tolerances of QUANT 7.1."""
    if (got["n"], got["first"]) != (want["n"], want["first"]):
        return False
    if want["last"] is None:
        return got["last"] is None
    last = math.isclose(got["last"], want["last"], rel_tol=1e-8, abs_tol=1e-12)
    return last and math.isclose(got["sum"], want["sum"], rel_tol=1e-8, abs_tol=1e-12 * want["n"])


def _wrong(features: pd.DataFrame, golden: Mapping[str, Any], skip: Collection[str]) -> list[str]:
    """Which features of which symbols are not what the golden file says."""
    wrong = []
    for symbol, want in golden["symbols"].items():
        mine = features[features["symbol"] == symbol]
        for title, expected in want["features"].items():
            name = NAMES.get(title, title.split(" to ")[0])
            got = _stat(mine[name].to_numpy(np.float64, na_value=np.nan))
            if name not in skip and not _agrees(got, expected):
                wrong.append(f"{symbol} {name}: {got} is not {expected}")
    return wrong


def _golden(oracles: Path, one: Sample) -> dict[str, Any]:
    text = (oracles / f"golden_{one.name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _frame(out: Path, stage: str) -> pd.DataFrame:
    found = pq.read_table(out / f"{stage}.parquet").to_pandas()
    assert isinstance(found, pd.DataFrame)
    return found


@each_sample
def test_every_bar_feature_is_golden(
    one: Sample, whole: Callable[[Sample], Path], oracles: Path
) -> None:
    """Count and first equal, last and sum within 1e-8, for every feature of every symbol of a file.

    Where rows are bars, what the market did at the same close is known to a symbol one row later
    if its rows stand before the market's: beta and correlation have a test of their own.
    """
    golden = _golden(oracles, one)
    out = whole(one)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["rows"]["ticks"] == golden["rows"]
    assert manifest["rejected"] == {}
    bars = _frame(out, "bars")
    assert set(bars["symbol"]) == set(golden["symbols"])
    for symbol, want in golden["symbols"].items():
        own = bars[bars["symbol"] == symbol]
        assert len(own) == want["bars"], symbol
        assert own["n"].sum() == want["sum_n"], symbol
        assert math.isclose(own["volume"].sum(), want["sum_v"], rel_tol=1e-12, abs_tol=1e-9)
    skip = BETAS if one.bar == "row" else ()
    assert not _wrong(_frame(out, "features"), golden, skip)


def test_beta_of_rows_is_golden_where_the_market_comes_first(
    samples: Path, oracles: Path, tmp_path: Path
) -> None:
    """With the market's row first among those of one close, all is known and all is golden."""
    one = EQUITIES
    table = pd.read_csv(samples / f"{one.name}.csv.gz", dtype=str)
    table["later"] = table["symbol"] != one.reference
    table = table.sort_values(["ts", "later"], kind="stable").drop(columns="later")
    table.to_csv(tmp_path / "sorted.csv", index=False)
    _replay(tmp_path / "sorted.csv", tmp_path / "out", one)
    assert not _wrong(_frame(tmp_path / "out", "features"), _golden(oracles, one), ())


def test_beta_of_rows_knows_only_what_has_arrived(
    whole: Callable[[Sample], Path], oracles: Path
) -> None:
    """In the order of the file, symbols before the market show the golden pairs one row later."""
    one = EQUITIES
    golden = _golden(oracles, one)["symbols"]
    features = _frame(whole(one), "features")
    for name, title in ((name, f"{name} to {one.reference}") for name in BETAS):
        for symbol in ("USO", "WM", *BEFORE_THE_MARKET):
            want = golden[symbol]["features"][title]
            if symbol in BEFORE_THE_MARKET:
                # All but the last one; what that is now, the golden file does not tell.
                want = {**want, "n": want["n"] - 1, "first": want["first"] + 1}
                want["sum"] -= want["last"]
            mine = features[features["symbol"] == symbol][name]
            got = _stat(mine.to_numpy(np.float64, na_value=np.nan))
            if symbol in BEFORE_THE_MARKET:
                want["last"] = got["last"]
            assert _agrees(got, want), f"{symbol} {name}: {got} is not {want}"


def _outputs(directory: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((directory / "manifest.json").read_text())["sha256"]
    assert set(found) >= set(STAGES)
    return found


def _head(path: Path, to: Path, rows: int) -> Path:
    with gzip.open(path, "rt", encoding="utf-8") as source:
        to.write_text("".join(line for _, line in zip(range(rows + 1), source, strict=False)))
    return to


@each_sample
def test_block_sizes_leave_no_trace(
    one: Sample, whole: Callable[[Sample], Path], samples: Path, tmp_path: Path
) -> None:
    """256 (for ES also 7) and the whole file at once write the same bytes for every stage."""
    at_once = whole(one)
    for size in (7, 256) if one is ES else (256,):
        out = tmp_path / str(size)
        _replay(samples / f"{one.name}.csv.gz", out, one, f"replay.block={size}")
        assert _outputs(out) == _outputs(at_once), size
        for stage in STAGES:
            ours, theirs = (where / f"{stage}.parquet" for where in (out, at_once))
            assert ours.read_bytes() == theirs.read_bytes(), (size, stage)


@each_sample
def test_tick_by_tick_leaves_no_trace(one: Sample, samples: Path, tmp_path: Path) -> None:
    """Blocks of 1 and of 7 ticks write the bytes of one block, on the first rows of each file."""
    _tick_by_tick(one, samples, tmp_path, HEAD_BARS if one.bar == "row" else HEAD_ROWS)


@pytest.mark.soak
@each_sample
def test_tick_by_tick_leaves_no_trace_for_long(one: Sample, samples: Path, tmp_path: Path) -> None:
    """The same on five times as many rows."""
    rows = HEAD_BARS if one.bar == "row" else HEAD_ROWS
    _tick_by_tick(one, samples, tmp_path, LONG_HEAD * rows)


def _tick_by_tick(one: Sample, samples: Path, tmp_path: Path, rows: int) -> None:
    path = _head(samples / f"{one.name}.csv.gz", tmp_path / "head.csv", rows)
    _replay(path, tmp_path / "whole", one, f"replay.block={WHOLE}")
    for size in (1, 7):
        manifest = _replay(path, tmp_path / str(size), one, f"replay.block={size}")
        assert manifest["rows"]["ticks"] == rows
        assert _outputs(tmp_path / str(size)) == _outputs(tmp_path / "whole"), size


def test_the_command_writes_the_same(samples: Path, tmp_path: Path) -> None:
    """`tickstream replay` as a user types it gives the bytes that the engine gave here."""
    one = ES
    path = samples / f"{one.name}.csv.gz"
    expected = _replay(path, tmp_path / "engine", one, "replay.block=256")
    command = ("replay", path, "--out", tmp_path / "out", "--bar", one.bar, "--json")
    done = tickstream(*command, "--set", "guard.mode=plain", "--set", "replay.block=4096")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sha256"] == expected["sha256"] == _outputs(tmp_path / "out")
    assert found["inputs"] == expected["inputs"]
    assert found["settings_hash"] == expected["settings_hash"]
    assert found["rows"]["bars"] == 7_520
