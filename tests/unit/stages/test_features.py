"""The stage features against values that others computed: pandas, TA-Lib, toys worked by hand."""

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pipeline.stages.base import Block
from pipeline.stages.features import FEATURES, Features, FeaturesSettings
from schemas.blocks import Array, Rows, empty
from schemas.arrivals import Arrivals

REPO = Path(__file__).resolve().parents[3]
SAMPLES = Path(os.environ.get("TICKSTREAM_SAMPLES", REPO / "../shared/data"))  # noqa: TID251 -- tests may be told where the samples are
GOLDENS = REPO / "../shared/oracles/expected"
GOLDEN_NAMES = {
    "log_ret_1": "bar_ret_1",
    "log_ret_20": "bar_ret_20",
    "ewma_vol_0.94": "bar_ewma_vol",
    "vol_z_20 (prior 20, ddof=1)": "volume_z_20",
}
FLOATS = ("price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low")
SECOND = 1_000_000_000


def arrivals(n: int) -> Arrivals:
    """Arrivals that this stage never looks at."""
    return Arrivals(0, {"ts": np.zeros(n, np.int64)}, [])


def make_ticks(table: pd.DataFrame) -> Rows:
    """Rows of ticks from a table with ts (ns), symbol, price and what else there is."""
    codes, symbols = pd.factorize(table["symbol"])
    rows = empty("ticks", len(table), list(symbols))
    rows["symbol"][:] = codes
    rows["ts"][:] = table["ts"]
    rows["offset"][:] = np.arange(len(table))
    rows["flag"][:] = table["flag"] if "flag" in table else 0
    for name in FLOATS:
        if name in table:
            rows[name][:] = table[name]
    if "side" in table:
        rows["side"][:] = table["side"].map({"buy": 0, "sell": 1}).fillna(-1)
    return rows


def make_bars(ticks: Rows, clock: int) -> tuple[Rows, Array, bool]:
    """Bars as the stage before would make them: clock in ns, 0 rows are bars, -1 ticks:1."""
    table = pd.DataFrame({k: ticks[k] for k in ("symbol", "ts", *FLOATS)})
    table["at"] = np.arange(len(table))
    table = table[ticks["flag"] == 0]
    table["notional"] = table["price"] * table["size"]
    if clock <= 0:
        bars = table.rename(columns={"price": "close", "size": "volume"})
        for name in ("open", "high", "low"):
            bars[name] = bars[name].fillna(bars["close"])
        bars["n"] = 1
        bars["end"] = bars["ts"]
        bars["trigger"] = bars["at"]
    else:
        table["k"] = table["ts"] // clock
        groups = table.groupby(["symbol", "k"])
        bars = groups.agg(
            open=("price", "first"),
            high=("price", "max"),
            low=("price", "min"),
            close=("price", "last"),
            n=("price", "size"),
            first=("at", "first"),
        )
        bars["volume"] = groups["size"].sum(min_count=1)
        bars["notional"] = groups["notional"].sum(min_count=1)
        bars = bars.reset_index()
        bars["end"] = (bars["k"] + 1) * clock
        # The trigger of a bar is the first tick of the next one.
        trigger = bars.groupby("symbol")["first"].shift(-1)
        bars["trigger"] = trigger.fillna(len(ticks)).astype(np.int64)
        bars = bars.sort_values(["trigger", "symbol"], kind="stable")
    rows = empty("bars", len(bars), ticks.symbols)
    for name in ("symbol", "open", "high", "low", "close", "volume", "notional", "n"):
        rows[name][:] = bars[name]
    rows["ts"][:] = bars["end"]
    rows["offset"][:] = bars["trigger"]
    return rows, bars["trigger"].to_numpy(np.int64), clock <= 0


def make_block(table: pd.DataFrame, clock: int) -> Block:
    """One block with the ticks of a table and their bars."""
    ticks = make_ticks(table)
    bars, at, after = make_bars(ticks, clock)
    return Block(arrivals(len(ticks)), {"ticks": ticks, "bars": bars}, (), at, after)


def cut(block: Block, start: int, stop: int, *, last: bool) -> Block:
    """The part of a block from tick start to tick stop, with the bars those ticks close."""
    mine = (block.at >= start) & ((block.at < stop) | last)
    ticks = block.rows["ticks"].take(np.arange(start, stop))
    rows = {"ticks": ticks, "bars": block.rows["bars"].take(mine)}
    return Block(arrivals(stop - start), rows, (), block.at[mine] - start, block.after)


def run(table: pd.DataFrame, clock: int, **options: Any) -> pd.DataFrame:
    """All features of a table, one row per bar."""
    width = max(clock, 0)
    stage = Features(FeaturesSettings(bar_ns=width, **options))
    rows = stage.step(make_block(table, clock)).rows["features"]
    frame = pd.DataFrame({name: rows[name] for name in ("ts", *FEATURES)})
    frame.insert(0, "symbol", [rows.symbols[code] for code in rows["symbol"]])
    return frame


def load(name: str) -> pd.DataFrame:
    """A sample as a table, or a skipped test."""
    path = SAMPLES / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"SAMPLE MISSING: {path} (set TICKSTREAM_SAMPLES)")
    table = pd.read_csv(path, low_memory=False)
    if not pd.api.types.is_numeric_dtype(table["ts"]):
        times = pd.to_datetime(table["ts"], utc=True, format="ISO8601")
        table["ts"] = times.dt.as_unit("ns").astype("int64")
    return table


def golden(name: str) -> dict[str, Any]:
    """What pandas and TA-Lib say about a sample, or a skipped test."""
    path = GOLDENS / f"golden_{name}.json"
    if not path.exists():
        pytest.skip(f"GOLDEN MISSING: {path}")
    found: dict[str, Any] = json.loads(path.read_text())["symbols"]
    return found


def differences(frame: pd.DataFrame, want: dict[str, Any]) -> list[str]:
    """What of QUANT 7.1 does not hold for one symbol: n, first, last, sum of each feature."""
    wrong = []
    for golden_name, expected in want["features"].items():
        name = GOLDEN_NAMES.get(golden_name, golden_name.split(" to ")[0])
        values = frame[name].to_numpy()
        ready = np.flatnonzero(np.isfinite(values))
        got = {
            "n": len(ready),
            "first": int(ready[0]) if len(ready) else None,
            "last": float(values[ready[-1]]) if len(ready) else None,
            "sum": float(np.sum(values[ready])),
        }
        if (got["n"], got["first"]) != (expected["n"], expected["first"]):
            wrong.append(f"{name}: {got} is not {expected}")
            continue
        if not got["n"]:
            continue
        close = math.isclose(got["last"] or 0, expected["last"], rel_tol=1e-8, abs_tol=1e-12)
        near = math.isclose(
            got["sum"] or 0, expected["sum"], rel_tol=1e-8, abs_tol=1e-12 * expected["n"]
        )
        if not (close and near):
            wrong.append(f"{name}: {got} is not {expected}")
    return wrong
