"""Gradient boosted trees walked as LightGBM walks them: the same bits, a row at a time."""

import math
from typing import Final

import numpy as np

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array
from schemas.trees import CATEGORICAL, DEFAULT_LEFT, MISSING, TreeModel, Trees

NOTHING: Final = float(np.float32(1e-35))  # LightGBM's kZeroThreshold: what is nearer to 0 is 0
_MISSING_ZERO, _MISSING_NAN = 1, 2  # the missing types of a node
_INT_END: Final = 2.0**31  # a category is cast to an int: what does not fit is none


@piece
def goes_left(decision: int, threshold: float, sets: Array, words: Array, x: float) -> bool:
    """Where a node sends x: `Tree::NumericalDecision` and `CategoricalDecision` of LightGBM."""
    if decision & CATEGORICAL:
        if not -1.0 < x < _INT_END:  # also a null
            return False
        category = int(x)
        chosen = int(threshold)
        word = sets[chosen] + (category >> 5)
        return word < sets[chosen + 1] and ((int(words[word]) >> (category & 31)) & 1) == 1
    missing = (decision >> MISSING) & 3
    if math.isnan(x):
        if missing == _MISSING_NAN:
            return (decision & DEFAULT_LEFT) != 0
        x = 0.0
    if missing == _MISSING_ZERO and x == 0.0:
        return (decision & DEFAULT_LEFT) != 0
    return x <= threshold


@piece
def trees_say(trees: Trees, x: Array) -> float:
    """The log odds of a row x (features,): the sum of one leaf of each tree, in their order."""
    root, feature, decision, child, threshold, leaf, sets, words = trees
    total = 0.0
    for t in range(root.shape[0]):
        node = root[t]
        while node >= 0:
            value = x[feature[node]]
            if abs(value) <= NOTHING:
                value = 0.0  # as its predict does before any tree sees a row
            # A branch, not an index: a guess of the processor costs less than waiting for x.
            if goes_left(decision[node], threshold[node], sets, words, value):
                node = child[node, 1]
            else:
                node = child[node, 0]
        total += leaf[~node]
    return total


@piece
def trees_probability(sigmoid: float, log_odds: float) -> float:
    """What `BinaryLogloss::ConvertOutput` of LightGBM makes of log odds."""
    return 1.0 / (1.0 + math.exp(-sigmoid * log_odds))


@loop
def _run(
    sigmoid: float,
    trees: Trees,
    x: Array,
    log_odds: Array,
    p: Array,
) -> None:
    for i in range(x.shape[0]):
        log_odds[i] = trees_say(trees, x[i])
        p[i] = trees_probability(sigmoid, log_odds[i])


@loop
def say(sigmoid: float, trees: Trees, inputs: Array, n: int, row: Array, p: Array) -> None:
    """Probabilities of n rows into p (n or more,); `inputs` (features, n or more) are columns.

    `row` (features,) is scratch.
    """
    for i in range(n):
        for j in range(row.shape[0]):
            row[j] = inputs[j, i]
        p[i] = trees_probability(sigmoid, trees_say(trees, row))


def predict(model: TreeModel, x: Array) -> tuple[Array, Array]:
    """Log odds and probabilities (n,) of rows x (n, features), of the model's features in order.

    The bits are those of `predict(x, raw_score=True)` and `predict(x)` of LightGBM.

    Raises:
        ValueError: x has not as many columns as the model has features.
    """
    if x.ndim != 2 or x.shape[1] != len(model.features):
        raise ValueError(f"rows of {len(model.features)} features are wanted, not {x.shape}")
    log_odds, p = np.empty((2, len(x)))
    _run(model.sigmoid, model.trees, np.ascontiguousarray(x, np.float64), log_odds, p)
    return log_odds, p
