"""`tickstream sweep` and `walkforward`: equal bits whoever does the runs, and none done twice."""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from distributed import LocalCluster

from tests.acceptance.commands import TICKSTREAM, environment

STRATEGY = '''
import os
from pathlib import Path
from pipeline.stages.custom import feature, parameter

SHORT = parameter("short", 5)
LONG = parameter("long", 20)
BAND = parameter("band", 0.0)
with open({log!r}, "a") as log:  # no two runs share all parameters: a line for each that begins
    log.write(f"{{os.getpid()}} {{SHORT}} {{LONG}} {{BAND}}\\n")

@feature(inputs=("close",), periods=LONG, unit="bp")
def means(close):
    """The mean of SHORT closes above that of LONG, 0 within a band around it."""
    away = (close[-SHORT:].mean() / close.mean() - 1.0) * 1e4
    return away if abs(away) > BAND else 0.0
'''
FILES = ("runs.parquet", "report.html", "manifest.json")
SMALL = (
    "--vary", "user.parameters.short=2,5,10,15", "--vary", "user.parameters.long=20,40,60",
    "--vary", "user.parameters.band=0.0,0.5",
)  # fmt: skip
LARGE = (
    "--vary", "user.parameters.short=2,3,5,10,15", "--vary", "user.parameters.long=20,30,40,60",
    "--vary", "user.parameters.band=0.0,0.1,0.2,0.3,0.4,0.6,0.8,1.0,1.3,1.6",
)  # fmt: skip
PARAMETERS = ["user.parameters.short", "user.parameters.long", "user.parameters.band"]
AT_ONCE = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a real Dask cluster of two processes."""
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as running:
        yield running.scheduler_address


class Sweep:
    """A sweep of the ES sample by a strategy that notes its beginnings."""

    def __init__(self, home: Path, sample: Path, vary: tuple[str, ...]) -> None:
        self.home = home
        self.log = home / "begun.log"
        self.parents: set[int] = set()
        source = home / "means.py"
        source.write_text(STRATEGY.format(log=str(self.log)))
        self._command = [
            TICKSTREAM, "sweep", str(sample), "--period", "1h", "--bar", "time:1m", *vary,
            "--set", f'user.features=["{source}"]', "--set", "signals.follow=means", "--json",
        ]  # fmt: skip

    def start(self, out: Path, *options: str) -> subprocess.Popen[str]:
        """Start it."""
        process = subprocess.Popen(
            [*self._command, "--out", str(out), *options],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.parents.add(process.pid)
        return process

    def run(self, out: Path, *options: str) -> dict[str, int]:
        """Run it to its end; what it says."""
        with self.start(out, *options) as process:
            said, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        found: dict[str, int] = json.loads(said)
        return found

    def begun(self) -> list[tuple[int, str]]:
        """Process and parameters of each run that began, finished or not."""
        lines = [line.split(" ", 1) for line in self.log.read_text().splitlines()]
        return [(int(pid), told) for pid, told in lines if int(pid) not in self.parents]


def the_same(one: Path, other: Path) -> None:
    """Table, page and manifest are equal to the last byte."""
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def kept(out: Path) -> dict[str, tuple[int, int]]:
    """The outcomes that are there, each with what would change if it was written again."""
    folder = out.parent / f".{out.name}.unfinished" / "runs"
    found = {}
    for path in folder.glob("*.json"):
        told = path.stat()
        found[path.name] = told.st_ino, told.st_mtime_ns
    return found


def killed_half_way(sweep: Sweep, out: Path, n: int) -> dict[str, tuple[int, int]]:
    """Start it, kill -9 when half of the runs are done; what was kept. No process outlives it."""
    process = sweep.start(out, "--processes", str(AT_ONCE))
    with process:
        deadline = time.monotonic() + 300
        while len(kept(out)) < n // 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    children = {pid for pid, _ in sweep.begun()}
    assert len(children) == AT_ONCE
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a process of the runs outlived the sweep"
        time.sleep(0.05)
    return kept(out)


def accept(tmp_path: Path, sample: Path, cluster: str, vary: tuple[str, ...], n: int) -> None:
    """Acceptance 6: one process, two, and Dask; killed half way and resumed."""
    sweep = Sweep(tmp_path, sample, vary)
    assert sweep.run(tmp_path / "one", "--processes", "1")["done"] == n
    table = pd.read_parquet(tmp_path / "one" / "runs.parquet")
    assert table["run"].tolist() == list(range(n))
    assert table["identity"].nunique() == table["settings_hash"].nunique() == n
    assert table["final_equity"].nunique() > n / 2
    assert sweep.run(tmp_path / "dask", "--scheduler", cluster)["done"] == n
    the_same(tmp_path / "one", tmp_path / "dask")

    sweep.log.unlink()
    two = tmp_path / "two"
    before = killed_half_way(sweep, two, n)
    assert n // 2 <= len(before) < n
    found = sweep.run(two, "--processes", "2")
    assert (found["kept"], found["done"]) == (len(before), n - len(before))
    after = {path.name: path.stat() for path in (two / "runs").iterdir()}
    assert len(after) == n
    begun = Counter(told for _, told in sweep.begun())
    names = dict(zip(table["identity"], table[PARAMETERS].itertuples(index=False), strict=True))
    known = {" ".join(map(str, names[name.removesuffix(".json")])) for name in before}
    assert {begun[told] for told in known} == {1}, "a run that was kept began again"
    assert len(begun) == n
    assert sum(begun.values()) <= n + AT_ONCE  # those that the kill broke off, and no other
    for name, told in before.items():
        assert (after[name].st_ino, after[name].st_mtime_ns) == told, "written again"
    the_same(tmp_path / "one", two)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "begun.log", "dask", "means.py", "one", "two"
    ]  # fmt: skip


def test_a_sweep_is_the_same_whoever_runs_it(tmp_path: Path, sample: Path, cluster: str) -> None:
    """24 runs of the ES sample; a sweep of 200 in the soak."""
    accept(tmp_path, sample, cluster, SMALL, 24)


@pytest.mark.soak
def test_two_hundred_runs(tmp_path: Path, sample: Path, cluster: str) -> None:
    """The whole of acceptance 6."""
    accept(tmp_path, sample, cluster, LARGE, 200)
