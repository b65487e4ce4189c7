"""From a replay's directory to an artifact, and from the artifact into the next replay."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import cli
from pipeline.errors import MisuseError
from pipeline.models.hmm import fit, run_filter
from pipeline.models.training import train_hmm
from pipeline.replay.engine import replay_file
from pipeline.settings import load_settings
from schemas.blocks import Array
from schemas.models import read_hmm

CALM, WILD = 1e-4, 5e-4
ROWS = ("bars.clock=row", "guard.mode=plain")


def planted(n: int = 3000) -> pd.DataFrame:
    """Minutes of A, whose deviation changes between two every 50 and 20 of them; a few of B."""
    rng = np.random.default_rng(1)
    state, path = 0, []
    for u in rng.random(n):
        state = int(u < (0.02, 0.95)[state])
        path.append(state)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 1, n) * np.array([CALM, WILD])[path]))
    ts = 1_700_000_000 + 60 * np.arange(n)
    table = pd.DataFrame({"symbol": "A", "ts": ts, "price": price})
    few = table.iloc[:50].assign(symbol="B", price=50.0 + np.arange(50))
    return pd.concat([table, few]).sort_values("ts", kind="stable")


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a replay of it, made once."""
    home = tmp_path_factory.mktemp("training")
    planted().to_csv(home / "ticks.csv", index=False)
    replay_file(home / "ticks.csv", home / "run", load_settings(ROWS))
    return home / "run"


def returns_of(replayed: Path, symbol: str = "A") -> Array:
    """What the stage saw."""
    table = pd.read_parquet(replayed / "features.parquet")
    return table.loc[table["symbol"] == symbol, "bar_ret_1"].dropna().to_numpy()


def test_an_artifact_says_what_was_fitted(replayed: Path) -> None:
    """The planted deviations come back; parameters, range and shares are those of the returns."""
    artifact = train_hmm(replayed)
    model = read_hmm(json.dumps(artifact).encode())
    found, returns = model.symbols["A"], returns_of(replayed)
    # The standard error of a variance of some 800 returns is 5 %.
    sd = found.scale * np.sqrt(found.variance)
    np.testing.assert_allclose(sd, [CALM, WILD], rtol=0.1)
    assert (found.location, found.scale) == (returns.mean(), returns.std())
    direct = fit((returns - found.location) / found.scale).parameters
    assert direct.variance == found.variance
    data, metrics = artifact["data"], artifact["metrics"]["A"]
    assert data["symbols"]["A"]["returns"] == metrics["returns"] == 2999
    assert data["symbols"]["A"]["first"]["offset"] == 2  # A's second row, behind B's first
    assert data["symbols"]["A"]["last"]["offset"] == 3049
    assert data["left_out"] == ["B"]
    assert data["inputs"][0]["file"] == "ticks.csv"
    assert sum(metrics["shares"]) == pytest.approx(1)
    assert metrics["normal"] == pytest.approx(-0.5 * (1 + math.log(2 * math.pi)), rel=1e-12)


def test_metrics_are_of_returns_that_the_fit_has_not_seen(replayed: Path) -> None:
    """Another last quarter changes nothing of the held-out fit but its score, by hand."""
    metrics = train_hmm(replayed)["metrics"]["A"]["held_out"]
    returns = returns_of(replayed)
    n = round(len(returns) * 0.75)
    y = (returns - returns[:n].mean()) / returns[:n].std()
    parameters = fit(y[:n]).parameters
    start = run_filter(parameters, y[:n]).filtered[-1] @ np.array(parameters.transition)
    expected = run_filter(parameters, y[n:], start).llf / len(y[n:])
    assert metrics["returns"] == len(y) - n
    assert metrics["hmm"] == pytest.approx(expected, rel=1e-9)
    normal = -0.5 * (y[n:] ** 2).mean() - 0.5 * math.log(2 * math.pi)
    assert metrics["normal"] == pytest.approx(normal, rel=1e-9)
    assert metrics["hmm"] > metrics["normal"] + 0.1  # the planted states are worth something


