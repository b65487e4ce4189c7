"""The fit of the engine gbdt by LightGBM: how many trees, by folds that know no label of a test."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any, Final

import numpy as np

from pipeline.errors import MisuseError, TickstreamError, TooFewError
from pipeline.models.samples import Samples
from schemas.blocks import Array

Progress = Callable[[int], None]  # told how many trees are grown
SEED: Final = 1
FEWEST: Final = 1_000  # rows to train on


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What is asked of LightGBM; `trees` are the most, folds of the training say how many."""

    trees: int = 300
    leaves: int = 15
    rate: float = 0.05
    least_rows: int = 200  # in a leaf
    share_of_features: float = 0.8  # that a tree may look at
    l2: float = 1.0
    folds: int = 5
    embargo: int = 0  # bars behind a fold that teach nothing beside the horizon
    seed: int = SEED

    def for_lightgbm(self, threads: int) -> dict[str, Any]:
        """By LightGBM's names; equal rows give equal trees, whatever the threads."""
        return {
            "objective": "binary",
            "learning_rate": self.rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.least_rows,
            "feature_fraction": self.share_of_features,
            "lambda_l2": self.l2,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads,
            "verbose": -1,
        }

    def told(self) -> dict[str, Any]:
        """For the registry."""
        return asdict(self)


DEFAULTS: Final = Hyperparameters()


@dataclass(frozen=True)
class Fitted:
    """Trees as LightGBM writes them, and how the loss went with their number."""

    text: str
    curve: tuple[float, ...]  # mean log loss of the folds with 1, 2, ... trees


def lightgbm_module() -> ModuleType:
    """LightGBM, which only training needs.

    Raises:
        MisuseError: it is not installed.
    """
    try:
        import lightgbm  # noqa: PLC0415 -- it takes a second and is not there unless asked for
    except ImportError as error:
        raise MisuseError("training of gbdt needs LightGBM: pip install -e '.[gbdt]'") from error
    found: ModuleType = lightgbm
    return found


def fit(
    samples: Samples, rows: Array, asked: Hyperparameters, threads: int, progress: Progress
) -> Fitted:
    """Fit trees on some of the rows, (n,) bool.

    These are cut into folds by time. The trees are as many as do best on the mean of the folds,
    each by a fit on the rows around it whose labels it does not touch (QUANT.md 4.4.7).

    Raises:
        TooFewError: the rows are too few, or all alike.
        MisuseError: LightGBM is not installed.
        TickstreamError: LightGBM cannot fit them.
    """
    lightgbm = lightgbm_module()
    n = int(rows.sum())
    if n < FEWEST:
        raise TooFewError(f"{n:,} rows with an outcome are too few to train on: at least {FEWEST}")
    if samples.rose[rows].all() or not samples.rose[rows].any():
        raise TooFewError("the closes only rise or only fall: there is nothing to tell apart")
    try:
        curves = []
        for number, (train, test) in enumerate(_folds(samples, rows, asked)):
            curves.append(_curve(lightgbm, samples, train, test, asked, threads))
            progress((number + 1) * asked.trees)
        curve = np.mean(curves, axis=0)
        best = int(curve.argmin()) + 1
        data = _dataset(lightgbm, samples, rows)
        booster = lightgbm.train(asked.for_lightgbm(threads), data, best)
        progress(asked.folds * asked.trees + best)
    except lightgbm.basic.LightGBMError as error:
        raise TickstreamError(f"LightGBM: {' '.join(str(error).split())}") from error
    return Fitted(booster.model_to_string(), tuple(curve.tolist()))


def _folds(samples: Samples, rows: Array, asked: Hyperparameters) -> list[tuple[Array, Array]]:
    """Rows to train on and to test on, for each stretch of time."""
    times = samples.ts[rows]
    edges = np.quantile(times, np.arange(1, asked.folds) / asked.folds, method="inverted_cdf")
    bounds = [int(times.min()), *edges.tolist(), int(times.max()) + 1]
    found = []
    for start, end in pairwise(bounds):
        test = rows & samples.between(start, end)
        train = rows & samples.teaching(start, end, asked.embargo)
        if not test.any() or not train.any():
            raise TooFewError(
                f"the rows are too few or too bunched for {asked.folds} folds of horizon "
                f"{samples.horizon} and embargo {asked.embargo}"
            )
        found.append((train, test))
    return found


def _curve(
    lightgbm: ModuleType,
    samples: Samples,
    train: Array,
    test: Array,
    asked: Hyperparameters,
    threads: int,
) -> list[float]:
    """Log loss on the test with 1, 2, ... trees."""
    data = _dataset(lightgbm, samples, train)
    held = data.create_valid(samples.x[test], samples.rose[test].astype(np.int8))
    record: Mapping[str, Any] = {}
    lightgbm.train(
        {**asked.for_lightgbm(threads), "metric": "binary_logloss"},
        data,
        asked.trees,
        valid_sets=[held],
        valid_names=["held"],
        callbacks=[lightgbm.record_evaluation(record)],
    )
    return list(record["held"]["binary_logloss"])


def _dataset(lightgbm: ModuleType, samples: Samples, rows: Array) -> Any:
    return lightgbm.Dataset(
        samples.x[rows],
        samples.rose[rows].astype(np.int8),
        feature_name=list(samples.names),
        params={"verbose": -1},
    )
