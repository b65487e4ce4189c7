"""Runs as one table of parameters and figures, the same bytes in whatever order they came."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pipeline.disk import unwritable
from pipeline.replay.grid import Parameters
from pipeline.replay.metrics import expected_best_sharpe, probabilistic_sharpe
from pipeline.replay.trial_figures import BETTER, Outcome

_NORMAL_KURTOSIS = 3.0


def parameter_columns(variants: Sequence[Parameters]) -> dict[str, Any]:
    """A column for each parameter: numbers as numbers, anything else as text."""
    return {key: _column([one[key] for one in variants]) for key in variants[0]}


def _column(values: Sequence[Any]) -> Any:
    kinds = {type(value) for value in values}
    if kinds in ({bool}, {int}, {float}, {str}):
        return pa.array(values)
    if kinds == {int, float}:
        return pa.array([float(value) for value in values])
    return pa.array([value if isinstance(value, str) else json.dumps(value) for value in values])


def figure_columns(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A column for each figure: counts as int64, all others as float64."""
    found = {}
    for name in outcomes[0]:
        values = [one[name] for one in outcomes]
        whole = all(isinstance(value, int) for value in values)
        found[name] = pa.array(values, pa.int64() if whole else pa.float64())
    return found


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a table as one row group of Parquet.

    Raises:
        TickstreamError: the disk does not take it.
    """
    try:
        table = pa.table(dict(columns))
        pa.parquet.write_table(table, path, compression="zstd", row_group_size=max(len(table), 1))
    except OSError as error:
        raise unwritable(path, error) from error


def deflated(outcomes: Sequence[Outcome]) -> list[float | None]:
    """DSR of each of these runs: they are the trials that the best was chosen from.

    The variance of their Sharpe ratios per period is that of Bailey and Lopez de Prado's SR*; where
    fewer than two have a ratio, that of an estimated one without skill.
    """
    ratios = [
        one.figures["sharpe_per_period"]
        for one in outcomes
        if one.figures["sharpe_per_period"] is not None
    ]
    spread = _variance(ratios)
    return [_dsr(one.figures, len(outcomes), spread) for one in outcomes]


def _variance(ratios: Sequence[float]) -> float | None:
    """With ddof 1, in the order of the runs; None of fewer than two."""
    if len(ratios) < 2:  # noqa: PLR2004 -- no spread of one
        return None
    middle = fmean(ratios)
    return fmean((ratio - middle) ** 2 for ratio in ratios) * len(ratios) / (len(ratios) - 1)


def _dsr(figures: Mapping[str, Any], trials: int, spread: float | None) -> float | None:
    ratio, n = figures["sharpe_per_period"], figures["periods"]
    if ratio is None:
        return None
    best = expected_best_sharpe(1.0 / (n - 1) if spread is None else spread, trials)
    skew, kurt = figures["skewness"] or 0.0, figures["kurtosis"] or _NORMAL_KURTOSIS
    return probabilistic_sharpe(ratio, n, skew, kurt, best)


def best_first(outcomes: Iterable[Mapping[str, Any]], metric: str) -> list[int]:
    """Places of outcomes by a figure, the best first; equal ones in order, undefined ones left out.

    `metric` is one of BETTER.
    """
    sign = -1.0 if BETTER[metric] else 1.0
    known = [
        (sign * one[metric], place) for place, one in enumerate(outcomes) if one[metric] is not None
    ]
    return [place for _, place in sorted(known)]
