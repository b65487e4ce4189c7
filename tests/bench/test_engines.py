"""What each engine costs a row, beside river; and a walk-forward of a hundred folds."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from river import linear_model, optim, preprocessing

from pipeline.models.samples import default_inputs
from pipeline.settings import load_settings
from pipeline.stages.base import Block
from pipeline.stages.boosted import Boosted
from pipeline.stages.chain import Chain
from pipeline.stages.engines import Engine, engine
from pipeline.stages.predictions import LogitSettings, Predictions, PredictionsSettings
from pipeline.stages.user import ENGINE
from schemas.blocks import ENGINES, Array
from schemas.gbdt import GBDT
from schemas.trees import read_trees
from tests.acceptance.commands import tickstream
from tests.bench.live.telling import table, tell
from tests.bench.test_leakcheck import TICKS, million
from tests.fixtures.boosted import activated
from tests.fixtures.ticks import arrivals_of, walk

RUNS, BLOCK, SYMBOLS = 5, 4096, 8
ROWS = 200_000
SLOW_ROWS = 20_000  # of what runs in Python
TREES, LEAVES = 100, 15
RIVER, FTRL = "river, StandardScaler | LogisticRegression", "the same with FTRLProximal"
LIGHTGBM = "LightGBM, its predict a row at a time"
OTHERS = {RIVER, FTRL, LIGHTGBM}
FOLDS = 100
WANTED_SECONDS = 300.0


def blocks() -> list[Block]:
    """A row a tick of eight symbols with all that engines look at, up to the regimes."""
    came = arrivals_of(walk(ROWS, tuple(f"S{i}" for i in range(SYMBOLS))))
    chain = Chain(load_settings(["bars.clock=ticks:1"]).chain)
    stages = chain.stages[: [stage.name for stage in chain.stages].index("predictions")]
    found = []
    for start in range(0, ROWS, BLOCK):
        block = Block(came.slice(start, min(start + BLOCK, ROWS)))
        for stage in stages:
            block = stage.step(block)
        found.append(block)
    return found


def predicting(
    given: Sequence[Block],
    speaking: Sequence[str],
    own: Sequence[Engine] = (),
    trees: Boosted | None = None,
) -> int:
    """The stage over the blocks, with some engines; the rows."""
    stage = Predictions(PredictionsSettings(engines=tuple(speaking)), own)
    stage.activate(activated(trees))
    return sum(len(stage.step(block).rows["predictions"]) for block in given)


def rivers(model: Callable[[], Any], x: Sequence[dict[str, float]], rose: Sequence[bool]) -> int:
    """A model of river told each row and then taught its outcome, as its users do it."""
    one = preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=model())
    for row, up in zip(x, rose, strict=True):
        one.predict_proba_one(row)
        one.learn_one(row, up)
    return len(x)


def rows_of(given: Sequence[Block]) -> tuple[list[dict[str, float]], list[bool]]:
    """The same inputs as river takes them, without nulls; whether the next close was higher."""
    names = LogitSettings().inputs
    columns: dict[str, Array] = {
        name: np.concatenate([block.rows["features"][name] for block in given])[:SLOW_ROWS]
        for name in names
    }
    rows = [
        {name: value for name, value in zip(names, row, strict=True) if not math.isnan(value)}
        for row in zip(*(columns[name].tolist() for name in names), strict=True)
    ]
    close = np.concatenate([block.rows["bars"]["close"] for block in given])[: SLOW_ROWS + 1]
    return rows, (np.diff(close) > 0).tolist()


def boosted(given: Sequence[Block]) -> tuple[Any, Boosted, Array]:
    """A model of LightGBM on all features, as the chain takes it, and rows (n, features) for it."""
    names = default_inputs()
    parts = [np.stack([block.rows["features"][name] for name in names], 1) for block in given]
    x = np.concatenate(parts)[: 2 * SLOW_ROWS]
    rose = np.random.default_rng(1).random(len(x)) < 0.5
    data = lightgbm.Dataset(x, rose, feature_name=list(names))
    told = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": LEAVES}
    model = lightgbm.train(told, data, TREES)
    return model, Boosted("bench", read_trees(model.model_to_string().encode())), x


def singly(model: Any, x: Array) -> int:
    """Predict row by row, as rows come on a stream."""
    for i in range(len(x)):
        model.predict(x[i : i + 1], num_threads=1)
    return len(x)


def own_engine(*, compiled: bool) -> Engine:
    """A user's engine that learns."""

    def learn(state: Any, ret: Any, rose: float) -> None:
        state[0] += 0.01 * (rose - 0.5) * ret[-1]

    def mine(state: Any, ret: Any) -> Any:
        """The last return by what it was worth."""
        return state[0] * ret[-1]

    declare = engine(inputs=("bar_ret_1",), periods=1, state=1, learn=learn, compiled=compiled)
    found = getattr(declare(mine), ENGINE)
    assert isinstance(found, Engine)
    return found


