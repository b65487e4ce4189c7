"""Training of boosted trees: a planted signal is found, nothing is found where there is none."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import rankdata
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.errors import MisuseError
from pipeline.kernels.trees import predict
from pipeline.models import boosting, importance
from pipeline.models.boosting import Hyperparameters, fit
from pipeline.models.importance import Importance
from pipeline.models.jobs import Trained, Wish, train_gbdt
from pipeline.models.samples import Samples, read_samples
from pipeline.models.settling import held_against
from schemas.blocks import Array
from schemas.gbdt import read_gbdt
from tests.fixtures.planted import replayed

N = 12_000
SMALL = Hyperparameters(trees=40, leaves=7, rate=0.1, least_rows=50, folds=3)
NAMES = ("queue_imbalance", "bar_ret_1", "rsi_14", "boll_z_20", "donchian_pos_20")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array]:
    """A replay with a signal, and the true probabilities of its bars."""
    return replayed(tmp_path_factory.mktemp("planted"), N, 1)


@pytest.fixture(scope="module")
def trained(planted: tuple[Path, Array], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A version of it."""
    kept = tmp_path_factory.mktemp("trained") / "gbdt.json"
    found, fitted = train_gbdt(Wish(planted[0], NAMES, hyperparameters=SMALL), kept)
    assert fitted
    return found


def test_a_planted_signal_is_found(trained: Trained, planted: tuple[Path, Array]) -> None:
    """Held out, the log loss is within 2 % of that of the truth, which is far below ln 2."""
    held, rose = trained.held, trained.samples.rose[trained.held]
    truth = log_loss(rose, planted[1][held])
    _, p = predict(trained.version.trees, trained.samples.x[held])
    scores = trained.version.metrics.held_out
    assert scores.log_loss == pytest.approx(log_loss(rose, p), rel=1e-12)
    assert scores.log_loss < 1.02 * truth < 0.97 * np.log(2)
    assert scores.auc == pytest.approx(roc_auc_score(rose, p), rel=1e-12)
    assert scores.brier == pytest.approx(((p - rose) ** 2).mean(), rel=1e-12)
    base = np.full(len(rose), trained.version.data.rose)
    assert scores.null_log_loss == pytest.approx(log_loss(rose, base), rel=1e-12)
    judged = held_against(trained, None)
    assert judged.comparison.better
    assert (judged.first_ts, judged.last_ts) == (scores.first_ts, scores.last_ts)


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    """Coin tosses: no better than the base rate, and an AUC of one half within three errors."""
    run, _ = replayed(tmp_path, N, 2, slope=0.0)
    found, _ = train_gbdt(Wish(run, NAMES, hyperparameters=SMALL), tmp_path / "gbdt.json")
    scores = found.version.metrics.held_out
    assert not held_against(found, None).comparison.better
    assert scores.auc is not None
    assert abs(scores.auc - 0.5) < 3 * np.sqrt(1 / (3 * scores.n))
    # A tree that knew the future would be found out: more trees than help are not grown.
    assert len(found.version.trees.trees.root) < SMALL.trees


def test_what_a_version_says_of_itself(trained: Trained) -> None:
    """Its range ends with the last close that taught, before the first row that is held out."""
    samples, data = trained.samples, trained.version.data
    start = int(samples.ts[trained.held].min())
    rows = samples.teaching(start, None)
    assert data.rows == rows.sum()
    assert data.rose == samples.rose[rows].mean()
    assert data.first_ts == samples.ts[rows].min()
    last = max(int(samples.ts[at[np.flatnonzero(rows[at]).max() + 1]]) for at in samples.books)
    assert data.last_ts == last < start
    assert 0.74 * N < rows.sum() < 0.76 * N
    told = data.model_dump()
    assert told["symbols"] == ["A", "B"]
    assert told["inputs"][0]["rows"] == N
    assert told["sha256"].keys() == {"bars", "features"}
    assert trained.version.feature_set == samples.chain.feature_set(NAMES)
    assert trained.version.features == NAMES
    assert read_gbdt(trained.body).version == trained.version.version


