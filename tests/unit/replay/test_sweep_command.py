"""Slips of `sweep` and `walkforward`: one line that names what to do, exit code 2, nothing left."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from tests.fixtures.ticks import walk
from tests.unit.replay.test_crossing import STRATEGY

VARY = ("--vary", "signals.cost_bp=0.1,0.2")


def slip(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The line of a command that misuses something."""
    monkeypatch.chdir(home)
    walk(50).to_csv(home / "walk.csv", index=False)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1 or done.stderr.startswith("Usage")
    assert [path.name for path in home.iterdir()] == ["walk.csv"]
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere.csv", *VARY), "nowhere.csv: no such file"),
        (("walk.csv",), "nothing is varied: give --vary"),
        (("walk.csv", "--vary", "signals.cost_bp=-1,0"), "setting signals.cost_bp"),
        (("walk.csv", "--vary", "signals.luck=1,2"), "signals.luck: there is no such setting"),
        (("walk.csv", "--vary", "signals.follow=luck"), "no column luck"),
        (("walk.csv", "--vary", "worker.batch=1,2"), "worker.batch decides no figure"),
        (("walk.csv", "--vary", "bars.clock=time:1s,soon"), "setting bars.clock"),
        (("walk.csv", "--vary", "signals.cost_bp=0..1"), "is a range: say with --sample"),
        (("walk.csv", "--grid", "none.toml"), "none.toml: cannot be read"),
        (("walk.csv", *VARY, "--period", "1y"), "--period: period '1y' is none like"),
        (("walk.csv", *VARY, "--period", "90s"), "equity.period 1m does not divide"),
        (("walk.csv", *VARY, "--metric", "luck"), "'luck' is not one of"),
        (("walk.csv", *VARY, "--from", "1600000000"), "not for a file"),
        (("walk.csv", *VARY, "--scheduler", "tcp://x:1", "--processes", "2"), "give one of them"),
        (("postgres:bars", *VARY), "can be replayed"),
    ],
)
def test_slips_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    """Before anything runs."""
    for command in ("sweep", "walkforward"):
        assert told in slip(tmp_path, monkeypatch, command, *arguments, "--out", "out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--train", "1h"), "--train and --test: give both"),
        (("--train", "1h", "--test", "1h", "--windows", "3"), "--windows says what"),
        (("--train", "1h", "--test", "x"), "--test: period 'x'"),
        (("--train", "5d", "--test", "1d"), "the input is too short"),
        (("--scheme", "kfold", "--train", "1h", "--test", "1h"), "--windows says how many"),
        (("--scheme", "kfold", "--windows", "1"), "leaves nothing to train on"),
    ],
)
def test_slips_of_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: str
) -> None:
    """Windows that are none, or that the input has no room for."""
    line = slip(tmp_path, monkeypatch, "walkforward", "walk.csv", *VARY, "--out", "out", *options)
    assert told in line


def test_what_stands_there_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of somebody's own."""
    line = slip(tmp_path, monkeypatch, "sweep", "walk.csv", *VARY, "--out", ".")
    assert "not the output of a replay" in line


def test_a_strategys_slip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that its file does not ask for."""
    sets = ("--set", f'user.features=["{STRATEGY}"]', "--vary", "user.parameters.fast=1,2")
    line = slip(tmp_path, monkeypatch, "sweep", "walk.csv", *sets, "--out", "out")
    assert "user.parameters.fast: no file of user.features or user.engines asks for it" in line
