"""The tree walk against LightGBM's own predict, bit for bit."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline.kernels.trees import predict
from schemas.blocks import Array
from schemas.trees import read_trees
from tests.fixtures import boosted

ROWS = 10_000


def assert_equal(model: Any, x: Array) -> Array:
    """Both outputs have LightGBM's bits; the probabilities."""
    log_odds, p = predict(read_trees(model.model_to_string().encode()), x)
    assert_array_equal(log_odds.view(np.int64), model.predict(x, raw_score=True).view(np.int64))
    assert_array_equal(p.view(np.int64), model.predict(x).view(np.int64))
    return p


@pytest.mark.parametrize("kind", boosted.KINDS)
def test_the_bits_of_lightgbm(kind: str) -> None:
    """10,000 rows with nulls, zeros and what counts as one, huge values and strange categories."""
    model = boosted.booster(kind)
    p = assert_equal(model, boosted.wild(2, ROWS))
    assert len(np.unique(p)) > 100
    assert_equal(model, boosted.rows(3, ROWS)[0])


def test_every_kind_of_decision_was_met() -> None:
    """The kinds hold every type of missing value, both defaults, sets of more than one word."""
    met, words = set(), 0
    for kind in boosted.KINDS:
        trees = read_trees(boosted.booster(kind, 20).model_to_string().encode()).trees
        met |= set(trees.decision.tolist())
        words = max(words, int(np.diff(trees.sets).max(initial=0)))
    # Bits of categories, of the default and of the missing type: none, zero, NaN.
    assert met >= {1, 2, 4, 6, 8, 10}
    assert words == 3


@pytest.mark.parametrize("shape", ["one leaf", "a leaf behind trees"])
def test_trees_without_a_split(shape: str) -> None:
    """What LightGBM could not split is one leaf."""
    x, rose = boosted.rows(1, 500)
    if shape == "one leaf":
        told: dict[str, Any] = {"min_data_in_leaf": 400}
    else:
        told = {"min_gain_to_split": 12.0, "learning_rate": 0.5}
    data = lightgbm.Dataset(x, rose)
    model = lightgbm.train({"objective": "binary", "verbose": -1, **told}, data, 30)
    assert_equal(model, boosted.wild(2, 1000))


def test_text_keeps_every_bit(tmp_path: Path) -> None:
    """Written, read by LightGBM, written again: the same trees and the same predictions."""
    model = boosted.booster()
    path = tmp_path / "model.txt"
    model.save_model(path)
    again = lightgbm.Booster(model_file=path)
    first, second = read_trees(path.read_bytes()), read_trees(again.model_to_string().encode())
    for mine, other in zip(first.trees, second.trees, strict=True):
        assert_array_equal(mine, other)
    x = boosted.wild(4, ROWS)
    assert_array_equal(predict(first, x)[1], model.predict(x))
    assert_array_equal(predict(second, x)[1], model.predict(x))


def test_stopped_early_only_the_best_trees_count() -> None:
    """LightGBM writes, and predicts by, the trees up to the best iteration."""
    x, rose = boosted.rows(1, 4000)
    train, held = lightgbm.Dataset(x[:3000], rose[:3000]), lightgbm.Dataset(x[3000:], rose[3000:])
    model = lightgbm.train(
        {"objective": "binary", "verbose": -1, "learning_rate": 0.5},
        train,
        200,
        valid_sets=[held],
        callbacks=[lightgbm.early_stopping(5, verbose=False)],
    )
    assert 0 < model.best_iteration < 200
    assert len(read_trees(model.model_to_string().encode()).trees.root) == model.best_iteration
    assert_equal(model, boosted.wild(2, 1000))


def test_rows_of_another_width_are_refused() -> None:
    """The kernel would read beyond them."""
    model = read_trees(boosted.booster("stumps", 2, 500).model_to_string().encode())
    with pytest.raises(ValueError, match="rows of 6 features are wanted"):
        predict(model, np.zeros((4, 5)))
    with pytest.raises(ValueError, match="rows of 6 features are wanted"):
        predict(model, np.zeros(6))
    assert [len(part) for part in predict(model, np.zeros((0, 6)))] == [0, 0]
