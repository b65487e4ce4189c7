"""Kernels beside csp and a pure Python loop on the peers' workload of 1,000,000 ticks."""

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.stages.base import Block
from pipeline.stages.chain import Chain, ChainSettings
from schemas.arrivals import FACTORS, FLOATS, NO_ID, Arrivals, arrivals
from schemas.blocks import Array
from tests.bench import five, peers

RUNS, BLOCK, SYMBOLS = 5, 4096, 8
TICKS_1 = ChainSettings.model_validate({"bars": {"clock": "ticks:1"}})


def workload(path: Path) -> tuple[Array, Array, Array]:
    """Symbols, times and prices by the generator of the peers' workload."""
    rng = np.random.default_rng(7)
    n = 1_000_000
    symbol = rng.integers(0, SYMBOLS, n).astype(np.int64)
    ts = 1_700_000_000_000_000_000 + np.cumsum(rng.integers(1_000, 200_000, n)).astype(np.int64)
    ret = rng.normal(0, 2e-4, n)
    price = np.empty(n)
    for s in range(SYMBOLS):
        mine = symbol == s
        price[mine] = np.round((50 + 25 * s) * np.exp(np.cumsum(ret[mine])), 4)
    np.savez(path, sym=symbol, ts=ts, px=price)
    return symbol, ts, price


