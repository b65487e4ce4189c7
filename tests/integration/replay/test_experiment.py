"""Sweeps and walk-forwards in this process: what they write, what is resumed, what may be known."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.errors import MisuseError, TickstreamError
from pipeline.replay.executors import Places
from pipeline.replay.experiment import Plan, Variant
from pipeline.replay.grid import combinations
from pipeline.replay.shared_ticks import SharedTicks, TicksWriter
from pipeline.replay.sharing import share_file
from pipeline.replay.splits import Window, even_edges, folds_of, kfolds_of
from pipeline.replay.sweep import sweep
from pipeline.replay.sweep_report import sweep_report
from pipeline.replay.trial import Trial, run
from pipeline.replay.walkforward import walkforward
from pipeline.replay.walkforward_report import walkforward_report
from pipeline.settings import load_settings
from tests.fixtures.ticks import SECOND, START, walk

MINUTE = 60 * SECOND
SETS = ("signals.follow=boll_z_20", "fills.taker_bp=0")
FEW = {"bars.clock": ["time:10s", "time:20s"], "predictions.horizon": [5, 9]}
GRID = {"bars.clock": ["time:10s", "time:20s"], "fills.slippage_bp": [0, 0.5, 1]}


def plan_of(grid: dict[str, Any], *sets: str) -> Plan:
    """A plan over settings, on the clock of a minute."""
    variants = []
    for one in combinations(grid):
        chosen = [f"{key}={json.dumps(value)}" for key, value in one.items()]
        variants.append(Variant(one, load_settings([*SETS, *sets, *chosen]).chain))
    return Plan(variants, MINUTE, None, {"kind": "test"})


@contextmanager
def here(ticks: SharedTicks) -> Iterator[Places]:
    """Runs in a thread."""
    with ThreadPoolExecutor(1) as pool:
        yield Places(pool, 1, ticks)


def quiet(count: int, share: float | None) -> None:
    """Tells nobody."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of random ticks."""
    walk(6000).to_parquet(tmp_path / "walk.parquet")
    return tmp_path / "walk.parquet"


def nothing(_: Any) -> str:
    """An empty page."""
    return ""


def swept(
    path: Path,
    out: Path,
    plan: Plan,
    told: Callable[..., None] = quiet,
    draw: Callable[..., str] = nothing,
) -> dict[str, Any]:
    """A sweep of a file."""
    read = partial(share_file, path)
    return sweep(out, plan, read, here, draw, told, metric="total_return")


def walked(
    path: Path,
    out: Path,
    plan: Plan,
    scheme: Any = "anchored",
    draw: Callable[..., str] = nothing,
) -> dict[str, Any]:
    """A walk-forward over a file in four windows, 5 bars purged."""

    def split(ticks: SharedTicks) -> Any:
        edges = even_edges(ticks.first, ticks.last, 4, MINUTE)
        return folds_of(edges, ticks.first, scheme, 5)

    return walkforward(
        out, plan, partial(share_file, path), here, draw, quiet,
        metric="total_return", split=split,
    )  # fmt: skip


def test_a_row_is_a_run(path: Path, tmp_path: Path) -> None:
    """In the order of the grid, with the figures of the run and those of the choice."""
    plan = plan_of(GRID)
    found = swept(path, tmp_path / "out", plan)
    table = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    assert table["bars.clock"].tolist() == ["time:10s"] * 3 + ["time:20s"] * 3
    assert table["fills.slippage_bp"].tolist() == [0.0, 0.5, 1.0] * 2
    assert found["best"]["run"] == int(table["total_return"].argmax())
    assert table["trades"].min() > 20
    assert (table["dsr"] < table["psr"]).all()
    for clock, mine in table.groupby("bars.clock"):
        assert mine["total_return"].is_monotonic_decreasing, clock  # slippage costs
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["inputs"][0]["rows"] == 6000
    assert manifest["sha256"].keys() == {"runs.parquet", "report.html"}


def test_a_sweep_goes_on_where_it_was(path: Path, tmp_path: Path) -> None:
    """What was done before it broke off is not done again; a larger grid takes over the smaller."""
    plan, out = plan_of(GRID), tmp_path / "out"

    def breaks(count: int, share: float | None) -> None:  # noqa: ARG001 -- the shape of progress
        if count == 4:
            raise TickstreamError("enough")

    with pytest.raises(TickstreamError, match="enough"):
        swept(path, out, plan, breaks)
    assert not out.exists()
    found = swept(path, out, plan)
    assert (found["kept"], found["done"]) == (4, 2)
    first = (out / "runs.parquet").read_bytes()
    again = swept(path, out, plan)
    assert (again["kept"], again["done"]) == (6, 0)
    assert (out / "runs.parquet").read_bytes() == first
    more = swept(path, out, plan_of({**GRID, "fills.slippage_bp": [0, 0.5, 1, 2]}))
    assert (more["kept"], more["done"]) == (6, 2)
    assert len(list((out / "runs").iterdir())) == 8
    walk(6000, seed=1).to_parquet(path)
    other = swept(path, out, plan)
    assert (other["kept"], other["done"]) == (0, 6)