def test_the_same_wish_goes_on_from_the_file(
    planted: tuple[Path, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fitted twice; another wish, or a file that is damaged, is fitted anew."""
    wish = Wish(planted[0], NAMES, hyperparameters=replace(SMALL, trees=5))
    kept = tmp_path / "gbdt.json"
    first, _ = train_gbdt(wish, kept)
    assert kept.read_bytes() == first.body
    again, fitted = train_gbdt(wish, kept)
    assert (again.body, fitted) == (first.body, False)
    for other in (
        replace(wish, hyperparameters=replace(wish.hyperparameters, seed=2)),
        replace(wish, held_out=0.3),
        replace(wish, features=NAMES[:-1]),
        replace(wish, horizon=2),
    ):
        kept.write_bytes(first.body)
        assert train_gbdt(other, kept)[1]
    kept.write_bytes(first.body[:-20])
    assert train_gbdt(wish, kept)[0].body == first.body
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MisuseError, match=r"pip install -e '\.\[gbdt\]'"):
        train_gbdt(wish, kept)


def test_threads_leave_no_trace(planted: tuple[Path, Array]) -> None:
    """The same rows give the same text."""
    samples = read_samples(planted[0], NAMES)
    texts = {
        fit(samples, samples.known, replace(SMALL, trees=5), threads, lambda _: None).text
        for threads in (1, 2)
    }
    (text,) = {told.replace("[num_threads: 2]", "[num_threads: 1]") for told in texts}
    assert text.startswith("tree\n")


def test_folds_know_no_label_of_their_test(planted: tuple[Path, Array]) -> None:
    """They cover all rows; around each nothing teaches whose label or prices it shares."""
    samples = read_samples(planted[0], NAMES, horizon=4)
    rows = samples.teaching(int(np.quantile(samples.ts, 0.8)), None)
    folds = boosting._folds(samples, rows, replace(SMALL, folds=4, embargo=3))
    covered = np.zeros(len(rows), int)
    for train, test in folds:
        covered += test
        assert not (train & ~rows).any()
        for at in samples.books:
            tested = np.flatnonzero(test[at])
            for place in np.flatnonzero(train[at]):
                assert place + 4 < tested[0] or place >= tested[-1] + 1 + 4
    assert_array_equal(covered, rows.astype(int))


def test_the_trees_are_as_many_as_the_folds_say(planted: tuple[Path, Array]) -> None:
    """Where the mean loss of the folds is least."""
    samples = read_samples(planted[0], NAMES)
    found = fit(samples, samples.known, SMALL, 1, lambda _: None)
    best = int(np.argmin(found.curve)) + 1
    assert len(found.curve) == SMALL.trees
    assert found.text.count("\nTree=") == best


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rose": True}, "only rise or only fall"),
        ({"known": 900}, "900 rows with an outcome are too few to train on"),
        ({"embargo": 6000}, "too few or too bunched for 3 folds"),
    ],
)
def test_what_cannot_be_trained_on(
    planted: tuple[Path, Array], change: dict[str, int], why: str
) -> None:
    """One line says why."""
    samples = read_samples(planted[0], NAMES)
    rows = samples.known.copy()
    if "known" in change:
        rows[np.flatnonzero(rows)[change["known"] :]] = False
    if "rose" in change:
        samples = replace(samples, rose=np.ones(N, bool))
    asked = replace(SMALL, embargo=change.get("embargo", 0))
    with pytest.raises(MisuseError, match=why):
        fit(samples, rows, asked, 1, lambda _: None)


def test_too_few_rows_to_judge_by(tmp_path: Path) -> None:
    """Or none with an outcome at all."""
    run, _ = replayed(tmp_path, 300, 1)
    with pytest.raises(MisuseError, match="75 rows held out are too few to judge by"):
        train_gbdt(Wish(run, NAMES), tmp_path / "gbdt.json")
    with pytest.raises(MisuseError, match="no bar has an outcome 400 bars later"):
        train_gbdt(Wish(run, NAMES, horizon=400), tmp_path / "gbdt.json")


def parts(trained: Trained) -> tuple[Any, Samples, Array]:
    """What importance is measured of."""
    return lightgbm.Booster(model_str=trained.version.text), trained.samples, trained.held


def test_every_method_finds_the_signal(trained: Trained) -> None:
    """Of all symbols and of each; places are ranks."""
    booster, samples, held = parts(trained)
    x, rose, symbol = samples.x[held], samples.rose[held], samples.symbol[held]
    trees = trained.version.trees
    found = [
        importance.gain(booster),
        *importance.permutation(trees, x, rose, symbol, samples.symbols, 1),
        *importance.shap(booster, x, symbol, samples.symbols),
    ]
    assert [(one.method, one.symbol) for one in found] == [
        ("gain", "*"),
        *((method, s) for method in ("permutation", "shap") for s in ("*", "A", "B")),
    ]
    for one in found:
        assert one.features == NAMES
        assert one.places[0] == 1
        assert_array_equal(one.places, rankdata(-np.array(one.values), "ordinal"))
    gains = booster.feature_importance("gain")
    assert_array_equal(found[0].values, gains)


def test_permutation_is_the_loss_without_a_feature(trained: Trained) -> None:
    """Of the planted one: what the truth is worth; of one that no tree looks at: nothing."""
    _, samples, held = parts(trained)
    x, rose, symbol = samples.x[held], samples.rose[held], samples.symbol[held]
    trees = trained.version.trees
    (both, *each) = importance.permutation(trees, x, rose, symbol, samples.symbols, 3)
    own = log_loss(rose, predict(trees, x)[1])
    shuffled = x.copy()
    rng = np.random.default_rng(8)
    for code in range(2):
        shuffled[symbol == code, 0] = rng.permutation(x[symbol == code, 0])
    without = log_loss(rose, predict(trees, shuffled)[1])
    assert both.values[0] == pytest.approx(without - own, abs=0.02)
    assert both.values[0] > 0.1
    unused = set(range(len(NAMES))) - set(trees.trees.feature.tolist())
    assert all(both.values[j] == pytest.approx(0, abs=1e-12) for j in unused)
    sizes = [int((symbol == code).sum()) for code in range(2)]
    mean = np.average([one.values for one in each], axis=0, weights=sizes)
    np.testing.assert_allclose(both.values, mean, atol=1e-12)


def test_shap_values_are_what_lightgbm_gives(trained: Trained) -> None:
    """Mean absolute contributions, which add up to the log odds of each row."""
    booster, samples, held = parts(trained)
    x, symbol = samples.x[held], samples.symbol[held]
    contributions = booster.predict(x, pred_contrib=True)
    np.testing.assert_allclose(
        contributions.sum(axis=1), predict(trained.version.trees, x)[0], atol=1e-9
    )
    (both, *_) = importance.shap(booster, x, symbol, samples.symbols)
    np.testing.assert_allclose(both.values, np.abs(contributions[:, :-1]).mean(axis=0))
    assert isinstance(both, Importance)


def test_an_artifact_is_plain_json(trained: Trained) -> None:
    """No NaN in it: whatever reads JSON reads it."""

    def refuse(text: str) -> None:
        raise AssertionError(text)

    assert json.loads(trained.body, parse_constant=refuse)["kind"] == "gbdt"
