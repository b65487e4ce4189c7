"""Training of the engine gbdt: from a replay to a version, and from there to the registry.

The two parts can be done apart: a version that was fitted is a file, and with the same wishes the
next run takes it from there.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as version_of_package
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.disk import write_whole
from pipeline.errors import TooFewError
from pipeline.kernels.trees import predict
from pipeline.models.boosting import DEFAULTS, Hyperparameters, fit, lightgbm_module
from pipeline.models.gbdt import canary_of
from pipeline.models.regimes import losses_by_regime
from pipeline.models.samples import Samples, read_samples
from pipeline.models.scoring import auc, brier, log_loss
from schemas.blocks import Array
from schemas.gbdt import Gbdt, Metrics, Range, Scores, gbdt_artifact, read_gbdt
from schemas.trees import TreeModel, read_trees

Progress = Callable[[int], None]
FEWEST_HELD: Final = 100  # rows
RESULT: Final = "training.json"
"""What a training of a range leaves: what came of it, for its runner."""
_CANARY: Final = 64  # rows


@dataclass(frozen=True, slots=True)
class Wish:
    """What to train, and on what."""

    directory: Path  # of a replay
    features: tuple[str, ...] = ()  # none: `default_inputs`
    symbols: tuple[str, ...] = ()  # whose rows teach and judge; none: all
    horizon: int | None = None  # bars; None: that of the replay
    held_out: float = 0.25  # of the rows, the last ones by time
    hyperparameters: Hyperparameters = DEFAULTS
    threads: int = 1


@dataclass(frozen=True)
class Trained:
    """A version with the rows that it was not trained on, which are those to judge it by."""

    directory: Path  # of the replay
    body: bytes
    version: Gbdt
    samples: Samples
    held: Array  # bool (n,)


def train_gbdt(wish: Wish, kept: Path, progress: Progress = lambda _: None) -> tuple[Trained, bool]:
    """A version as wished, kept in a file; and whether it was fitted now, not found there.

    Raises:
        TooFewError: its rows are too few.
        MisuseError: the directory is no replay's, or LightGBM is not installed.
        TickstreamError: LightGBM cannot fit them, or the file cannot be written.
    """
    lightgbm_module()  # before anything is read
    samples = read_samples(wish.directory, wish.features, wish.horizon).only(wish.symbols)
    if not samples.known.any():
        raise TooFewError(f"{wish.directory}: no bar has an outcome {samples.horizon} bars later")
    times = samples.ts[samples.known]
    start = int(np.quantile(times, 1.0 - wish.held_out, method="inverted_cdf"))
    held, rows = samples.between(start, None), samples.teaching(start, None)
    if held.sum() < FEWEST_HELD:
        raise TooFewError(
            f"{int(held.sum())} rows held out are too few to judge by: at least {FEWEST_HELD}"
        )
    data = _range(wish, samples, rows, start)
    body = _kept(kept, wish, samples, data)
    if body is not None:
        return Trained(wish.directory, body, read_gbdt(body), samples, held), False
    fitted = fit(samples, rows, wish.hyperparameters, wish.threads, progress)
    trees = read_trees(fitted.text.encode())
    finite = np.flatnonzero(held & ~np.isinf(samples.x).any(axis=1))[:_CANARY]
    document = gbdt_artifact(
        fitted.text,
        feature_set=samples.feature_set,
        horizon=samples.horizon,
        canary=canary_of(trees, samples.x[finite]),
        hyperparameters=wish.hyperparameters.told(),
        data=data,
        metrics=Metrics(
            held_out=_scores(trees, samples, rows, held),
            folds={"trees": len(trees.trees.root), "log_loss": min(fitted.curve)},
            regimes=losses_by_regime(
                samples, held, predict(trees, samples.x)[1], float(samples.rose[rows].mean())
            ),
        ),
    )
    body = json.dumps(document, allow_nan=False).encode()
    write_whole(kept, body.decode())
    return Trained(wish.directory, body, read_gbdt(body), samples, held), True


def _range(wish: Wish, samples: Samples, rows: Array, start: int) -> Range:
    """What is known of the rows before a fit; the last moment is that of the last label."""
    taught = np.flatnonzero(rows)
    if not len(taught):
        raise TooFewError(f"{wish.directory}: no row has its outcome before the held-out ones")
    last = max(
        int(samples.ts[at[np.flatnonzero(rows[at])[-1] + samples.horizon]])
        for at in samples.books
        if rows[at].any()
    )
    return Range(
        first_ts=int(samples.ts[taught].min()),
        last_ts=last,
        rows=len(taught),
        rose=float(samples.rose[taught].mean()),
        symbols=[samples.symbols[code] for code in np.unique(samples.symbol[taught])],
        held_out={"share": wish.held_out, "first_ts": start},
        lightgbm=version_of_package("lightgbm"),
        **samples.facts,
    )


def _scores(trees: TreeModel, samples: Samples, rows: Array, held: Array) -> Scores:
    """How trees do on rows that they were not trained on, beside the base rate of the training."""
    _, p = predict(trees, samples.x[held])
    rose = samples.rose[held]
    base = np.full(len(p), samples.rose[rows].mean())
    return Scores(
        first_ts=int(samples.ts[held].min()),
        last_ts=int(samples.ts[held].max()),
        n=len(p),
        log_loss=log_loss(p, rose),
        null_log_loss=log_loss(base, rose),
        brier=brier(p, rose),
        auc=auc(p, rose),
    )


def _kept(kept: Path, wish: Wish, samples: Samples, data: Range) -> bytes | None:
    """A version that was fitted on the same rows by the same wishes; None if there is none."""
    try:
        body = kept.read_bytes()
        found = read_gbdt(body)
    except (OSError, ValueError):
        return None
    same = (
        found.hyperparameters == wish.hyperparameters.told()
        and found.data == data
        and found.features == samples.names
        and found.feature_set == samples.feature_set
        and found.horizon == samples.horizon
    )
    return body if same else None
