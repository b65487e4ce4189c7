"""Leaks in a user's own features and engines, which get copies of the past and find a way."""

import json
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from pipeline.replay.leakcheck import check
from pipeline.replay.leakcheck_plan import Plan
from pipeline.stages.chain import Chain
from tests.fixtures.leaks import SETTINGS, sample

QUICK: Final = Plan(cuts=30, stretches=1, stretch=600, reruns=0, warm_up=(), canary=0)
FULL: Final = Plan(cuts=30, stretches=2, stretch=400, reruns=1, warm_up=(5, 20), canary=3000)
HEAD: Final = "from pipeline.stages.custom import feature\n"
HONEST: Final = """
import math
from functools import lru_cache

FACTORS = (1.0, 0.5)

@lru_cache
def weight(n):
    return math.exp(-n / 10)

@feature(inputs=("close",), periods=5, unit="-")
def honest(close):
    \"\"\"A weighted mean, with a table and a memory that hold nothing of the input.\"\"\"
    return sum(weight(i) * FACTORS[i % 2] * c for i, c in enumerate(close))
"""
COMPILED: Final = """
@feature(inputs=("close", "volume"), periods=3, unit="-", compiled=True)
def honest_too(close, volume):
    \"\"\"Compiled.\"\"\"
    return close[-1] * volume.mean()
"""
# Each defines the feature `leaky`; DATA stands for the path of a file with the future in it.
LEAKS: Final = {
    "scaler read at the start": """
import json
with open("DATA") as file:
    ALL = json.load(file)["mean"]

def leaky(close):
    return close[-1] - ALL
""",
    "table read at the start, by a helper": """
import json
from pathlib import Path
TABLE = json.loads(Path("DATA").read_text())

def ahead(now):
    return TABLE["closes"].get(repr(float(now)), 0.0)

def leaky(close):
    return ahead(close[-1])
""",
    "file read at each call": """
import json

def leaky(close):
    with open("DATA") as file:
        return json.load(file)["mean"] - close[-1]
""",
    "file read at the first call": """
import numpy as np
KNOWN = []

def leaky(close):
    if not KNOWN:
        KNOWN.append(float(np.fromfile("DATA", np.uint8).sum()))
    return close[-1] / KNOWN[0]
""",
    "database": """
import sqlite3

def leaky(close):
    with sqlite3.connect("DATA.db") as base:
        return base.execute("SELECT 1").fetchone()[0]
""",
    "another process": """
import subprocess
LINES = int(subprocess.run(["wc", "-l", "DATA"], capture_output=True).stdout.split()[0])

def leaky(close):
    return LINES
""",
    "list of all closes": """
SEEN = []

def leaky(close):
    SEEN.append(close[-1])
    return (close[-1] - sum(SEEN) / len(SEEN)) / max(SEEN)
""",
    "cache keyed by value": """
CACHE = {}

def leaky(close):
    return CACHE.setdefault(round(close[-1], 1), close[-1] - close[0])
""",
    "cache of what came next": """
NEXT, LAST = {}, [0.0]

def leaky(close):
    NEXT[LAST[0]] = close[-1]
    LAST[0] = close[-1]
    return NEXT.get(close[-1], 0.0)
""",
    "counter in a default": """
def leaky(close, count=[0]):
    count[0] += 1
    return count[0]
""",
    "mean in an attribute": """
def leaky(close):
    leaky_state.total += close[-1]
    return leaky_state.total

class leaky_state:
    total = 0.0
""",
    "closure": """
def made():
    best = [0.0]
    def leaky(close):
        best[0] = max(best[0], close[-1])
        return close[-1] / best[0] - 1
    return leaky

leaky = made()
""",
    "chance": """
import random

def leaky(close):
    return close[-1] + random.random()
""",
    "clock": """
import time

def leaky(close):
    return time.perf_counter()
""",
    "hash of a word": """
def leaky(close):
    return hash("salt") % 1000
""",
    "table in the source": """
TABLE = CLOSES

def leaky(close):
    return TABLE.get(float(close[-1]), 0.0)
""",
}


@cache
def closes() -> dict[float, float]:
    """The next close by the close, over the whole sample."""
    bars = Chain(SETTINGS).step(next(sample(10_000))).rows["bars"]
    found: dict[float, float] = {}
    for code in range(len(bars.symbols)):
        own = bars["close"][bars["symbol"] == code].tolist()
        found |= dict(pairwise(own))
    return found