def test_pages_ask_nobody(path: Path, tmp_path: Path) -> None:
    """Both carry their script, their pictures and what the manifest says."""
    swept(path, tmp_path / "sweep", plan_of(GRID), draw=sweep_report)
    walked(path, tmp_path / "walk", plan_of(FEW), draw=walkforward_report)
    for name, pictures in (("sweep", 5), ("walk", 2)):
        page = (tmp_path / name / "report.html").read_text()
        assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page)
        assert "default-src 'none'" in page
        assert page.count("Plotly.newPlot(") >= pictures
        assert "{{" not in page.split("</script>", 1)[1]
        assert "bars.clock" in page.rsplit("<h2>", 1)[0]


@pytest.mark.parametrize("scheme", ["anchored", "rolling"])
def test_a_choice_knows_nothing_of_its_test(path: Path, tmp_path: Path, scheme: Any) -> None:
    """Prices from the start of the third test on are changed: all before stays, bit for bit."""
    plan = plan_of({**FEW, "predictions.horizon": [5]})
    walked(path, tmp_path / "one", plan, scheme)
    table = walk(6000)
    edge = even_edges(int(table["ts"].min()), int(table["ts"].max()), 4, MINUTE)[2]
    late = table["ts"] >= edge
    for name in ("price", "bid", "ask"):
        table[name] = table[name].where(~late, table[name].iloc[::-1].to_numpy() * 1.5)
    table.to_parquet(path)
    walked(path, tmp_path / "two", plan, scheme)
    one, two = (pd.read_parquet(tmp_path / out / "runs.parquet") for out in ("one", "two"))
    before = (one["fold"] < 2) | ((one["fold"] == 2) & (one["role"] == "train"))
    pd.testing.assert_frame_equal(one[before], two[before], check_exact=True)
    test = (one["fold"] == 2) & (one["role"] == "test")
    assert one[test]["final_equity"].tolist() != two[test]["final_equity"].tolist()
    curves = [pd.read_parquet(tmp_path / out / "equity.parquet") for out in ("one", "two")]
    early = [curve[curve["fold"] < 2] for curve in curves]
    assert len(early[0]) > 10
    pd.testing.assert_frame_equal(early[0], early[1], check_exact=True)


def test_the_best_of_each_training_is_traded(path: Path, tmp_path: Path) -> None:
    """By the figure, from rows of every variant; windows stand side by side and make the curve."""
    found = walked(path, tmp_path / "out", plan_of(FEW))
    table = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    train, test = table[table["role"] == "train"], table[table["role"] == "test"]
    assert train.groupby("fold").size().tolist() == [4] * 4
    for fold, mine in train.groupby("fold"):
        assert mine.loc[mine["chosen"], "run"].item() == mine["total_return"].to_numpy().argmax()
        assert (
            test.loc[test["fold"] == fold, "run"].item() == mine.loc[mine["chosen"], "run"].item()
        )
    assert (test["start"].iloc[1:].to_numpy() == test["end"].iloc[:-1].to_numpy()).all()
    assert (train.groupby("fold")["end"].first().to_numpy() == test["start"].to_numpy()).all()
    curve = pd.read_parquet(tmp_path / "out" / "equity.parquet")
    assert found["out_of_sample"]["total_return"] == pytest.approx(curve["equity"].iloc[-1] - 1)
    parts = 1 + (test["final_equity"] - test["closing_cost"]) / test["capital"] - 1
    assert curve["equity"].iloc[-1] == pytest.approx(parts.prod(), rel=1e-12)
    assert curve["ts"].is_monotonic_increasing
    assert curve["ts"].iloc[0] > START