def test_the_same_again_is_the_same_file(replayed: Path) -> None:
    """No chance and no clock; other states and other symbols are other versions."""
    assert train_hmm(replayed) == train_hmm(replayed)
    versions = {train_hmm(replayed, states)["version"] for states in (2, 3)}
    assert len(versions) == 2


def test_a_replay_filters_with_the_artifact(replayed: Path, tmp_path: Path) -> None:
    """Its columns are the filter's, bit for bit; the manifest names the version."""
    path = tmp_path / "model.json"
    artifact = train_hmm(replayed)
    path.write_text(json.dumps(artifact))
    settings = load_settings((*ROWS, f"regimes.hmm={path}"))
    manifest = replay_file(replayed.parent / "ticks.csv", tmp_path / "run", settings)
    assert manifest["models"] == {"hmm": artifact["version"]}
    table = pd.read_parquet(tmp_path / "run" / "regimes.parquet")
    parameters, returns = read_hmm(path.read_bytes()).symbols["A"], returns_of(replayed)
    y = (returns - parameters.location) / parameters.scale
    expected = np.ascontiguousarray(run_filter(parameters, y).filtered[:, 1])
    found = table.loc[table["symbol"] == "A", "hmm_p_high"].to_numpy()[1:]
    assert found.tobytes() == expected.tobytes()
    assert table.loc[table["symbol"] == "B", "hmm"].isna().all()


def test_prices_that_often_stay(tmp_path: Path) -> None:
    """A state of unchanged prices is as wide as prices are rounded, not a point."""
    rng = np.random.default_rng(2)
    steps = rng.choice([-1, 0, 0, 0, 0, 0, 0, 1], 2000) * np.where(np.arange(2000) % 200 < 40, 4, 1)
    prices = pd.DataFrame({"symbol": "A", "price": 100 + 0.01 * np.cumsum(steps)})
    prices["ts"] = 1_700_000_000 + np.arange(2000)
    prices.to_csv(tmp_path / "ticks.csv", index=False)
    replay_file(tmp_path / "ticks.csv", tmp_path / "run", load_settings(ROWS))
    found = read_hmm(json.dumps(train_hmm(tmp_path / "run")).encode()).symbols["A"]
    narrowest = found.scale * math.sqrt(found.variance[0])
    assert narrowest == pytest.approx(1e-4 / math.sqrt(12), rel=0.05)


def train(*arguments: object) -> Result:
    """The command."""
    return CliRunner().invoke(cli, ["train", "hmm", *map(str, arguments)])


def test_the_command(replayed: Path, tmp_path: Path) -> None:
    """The file, what it is worth in a line, the file again as JSON."""
    path = tmp_path / "model.json"
    done = train(replayed, "--out", path)
    assert done.exit_code == 0, done.output
    assert json.loads(path.read_text()) == train_hmm(replayed)
    assert "2 states\nA: 2,999 returns, +0." in done.stdout
    assert "too short, left out: B" in done.stderr
    again = train(replayed, "--out", path, "--states", 3, "--symbol", "A", "--json")
    assert json.loads(again.stdout) == json.loads(path.read_text()) == train_hmm(replayed, 3, ["A"])
    assert [one.name for one in tmp_path.iterdir()] == ["model.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "--out", "m.json"), "nowhere: is not the output of a replay"),
        (("{run}", "--out", "no/such/m.json"), "m.json: cannot be written: No such file"),
        (("{run}", "--out", "m.json", "--symbol", "C"), "has no bars of C"),
        (("{run}", "--out", "m.json", "--symbol", "B"), "49 returns of B are too few"),
    ],
)
def test_a_mistake_is_one_line(
    replayed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, words: str
) -> None:
    """Exit code 2, nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = train(*(text.format(run=replayed) for text in arguments))
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("features.parquet", "was changed since the replay wrote it"),
        ("bars.parquet", "was changed since"),
        ("manifest.json", "is not the manifest of a replay"),
    ],
)
def test_a_changed_replay_is_refused(replayed: Path, tmp_path: Path, name: str, words: str) -> None:
    """A file that is not the one whose hash the manifest has."""
    for path in replayed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(MisuseError, match=words):
        train_hmm(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MisuseError, match="No such file"):
        train_hmm(tmp_path)