def blocks_of(symbol: Array, ts: Array, price: Array, symbols: int) -> list[Arrivals]:
    """The ticks as a decoder would hand them to the chain, in blocks."""
    n = len(symbol)
    columns: dict[str, Array] = {name: np.full(n, np.nan) for name in (*FLOATS, *FACTORS)}
    columns["price"] = price.copy()
    columns["symbol"] = symbol.astype(np.int32)
    columns["ts"] = ts.copy()
    columns["side"] = np.full(n, -1, np.int32)
    columns["was"] = np.full(n, -1, np.int32)
    columns["id"] = np.full(n, NO_ID, np.int64)
    columns["recv_ts"] = np.zeros(n, np.int64)
    columns["offset"] = np.arange(n)
    columns["index"] = np.zeros(n, np.int32)
    came = arrivals(0, columns, [f"S{i}" for i in range(symbols)])
    return [came.slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def through(blocks: list[Arrivals], last: str, warm: int = 0) -> float:
    """Seconds for the stages up to one, a row a tick at each, after so many blocks before."""
    chain = Chain(TICKS_1)
    names = [stage.name for stage in chain.stages]
    stages = chain.stages[: names.index(last) + 1]
    gc.collect()
    start = time.perf_counter()
    for number, came in enumerate(blocks):
        if number == warm:
            start = time.perf_counter()
        block = Block(came)
        for stage in stages:
            block = stage.step(block)
    return time.perf_counter() - start


def state_bytes(symbols: int) -> int:
    """Bytes of a snapshot for so many symbols, less those of one with a single symbol."""
    sizes = []
    for count in (1, symbols + 1):
        chain = Chain(TICKS_1)
        which = np.arange(count)
        for came in blocks_of(which, which + 1_700_000_000_000_000_000, which + 1.0, count):
            chain.step(came)
        sizes.append(len(chain.snapshot()))
    return (sizes[1] - sizes[0]) // symbols


COLD = """
import time
start = time.perf_counter()
from pipeline.replay.warm import warm
warm()
from tests.bench.test_kernels import TICKS_1, blocks_of
from pipeline.stages.chain import Chain
import numpy as np
n = np.arange(100)
rows = Chain(TICKS_1).step(blocks_of(n * 0, n + 1_700_000_000_000_000_000, n + 1.0, 1)[0]).rows
assert len(rows["features"]) == 100
print(time.perf_counter() - start)
"""


def first_row(repository: Path, cache: Path) -> float:
    """Seconds from the start of a process to its first feature row, imports included."""
    done = subprocess.run(
        [sys.executable, "-c", COLD],
        cwd=repository,
        env={"PATH": os.defpath, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def interleaved(jobs: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each job, run in turn, so that the noise of the machine meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(RUNS):
        for name, job in jobs.items():
            found[name].append(job())
    return found


@pytest.mark.timeout(1800)
def test_kernels_beside_peers(repository: Path, tmp_path: Path) -> None:
    """Ticks a second of ours and theirs in one run, medians of five, as ratios to csp's sink."""
    data = tmp_path / "ticks.npz"
    symbol, ts, price = workload(data)
    folder = peers.scripts(repository)
    csp = peers.environment("csp", ("csp", "numpy", "pandas"))
    blocks = blocks_of(symbol, ts, price, SYMBOLS)
    short = symbol.astype(np.int32)
    through(blocks[:2], "signals")
    last = five.run(short, price, SYMBOLS, BLOCK)
    check = round(float(sum(last.sum(axis=1).tolist())), 4)
    theirs: dict[str, list[dict[str, Any]]] = {"csp": [], "pure": []}

    def peer(name: str, script: str) -> float:
        lines = measured_lines(csp, folder / script, data)
        wanted = lines[1] if name == "csp" else lines[0]
        theirs[name].append(wanted)
        return float(wanted["seconds"])

    def ours_five() -> float:
        start = time.perf_counter()
        five.run(short, price, SYMBOLS, BLOCK)
        return time.perf_counter() - start

    seconds = interleaved(
        {
            "csp, five features, sink": lambda: peer("csp", "bench_csp.py"),
            "pure Python loop, five": lambda: peer("pure", "bench_pure.py"),
            "ours, the same five": ours_five,
            "ours, guard + bars + all 40 features": lambda: through(blocks, "features"),
            "ours, the whole chain to signals": lambda: through(blocks, "signals"),
        }
    )
    assert check == theirs["csp"][0]["check"] == theirs["pure"][0]["check"]
    base = statistics.median(seconds["csp, five features, sink"])
    lines = [f"\n{len(price):,} ticks, {SYMBOLS} symbols, checksum {check}, blocks of {BLOCK}"]
    for name, values in seconds.items():
        middle = statistics.median(values)
        lines.append(
            f"{name:38} {len(price) / middle:>12,.0f} ticks/s {middle / len(price) * 1e9:7.0f} ns"
            f"  {base / middle:6.2f} x csp  (min {min(values):.3f} max {max(values):.3f} s)"
        )
    sys.stdout.write("\n".join(lines) + "\n")


def measured_lines(python: Path, script: Path, data: Path) -> list[dict[str, Any]]:
    """A peer's own report."""
    return peers.measured(python, script, data)


@pytest.mark.timeout(1800)
def test_many_symbols_and_cold_start(repository: Path, tmp_path: Path) -> None:
    """State per symbol, throughput at 10,000 symbols beside 8, compile time cold and cached."""
    n = 1_000_000
    rng = np.random.default_rng(1)
    seconds: dict[int, list[float]] = {8: [], 10_000: []}
    for _ in range(RUNS):
        for count, found in seconds.items():
            symbol = np.concatenate([np.arange(count), rng.integers(0, count, n)])
            ts = 1_700_000_000_000_000_000 + np.arange(n + count) * 1_000_000
            price = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-5, n + count)))
            # Each symbol is met once before the clock starts: the state has its size then.
            found.append(
                through(blocks_of(symbol, ts, price, count), "signals", -(-count // BLOCK))
            )
    few, many = (statistics.median(seconds[count]) for count in (8, 10_000))
    cold = statistics.median(first_row(repository, tmp_path / str(n)) for n in range(3))
    warm = statistics.median(first_row(repository, tmp_path / "0") for _ in range(3))
    figures = {
        "state bytes per symbol": state_bytes(1000),
        "ticks/s, 8 symbols": round(n / few),
        "ticks/s, 10,000 symbols": round(n / many),
        "times slower": round(many / few, 2),
        "first feature row, nothing compiled (s)": round(cold, 2),
        "first feature row, cached (s)": round(warm, 2),
    }
    sys.stdout.write("\n" + json.dumps(figures, indent=1) + "\n")
