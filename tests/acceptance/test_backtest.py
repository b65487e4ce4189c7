"""`tickstream backtest` as people run it: a file in, a directory out, or nothing."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.acceptance.commands import TICKSTREAM, environment, only_line
from tests.acceptance.forked import tickstream
from tests.fixtures.ticks import walk
from tests.unit.replay.test_crossing import STRATEGY, sp500

ALL_IN = (
    "--bar", "row", "--set", "signals.follow=sma_cross", "--set", f'user.features=["{STRATEGY}"]',
    "--set", "fills.long_only=true", "--set", "fills.taker_bp=10", "--set", "equity.period=1d",
)  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "final"), [("next_open", 1_470_520.7243), ("close", 1_455_907.1566)]
)
def test_the_crossing_by_the_command_line(tmp_path: Path, mode: str, final: float) -> None:
    """A CSV of 20 years and a strategy in one file: the oracle's equity to 1e-4."""
    sp500().to_csv(tmp_path / "sp500.csv", index=False)
    options = (*ALL_IN, "--set", f"fills.mode={mode}", "--json")
    done = tickstream("backtest", tmp_path / "sp500.csv", "--out", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["final_equity"] == pytest.approx(final, abs=1e-4)
    assert found["research_only"] == (mode == "close")
    names = {"metrics.json", "trades.parquet", "equity.parquet", "report.html", "manifest.json"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(pd.read_parquet(tmp_path / "out" / "trades.parquet")) == 31


def test_it_tells_people_what_came_of_it(tmp_path: Path) -> None:
    """One line with the report's path; notes of caution beside it."""
    walk(3000).to_csv(tmp_path / "walk.csv", index=False)
    done = tickstream("backtest", "walk.csv", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out/report.html: return ")
    assert "note: only 1 days" in done.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_one_leaves_no_output(tmp_path: Path, end: signal.Signals) -> None:
    """Whatever ends it, nothing half-written bears the name; the next one runs as if none was."""
    walk(300_000).to_parquet(tmp_path / "walk.parquet")
    out = tmp_path / "out"
    command = [TICKSTREAM, "backtest", str(tmp_path / "walk.parquet"), "--out", str(out)]
    options = ["--bar", "ticks:1", "--set", "replay.block=2000"]
    with subprocess.Popen(
        [*command, *options], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not any(path.is_dir() for path in tmp_path.iterdir()):  # its partial one is there
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(end)
        process.wait(60)
    assert process.returncode != 0
    assert not out.exists()
    if end == signal.SIGINT:
        assert [path.name for path in tmp_path.iterdir()] == ["walk.parquet"]
    walk(2000).to_parquet(tmp_path / "walk.parquet")
    done = tickstream(*command[1:])
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "walk.parquet"]


NOISY = """
import signal
from pipeline.stages.custom import feature

class Noisy:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

@feature(inputs=("close",), periods=2, unit="1")
def noisy(close):
    "Ctrl-C comes while an object is finalized."
    if close[-1] > 1e9:
        Noisy()
    return close[-1]
"""


def test_ctrl_c_within_a_finalizer_is_not_lost(tmp_path: Path) -> None:
    """What Python cannot raise there ends the run nevertheless, with nothing left of it."""
    (tmp_path / "noisy.py").write_text(NOISY)
    ticks = walk(40_000)
    ticks.loc[20_000, "price"] = 2e9
    ticks.to_parquet(tmp_path / "walk.parquet")
    sets = ('user.features=["noisy.py"]', "guard.mode=plain", "replay.block=2000")
    options = [part for one in sets for part in ("--set", one)]
    arguments = ("walk.parquet", "--out", "out", "--bar", "ticks:1", *options)
    for command in ("replay", "backtest"):
        done = tickstream(command, *arguments, cwd=tmp_path)
        assert done.returncode == 130, done.stderr
        assert "ignored" not in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["noisy.py", "walk.parquet"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere.csv", "--out", "o"), "nowhere.csv: no such file"),
        (("walk.csv", "--out", "."), "not the output of a replay"),
        (("walk.csv", "--out", "o", "--set", "fills.mode=later"), "fills.mode"),
        (("walk.csv", "--out", "o", "--set", "signals.follow=luck"), "no column luck"),
        (("walk.csv", "--out", "o", "--set", "equity.period=1y"), "equity.period"),
        (("walk.csv", "--out", "o", "--from", "1600000000"), "for kafka:prices"),
    ],
)
def test_slips_are_one_line(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, what to do, and nothing left behind."""
    walk(20).to_csv(tmp_path / "walk.csv", index=False)
    assert told in only_line(tickstream("backtest", *arguments, cwd=tmp_path), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["walk.csv"]