@pytest.mark.timeout(1800)
def test_engines_beside_river(repository: Path) -> None:
    """Nanoseconds a row, medians of five runs in turn on the same rows; x of river by default.

    And gbdt, 100 trees of 15 leaves over all features, beside LightGBM's predict of a row.
    """
    given = blocks()
    few = given[: -(-SLOW_ROWS // BLOCK)]
    x, rose = rows_of(given)
    model, trees, x_trees = boosted(given)
    own = {kind: own_engine(compiled=kind == "compiled") for kind in ("Python", "compiled")}
    jobs: dict[str, Callable[[], int]] = {
        RIVER: lambda: rivers(optim.SGD, x, rose),
        FTRL: lambda: rivers(optim.FTRLProximal, x, rose),
        "all, gbdt without a version": lambda: predicting(given, tuple(ENGINES)),
        "all of them": lambda: predicting(given, tuple(ENGINES), trees=trees),
        "none speaks": lambda: predicting(given, ()),
        **{
            name: lambda name=name: predicting(given, (name,))  # type: ignore[misc]  # the name of now
            for name in ENGINES
            if name != GBDT
        },
        GBDT: lambda: predicting(given, (GBDT,), trees=trees),
        LIGHTGBM: lambda: singly(model, x_trees[:2000]),
        **{
            f"one of a user's that learns, {kind}": lambda one=one: predicting(few, (), (one,))  # type: ignore[misc]  # the one of now
            for kind, one in own.items()
        },
    }
    for job in jobs.values():  # compiled
        job()
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(RUNS):
        for name, job in jobs.items():
            start = time.perf_counter()
            rows = job()
            found[name].append((time.perf_counter() - start) / rows * 1e9)
    middle = {name: statistics.median(values) for name, values in found.items()}
    base, nothing = middle[RIVER], middle["none speaks"]
    cells = [
        (
            name,
            f"{value:,.0f}",
            "" if name in OTHERS else f"{value - nothing:,.0f}",
            f"{base / value:,.1f}",
            f"{middle[LIGHTGBM] / (value - nothing):,.0f}" if name == GBDT else "",
        )
        for name, value in middle.items()
    ]
    header = (
        "ns a row: said, queued, learnt, weighed",
        "stage",
        "above none",
        "x river",
        "x LightGBM",
    )
    tell(repository, "engines", table(header, cells))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("clock", ["time:10s", "ticks:1"])
def test_a_hundred_folds(repository: Path, sample: Path, tmp_path: Path, clock: str) -> None:
    """Seconds of the command over a million ticks, four variants, both cores."""
    path = million(sample, tmp_path / "million.parquet")
    start = time.perf_counter()
    done = tickstream(
        "walkforward", str(path), "--out", str(tmp_path / "wf"), "--bar", clock, "--period", "1h",
        "--windows", str(FOLDS), "--vary", "predictions.eta=0.5,1", "--vary",
        "signals.cost_bp=0,0.25", "--processes", "2", timeout=1500,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    assert f"in {FOLDS} windows" in done.stdout
    row = (clock, f"{TICKS:,}", f"{FOLDS}", "4", f"{seconds:.1f}", f"{WANTED_SECONDS:.0f}")
    header = ("walk-forward", "ticks", "folds", "variants", "seconds", "wanted below")
    tell(repository, f"walkforward-{clock.replace(':', '-')}", table(header, [row]))