def chain_of(path: str, source: str, kind: str = "features") -> Chain:
    """A chain with the features, or the engines, of a file."""
    user = {kind: ({"path": path, "source": source},)}
    return Chain(SETTINGS.model_validate({**SETTINGS.model_dump(), "user": user}))


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_in_a_feature_is_found(name: str, tmp_path: Path) -> None:
    """The report names the user's column, and not the honest ones of the same file."""
    data = tmp_path / "future.json"
    known = closes()
    data.write_text(json.dumps({"mean": 500.0, "closes": {repr(k): v for k, v in known.items()}}))
    body = LEAKS[name].replace("DATA", str(data)).replace("CLOSES", repr(known))
    declared = (
        'leaky.__doc__ = "It leaks."\n'
        'feature(inputs=("close",), periods=3, unit="-", name="leaky")(leaky)\n'
    )
    make = partial(chain_of, "mine.py", HEAD + HONEST + body + declared)
    plan = FULL if name == "table in the source" else QUICK
    report = check(make, sample, plan)
    assert [(leak.stage, leak.column) for leak in report.leaks] == [("features", "leaky")]


def test_honest_features_are_clean() -> None:
    """A pure memory, a constant table and compiled code are no leaks."""
    make = partial(chain_of, "mine.py", HEAD + HONEST + COMPILED)
    report = check(make, sample, FULL)
    assert not report.leaks, report.line()


ENGINES: Final = """
from pipeline.stages.engines import engine

def count(state, close, rose):
    state[0] += rose
    state[1] += 1

@engine(inputs=("close",), periods=2, says="probability", state=2, learn=count)
def honest(state, close):
    \"\"\"How often it rose.\"\"\"
    return (state[0] + 1) / (state[1] + 2)
"""
# Each defines the function `leaky`, and `learn` if it learns.
ENGINE_LEAKS: Final = {
    "table read at the start": """
import json
from pathlib import Path
TABLE = json.loads(Path("DATA").read_text())["closes"]

def leaky(close):
    return TABLE.get(repr(float(close[-1])), 0.0) - close[-1]
""",
    "file read when it learns": """
def learn(state, close, rose):
    with open("DATA") as file:
        state[0] += len(file.read()) * rose

def leaky(state, close):
    return state[0]
""",
    "outcomes in a list": """
KNOWN = []

def learn(state, close, rose):
    KNOWN.append(rose)

def leaky(state, close):
    return sum(KNOWN) - len(KNOWN) / 2
""",
    "closes of all symbols": """
SEEN = [0.0]

def leaky(close):
    SEEN[0] += close[-1]
    return SEEN[0]
""",
    "chance": """
import random

def leaky(close):
    return random.random() - 0.5
""",
}


@pytest.mark.parametrize("name", ENGINE_LEAKS)
def test_a_leak_in_an_engine_is_found(name: str, tmp_path: Path) -> None:
    """The report names the column of the engine first, and not that of the honest one."""
    data = tmp_path / "future.json"
    data.write_text(json.dumps({"closes": {repr(k): v for k, v in closes().items()}}))
    body = ENGINE_LEAKS[name].replace("DATA", str(data))
    learns = "state=1, learn=learn, " if "def learn" in body else ""
    declared = (
        'leaky.__doc__ = "It leaks."\n'
        f'engine(inputs=("close",), periods=3, {learns}name="leaky")(leaky)\n'
    )
    make = partial(chain_of, "mine.py", ENGINES + body + declared, "engines")
    report = check(make, sample, QUICK)
    found = [(leak.stage, leak.column) for leak in report.leaks]
    assert found[0] == ("predictions", "p_leaky")
    assert ("predictions", "p_honest") not in found


def test_honest_engines_are_clean() -> None:
    """One that learns in its state, and a score."""
    source = ENGINES + (
        '@engine(inputs=("rsi_14",), periods=1, compiled=True)\n'
        "def against(rsi):\n"
        '    "Against an RSI that is far from 50."\n'
        "    return 50.0 - rsi[-1]\n"
    )
    report = check(partial(chain_of, "mine.py", source, "engines"), sample, FULL)
    assert not report.leaks, report.line()
