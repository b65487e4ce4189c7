"""The rule by which a promotion is rolled back, and the rows that it is judged by.

The version that was active before a promotion goes on as the shadow, so both speak of the same
bars. A promotion is judged once: at the first look that finds at least `models.watch_rows` matured
rows since the swap, and at least those that `comparison` asks for (30 stretches of time, each of
four horizons of all books). How many rows there are hangs on no loss, so looking often does not
make a verdict likelier. It is rolled back if the shadow is better by the very rule by which
versions are promoted: its mean log loss is lower on the same rows, and the differences of 30
stretches of equally many rows tell so at 95 % (one-sided, Student's t of the paired batch means,
whose standard error holds for overlapping labels too). So of promotions to a version that is
neither better nor worse one in twenty is rolled back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.models.comparison import Comparison, compare, fewest
from pipeline.models.maturing import Matured
from schemas.blocks import Array
from schemas.models import Activation

PAIRED: Final = np.dtype(
    [("live", "<f8"), ("shadow", "<f8"), ("ts", "<i8"), ("book", "<i8"), ("rose", "?")]
)
"""What both said of a bar, and what came."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows of `PAIRED` by the versions of a generation of a model, shape (n,)."""

    model: str
    generation: int
    rows: Array


def pairs(matured: Matured, activations: Sequence[Activation]) -> Iterator[Pairs]:
    """The rows of which both an active version and a shadow spoke, by activation.

    Where a selected version spoke in the place of the active one, it tells nothing of that one.
    """
    both = ~np.isnan(matured.said["live"]) & ~np.isnan(matured.said["shadow"])
    both &= matured.said["regime"] < 0
    for number in np.unique(matured.said["activation"][both]).tolist():
        at = both & (matured.said["activation"] == number)
        rows = np.empty(at.sum(), PAIRED)
        for name in ("live", "shadow", "ts"):
            rows[name] = matured.said[name][at]
        rows["book"], rows["rose"] = matured.book[at], matured.rose[at]
        one = activations[number]
        yield Pairs(one.model, one.generation, rows)


def needed(rows: Array, horizon: int, least: int) -> int:
    """How many rows can be judged by, `least` and what stretches of time take of as many books."""
    return max(least, fewest(_span(rows, horizon)))


def judge(rows: Array, horizon: int, least: int) -> Comparison | None:
    """Hold the shadow, as the challenger, against the live version; None: too few rows as yet.

    Args:
        rows: `PAIRED`, shape (n,), in any order.
        horizon: bars.
        least: rows, whatever the rule asks for.
    """
    if len(rows) < needed(rows, horizon, least):
        return None
    span = _span(rows, horizon)
    return compare(rows["shadow"], rows["live"], rows["rose"], rows["ts"], span)


def _span(rows: Array, horizon: int) -> int:
    """How many rows a horizon of all books takes."""
    return horizon * max(1, len(np.unique(rows["book"])))
