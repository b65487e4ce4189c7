"""Losses of versions by volatility regime: of the bars of which a live selection would speak."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from pipeline.kernels.trees import predict
from pipeline.models.boosting import Hyperparameters
from pipeline.models.jobs import Trained, Wish, train_gbdt
from pipeline.models.regimes import compare_by_regime, regimes_of
from pipeline.settings import load_settings
from pipeline.stages.chain import Chain
from pipeline.stages.predictions import Predictions
from schemas.blocks import VOL_REGIMES
from tests.fixtures.boosted import activated, speaking
from tests.fixtures.planted import SETTINGS, market, replayed
from tests.fixtures.ticks import arrivals_of

MORE = ("regimes.vol_window=50", "predictions.selection_hold=4")
SMALL = Hyperparameters(trees=20, leaves=7, rate=0.1, least_rows=50, folds=2)
N = 8000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A version of a market with a signal."""
    home = tmp_path_factory.mktemp("regimes")
    run, _ = replayed(home, N, 1, more=MORE)
    return train_gbdt(Wish(run, ("queue_imbalance",), hyperparameters=SMALL), home / "kept")[0]


def test_the_codes_are_those_of_the_replay(trained: Trained) -> None:
    """What is read back is what the stage of the regimes said."""
    table = pd.read_parquet(trained.directory / "regimes.parquet")
    told = [None if code < 0 else VOL_REGIMES[code] for code in trained.samples.vol_regime]
    assert (
        told == table["vol_regime"].astype(object).where(table["vol_regime"].notna(), None).tolist()
    )
    assert set(told) == {None, *VOL_REGIMES}


def test_the_bars_are_those_of_a_live_selection(trained: Trained) -> None:
    """A chain with a version in every regime speaks by the same."""
    chain = Chain(load_settings([*SETTINGS, *MORE]).chain)
    assert isinstance(chain.predictions, Predictions)
    chain.predictions.activate(
        activated(speaking(1), selected=dict.fromkeys(VOL_REGIMES, speaking(2)))
    )
    rows = chain.step(arrivals_of(market(N, 1)[0])).rows
    assert rows["predictions"]["gbdt_regime"].tolist() == regimes_of(trained.samples).tolist()


def test_losses_are_told_by_regime(trained: Trained) -> None:
    """In the metrics of a version, of the held-out rows that are in one."""
    told = json.loads(trained.body)["metrics"]["regimes"]
    assert list(told) == list(VOL_REGIMES)
    samples, regimes = trained.samples, regimes_of(trained.samples)
    _, p = predict(trained.version.trees, samples.x)
    base = trained.version.data.rose
    for code, regime in enumerate(VOL_REGIMES):
        rows = trained.held & (regimes == code)
        rose = samples.rose[rows]
        assert told[regime]["n"] == rows.sum() > 50
        assert told[regime]["log_loss"] == pytest.approx(log_loss(rose, p[rows]), rel=1e-12)
        null = log_loss(rose, np.full(len(rose), base))
        assert told[regime]["null_log_loss"] == pytest.approx(null, rel=1e-12)
    assert sum(one["n"] for one in told.values()) == trained.version.metrics.held_out.n


def test_two_are_compared_by_regime(trained: Trained) -> None:
    """One that is better in one regime only is so there, and not where it is the same."""
    samples, regimes = trained.samples, regimes_of(trained.samples)
    even = np.full(len(samples.ts), 0.5)
    _, p = predict(trained.version.trees, samples.x)
    mixed = np.where(regimes == VOL_REGIMES.index("normal"), p, even)
    found = compare_by_regime(samples, samples.known, mixed, even)
    assert {regime: one.better for regime, one in found.items()} == {
        "low": False, "normal": True, "high": False, "extreme": False,
    }  # fmt: skip
    assert found["low"].challenger == found["low"].champion == pytest.approx(np.log(2))
