"""What a version looks at: gain of its splits, loss without a feature, and SHAP values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pipeline.kernels.trees import predict
from pipeline.models.comparison import losses
from schemas.blocks import Array
from schemas.models import ANY_SYMBOL
from schemas.trees import TreeModel

Method = Literal["gain", "permutation", "shap"]
_TURNS: Final = 5  # permutations of each feature
_EXPLAINED: Final = 20_000  # rows
_FEWEST: Final = 100  # rows of a symbol


@dataclass(frozen=True, slots=True)
class Importance:
    """A value for each feature by one method, on the rows of a symbol, `*` on all."""

    method: Method
    symbol: str
    features: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """1 for the highest value, and so on; equal ones in the order of the features."""
        order = np.argsort(-np.array(self.values), kind="stable")
        found = np.empty(len(order), np.int64)
        found[order] = np.arange(1, len(order) + 1)
        return tuple(found.tolist())


def gain(booster: Any) -> Importance:
    """How much the splits by each feature lowered the loss of the training, in all."""
    values = booster.feature_importance("gain").tolist()
    return Importance("gain", ANY_SYMBOL, tuple(booster.feature_name()), tuple(values))


def permutation(
    trees: TreeModel, x: Array, rose: Array, symbol: Array, symbols: Sequence[str], seed: int
) -> Iterator[Importance]:
    """How much the log loss (nats) of rows x (n, features) rises when a feature is shuffled.

    Within each symbol, the mean of five shuffles (Breiman 2001); of each symbol with a hundred rows
    or more, and of all rows.
    """
    rng = np.random.default_rng(seed)
    base = losses(predict(trees, x)[1], rose)
    rows_of = [np.flatnonzero(symbol == code) for code in range(len(symbols))]
    risen = np.empty((x.shape[1], len(x)))
    for j in range(x.shape[1]):
        shuffled = x.copy()
        risen[j] = -base
        for _ in range(_TURNS):
            for at in rows_of:
                shuffled[at, j] = x[rng.permutation(at), j]
            risen[j] += losses(predict(trees, shuffled)[1], rose) / _TURNS
    yield from _by_symbol("permutation", trees.features, risen, rows_of, symbols)


def shap(booster: Any, x: Array, symbol: Array, symbols: Sequence[str]) -> Iterator[Importance]:
    """Mean absolute SHAP value (log odds) of each feature, as LightGBM's pred_contrib gives them.

    Of at most 20,000 rows, evenly taken; of each symbol with a hundred of them or more, and of all.
    """
    step = -(-len(x) // _EXPLAINED)
    told = np.abs(booster.predict(x[::step], pred_contrib=True)[:, :-1]).T  # the last is the mean
    rows_of = [np.flatnonzero(symbol[::step] == code) for code in range(len(symbols))]
    yield from _by_symbol("shap", tuple(booster.feature_name()), told, rows_of, symbols)


def _by_symbol(
    method: Method,
    features: tuple[str, ...],
    told: Array,
    rows_of: Sequence[Array],
    symbols: Sequence[str],
) -> Iterator[Importance]:
    """Means of what each row tells, (features, n)."""
    yield Importance(method, ANY_SYMBOL, features, tuple(told.mean(axis=1).tolist()))
    for name, at in zip(symbols, rows_of, strict=True):
        if len(at) >= _FEWEST and len(rows_of) > 1:
            yield Importance(method, name, features, tuple(told[:, at].mean(axis=1).tolist()))