def test_folds_around_each_test(path: Path, tmp_path: Path) -> None:
    """QUANT.md 4.4.7: 1,000 bars, 5 folds, h = 10, embargo 10, by the runs; done once, resumed."""
    table = pd.DataFrame({"symbol": "A", "ts": START + np.arange(1000) * MINUTE})
    closes = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 1e-3, 1000)))
    for name in ("price", "open", "high", "low"):
        table[name] = closes
    table.to_parquet(path)
    edges = [START + k * 200 * MINUTE for k in range(1, 5)]
    sets = ("bars.clock=row", "equity.period=1m")
    plan = plan_of({"predictions.horizon": [9, 10], "fills.slippage_bp": [0, 5]}, *sets)
    split = partial(lambda _, folds: folds, folds=kfolds_of(edges, 10, 10))

    def folded(out: Path, told: Callable[..., None] = quiet) -> dict[str, Any]:
        return walkforward(
            out, plan, partial(share_file, path), here, walkforward_report, told,
            metric="total_return", split=split,
        )  # fmt: skip

    def breaks(count: int, share: float | None) -> None:  # noqa: ARG001 -- the shape of progress
        if count == 3:
            raise TickstreamError("enough")

    with pytest.raises(TickstreamError, match="enough"):
        folded(tmp_path / "out", breaks)
    found = folded(tmp_path / "out")
    assert found["kept"] == 3
    assert folded(tmp_path / "other")["out_of_sample"] == found["out_of_sample"]
    again = folded(tmp_path / "out")
    assert (again["kept"], again["done"]) == (found["runs"], 0)
    runs = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    train, test = runs[runs["role"] == "train"], runs[runs["role"] == "test"]
    for _, mine in train.groupby("run"):
        assert mine["bars"].tolist() == [780, 770, 770, 770, 790]
    assert test["bars"].tolist() == [200] * 5
    assert train["left_out"].tolist() == [0] * 4 + [10] * 16
    assert train["skipped"].tolist() == [20] * 16 + [0] * 4
    curve = pd.read_parquet(tmp_path / "out" / "equity.parquet")
    assert curve["fold"].unique().tolist() == list(range(5))
    assert "nobody could have traded so" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_cuts_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many parts as windows are asked for, purge before a test, embargo behind it."""
    monkeypatch.chdir(tmp_path)
    walk(6000).to_parquet("walk.parquet")
    options = ("--scheme", "kfold", "--windows", "3", "--purge", "4", "--embargo", "3")
    done = CliRunner().invoke(
        cli,
        ("walkforward", "walk.parquet", "--out", "out", "--vary", "signals.cost_bp=0.1,0.2",
         "--period", "1m", *options),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "out of sample in 3 windows" in done.stdout
    runs = pd.read_parquet("out/runs.parquet")
    train = runs[(runs["role"] == "train") & (runs["run"] == 0)]
    assert train["left_out"].tolist() == [0, 4, 4]
    assert train["skipped"].tolist() == [7, 7, 0]


def test_a_run_that_fails_is_one_line(path: Path, tmp_path: Path) -> None:
    """What the executor hands back becomes an error of ours; nothing appears."""

    @contextmanager
    def broken(ticks: SharedTicks) -> Iterator[Places]:
        class Pool(ThreadPoolExecutor):
            def submit(self, fn: Any, /, *args: Any, **more: Any) -> Any:  # noqa: ARG002
                return super().submit(divmod, 1, 0)

        with Pool(1) as pool:
            yield Places(pool, 1, ticks)

    read = partial(share_file, path)
    with pytest.raises(TickstreamError, match="a run failed: ZeroDivisionError"):
        sweep(tmp_path / "out", plan_of(GRID), read, broken, nothing, quiet, metric="sharpe")
    assert [one.name for one in tmp_path.iterdir()] == ["walk.parquet"]


def test_a_clock_that_does_not_fit(path: Path, tmp_path: Path) -> None:
    """Returns of a minute cannot be told by books of an hour."""
    with pytest.raises(MisuseError, match=r"equity\.period 1h does not divide"):
        swept(path, tmp_path / "out", plan_of(GRID, "equity.period=1h"))


def test_runs_are_those_of_a_trial(path: Path, tmp_path: Path) -> None:
    """What is kept is what a run says."""
    plan = plan_of(GRID)
    swept(path, tmp_path / "out", plan)
    table = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    with TicksWriter(tmp_path / "ticks", MINUTE) as writer:
        ticks, _ = share_file(path, writer)
    trial = Trial(
        plan.variants[4].settings, (Window(None, None),), MINUTE, manifest["periods_per_year"]
    )
    figures = run(trial, ticks).outcomes[0].figures
    for name, value in figures.items():
        assert value is None or table[name][4] == value, name
    assert table["identity"][4] == trial.key(ticks)


def test_no_scheduler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody answers is no misuse: exit code 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.replay.executors._PATIENCE", 0.2)
    walk(50).to_csv(tmp_path / "walk.csv", index=False)
    options = ("--out", "out", "--scheduler", "tcp://127.0.0.1:9")
    done = CliRunner().invoke(
        cli, ("sweep", "walk.csv", "--vary", "signals.cost_bp=0.1,0.2", *options)
    )
    assert done.exit_code == 1
    assert done.stderr == "error: no Dask scheduler answers at tcp://127.0.0.1:9\n"
    assert [path.name for path in tmp_path.iterdir()] == ["walk.csv"]
