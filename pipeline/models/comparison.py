"""Whether one version is better than another on the same rows, by a stated rule."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.kernels.learners import CLIP
from schemas.blocks import Array

STRETCHES: Final = 30  # of time, of equally many rows
_T95: Final = 1.6991270265334986  # the 95 % quantile of Student's t with 29 degrees of freedom
_HORIZONS: Final = 4  # horizons in a stretch, so that few labels reach into the next
RULE: Final = (
    f"mean log loss lower on the same rows, and the differences of {STRETCHES} stretches of time "
    f"of equally many rows tell so at 95 % (Student's t below -{_T95:.3f})"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean log losses in nats of two on n rows; `standard_error` is that of their difference."""

    n: int
    challenger: float
    champion: float
    standard_error: float
    better: bool
    why: str  # in words


def losses(p: Array, rose: Array) -> Array:
    """-ln of the probability of what came, p clipped as everywhere."""
    safe = np.clip(p, CLIP, 1.0 - CLIP)
    return np.asarray(-np.log(np.where(rose, safe, 1.0 - safe)))


def fewest(span: int) -> int:
    """How many rows can be told by; `span` as `compare` takes it."""
    return STRETCHES * _HORIZONS * span


def compare(challenger: Array, champion: Array, rose: Array, ts: Array, span: int) -> Comparison:
    """Hold probabilities (n,) of two against what came; ts (n,) in ns.

    Labels overlap and symbols move together, so rows are no independent witnesses; stretches of
    time that are long against the horizon nearly are: the paired test of Diebold and Mariano
    (1995), its variance by batch means. `span` is how many rows of all symbols a horizon takes.
    """
    order = np.argsort(ts, kind="stable")
    one, other = losses(challenger, rose)[order], losses(champion, rose)[order]
    n = len(order)
    mean_one, mean_other = (float(loss.mean()) if n else 0.0 for loss in (one, other))
    least = fewest(span)
    if n < least:
        why = f"{n:,} rows are too few to tell: at least {least:,}"
        return Comparison(n, mean_one, mean_other, 0.0, better=False, why=why)
    differences = np.array([part.mean() for part in np.array_split(one - other, STRETCHES)])
    error = float(differences.std(ddof=1) / np.sqrt(STRETCHES))
    better = bool(differences.mean() < -_T95 * error)
    why = (
        f"log loss {mean_one:.6f} against {mean_other:.6f} on {n:,} rows, "
        f"difference {mean_one - mean_other:+.6f} with a standard error of {error:.6f}"
    )
    return Comparison(n, mean_one, mean_other, error, better, why)
