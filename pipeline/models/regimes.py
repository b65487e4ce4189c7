"""How versions do in each volatility regime: on the bars that a live run would hold to be in it."""

from collections.abc import Iterator

import numpy as np

from pipeline.kernels.selection import INT_STATE, held
from pipeline.models.comparison import Comparison, compare
from pipeline.models.samples import Samples
from pipeline.models.scoring import log_loss
from schemas.blocks import VOL_REGIMES, Array


def regimes_of(samples: Samples) -> Array:
    """By the version of which regime the engine gbdt would speak of each bar: codes, -1 for none.

    As with a selection that begins with the replay.
    """
    books = samples.book.astype(np.int32)
    state = np.zeros((len(samples.books), INT_STATE), np.int64)
    found = np.empty(len(books), np.int32)
    hold = samples.chain.predictions.selection_hold
    held(hold, books, np.zeros(len(books), np.int32), samples.vol_regime, state, found)
    return found


def rows_by_regime(samples: Samples, rows: Array) -> Iterator[tuple[str, Array]]:
    """Of these rows (n,) bool those in each regime that has any."""
    regimes = regimes_of(samples)
    for code, regime in enumerate(VOL_REGIMES):
        inside = rows & (regimes == code)
        if inside.any():
            yield regime, inside


def losses_by_regime(
    samples: Samples, rows: Array, p: Array, base: float
) -> dict[str, dict[str, float | int]]:
    """How probabilities `p` (n,) do on these rows in each regime, beside a base rate; in nats."""
    return {
        regime: {
            "n": int(inside.sum()),
            "log_loss": log_loss(p[inside], samples.rose[inside]),
            "null_log_loss": log_loss(np.full(int(inside.sum()), base), samples.rose[inside]),
        }
        for regime, inside in rows_by_regime(samples, rows)
    }


def compare_by_regime(
    samples: Samples, rows: Array, challenger: Array, champion: Array
) -> dict[str, Comparison]:
    """Hold probabilities (n,) of two against what came on these rows, in each regime by itself."""
    return {
        regime: compared(samples, inside, challenger, champion)
        for regime, inside in rows_by_regime(samples, rows)
    }


def compared(samples: Samples, rows: Array, challenger: Array, champion: Array) -> Comparison:
    """Hold probabilities (n,) of two against what came on these rows."""
    span = samples.horizon * len(np.unique(samples.book[rows]))
    rose, ts = samples.rose[rows], samples.ts[rows]
    return compare(challenger[rows], champion[rows], rose, ts, span)
