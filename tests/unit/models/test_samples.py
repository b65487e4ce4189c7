"""Rows with labels: those of the scores, and none that knows what it is to be judged by."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from pipeline.errors import MisuseError
from pipeline.models.samples import default_inputs, read_samples
from pipeline.replay.engine import replay_file
from pipeline.replay.figures import outcomes
from pipeline.settings import load_settings
from tests.fixtures.planted import replayed
from tests.fixtures.ticks import walk

HORIZON = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay of three symbols, one of them stale for a while, with a split of another."""
    home = tmp_path_factory.mktemp("samples")
    table = walk(4000)
    table.to_parquet(home / "ticks.parquet")
    replay_file(home / "ticks.parquet", home / "run", load_settings(["bars.clock=ticks:3"]))
    return home / "run"


def test_labels_are_those_of_the_scores(run: Path) -> None:
    """What is known of each bar, and whether it rose, as a backtest scores it."""
    samples = read_samples(run, horizon=HORIZON)
    bars = pd.read_parquet(run / "bars.parquet")
    known, rose = outcomes(bars, HORIZON)
    assert_array_equal(samples.known, known & (bars["stale"] == 0))
    assert_array_equal(samples.rose[known], rose[known])
    features = pd.read_parquet(run / "features.parquet")
    assert samples.names == default_inputs()
    assert_array_equal(samples.x, features[list(samples.names)].to_numpy())
    assert_array_equal(samples.ts, bars["ts"])
    assert [samples.symbols[code] for code in samples.symbol] == bars["symbol"].tolist()
    assert read_samples(run).horizon == 5
    assert not set(samples.names) & {"macd_line", "macd_signal", "macd_hist", "tod_sin", "tod_cos"}


def test_columns_of_bars_are_inputs_too(run: Path) -> None:
    """In the order in which they are named."""
    samples = read_samples(run, ("rsi_14", "volume", "close", "ret_1"))
    bars, features = (pd.read_parquet(run / f"{s}.parquet") for s in ("bars", "features"))
    wanted = [features["rsi_14"], bars["volume"], bars["close"], features["ret_1"]]
    assert_array_equal(samples.x, np.stack([column.to_numpy() for column in wanted], axis=1))
    assert samples.feature_set == load_settings(["bars.clock=ticks:3"]).chain.feature_set(
        samples.names
    )


def test_what_teaches_knows_nothing_of_the_test(run: Path) -> None:
    """By brute force: no label reaches into the test, and behind it the horizon and embargo."""
    samples = read_samples(run, horizon=HORIZON)
    start, end = (int(np.quantile(samples.ts, q)) for q in (0.4, 0.6))
    kept = samples.teaching(start, end, embargo=2)
    held = samples.between(start, end)
    assert held.sum() > 100
    assert kept.sum() > 500
    for at in samples.books:
        inside = np.flatnonzero((samples.ts[at] >= start) & (samples.ts[at] < end))
        for place, row in enumerate(at):
            before = place + HORIZON < inside[0]
            behind = place > inside[-1] + HORIZON + 2
            assert kept[row] == (samples.known[row] and (before or behind))
    assert not (kept & held).any()
    assert_array_equal(samples.teaching(start, None), samples.teaching(start, None) & ~held)


def test_books_are_not_mixed(tmp_path: Path) -> None:
    """The last bars of a symbol have no outcome, though the other's go on behind them."""
    run, _ = replayed(tmp_path, 400, 1)
    samples = read_samples(run)
    last = {int(at[-1]) for at in samples.books}
    assert len(last) == 2
    assert not samples.known[list(last)].any()
    assert samples.known.sum() == 398


def test_what_is_no_replay(run: Path, tmp_path: Path) -> None:
    """Nothing there, another version's settings, unknown and doubled columns: one line."""
    with pytest.raises(MisuseError, match="is not the output of a replay"):
        read_samples(tmp_path)
    with pytest.raises(MisuseError, match="no column of numbers nope"):
        read_samples(run, ("rsi_14", "nope"))
    with pytest.raises(MisuseError, match="named twice"):
        read_samples(run, ("rsi_14", "rsi_14"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["settings"]["bars"]["gone"] = 1
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MisuseError, match="another version of tickstream"):
        read_samples(copy)


def test_what_was_changed_is_refused(tmp_path: Path) -> None:
    """A file that is not as the replay wrote it."""
    run, _ = replayed(tmp_path, 300, 1)
    path = run / "features.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(MisuseError, match="was changed since the replay wrote it"):
        read_samples(run)


def test_an_empty_replay(tmp_path: Path) -> None:
    """No rows are no samples."""
    (tmp_path / "ticks.csv").write_text("symbol,ts,price\n")
    replay_file(tmp_path / "ticks.csv", tmp_path / "run", load_settings([]))
    samples = read_samples(tmp_path / "run")
    assert samples.x.shape == (0, len(samples.names))
    assert not samples.teaching(0, None).any()
