"""Scores of probabilities against what came (QUANT.md 3.3), each beside a null engine."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from schemas.blocks import Array

CLIP: Final = 1e-6
BINS: Final = 10
_Z95: Final = 1.959963984540054


def log_loss(p: Array, rose: Array) -> float:
    """Mean of -ln of the probability of what came, p clipped to [1e-6, 1 - 1e-6]."""
    safe = np.clip(p, CLIP, 1.0 - CLIP)
    return float(-np.log(np.where(rose, safe, 1.0 - safe)).mean())


def brier(p: Array, rose: Array) -> float:
    """Mean squared distance of the probability to what came."""
    return float(((p - rose) ** 2).mean())


def auc(p: Array, rose: Array) -> float | None:
    """How probably a rise had a higher p than a fall, ties half; None without both."""
    ups = int(rose.sum())
    downs = len(rose) - ups
    if ups == 0 or downs == 0:
        return None
    _, place, count = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2.0)[place]
    return float((ranks[rose.astype(bool)].sum() - ups * (ups + 1) / 2.0) / (ups * downs))


def wilson(hits: float, n: float) -> tuple[float, float]:
    """The 95 % interval of Wilson of a rate."""
    centre = (hits + _Z95**2 / 2.0) / (n + _Z95**2)
    half = _Z95 * math.sqrt(hits * (n - hits) / n + _Z95**2 / 4.0) / (n + _Z95**2)
    return centre - half, centre + half


def bins_of(p: Array, rose: Array) -> list[dict[str, float | int]]:
    """Reliability: n, mean p and share of rises of each of ten equal bins of p that has any."""
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    return [
        {
            "low": k / BINS,
            "n": int((place == k).sum()),
            "p": float(p[place == k].mean()),
            "rose": float(rose[place == k].mean()),
        }
        for k in range(BINS)
        if (place == k).any()
    ]


def murphy(p: Array, rose: Array) -> dict[str, float]:
    """Reliability, resolution and uncertainty of the Brier score, and the calibration error."""
    base = float(rose.mean())
    found = {"reliability": 0.0, "resolution": 0.0, "uncertainty": base * (1.0 - base), "ece": 0.0}
    for one in bins_of(p, rose):
        share = one["n"] / len(p)
        found["reliability"] += share * (one["p"] - one["rose"]) ** 2
        found["resolution"] += share * (one["rose"] - base) ** 2
        found["ece"] += share * abs(one["p"] - one["rose"])
    return found


def scores(p: Array, rose: Array, null: Array, horizon: int) -> Mapping[str, Any]:
    """All scores of an engine; `null` are the probabilities of the null engine for the same rows.

    Args:
        p: float64 (n,), NaN where the engine was not ready; such rows are left out.
        rose: bool (n,), whether the close had risen at the horizon.
        null: float64 (n,), NaN where the null engine was not ready.
        horizon: bars; labels overlap, so the interval of the hit rate is that of n / horizon.
    """
    ready = ~np.isnan(p) & ~np.isnan(null)
    p, rose, null = p[ready], rose[ready], null[ready]
    n = len(p)
    if n == 0:
        return {"n": 0}
    leaning = p != 0.5  # noqa: PLR2004 -- even odds say nothing
    hits = int(((p > 0.5) == rose)[leaning].sum())  # noqa: PLR2004 -- the same
    said = int(leaning.sum())
    effective = said / horizon
    loss = log_loss(p, rose)
    return {
        "n": n,
        "log_loss": loss,
        "log_loss_less_null": loss - log_loss(null, rose),
        "brier": brier(p, rose),
        "brier_less_null": brier(p, rose) - brier(null, rose),
        "auc": auc(p, rose),
        "hit_rate": hits / said if said else None,
        "hit_rate_95": list(wilson(hits / said * effective, effective)) if said else None,
        **murphy(p, rose),
        "bins": bins_of(p, rose),
    }
