"""Runs as a table: who is best, and what so many trials leave of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from pipeline.replay import metrics
from pipeline.replay.runs_table import (
    best_first,
    deflated,
    figure_columns,
    parameter_columns,
    write_table,
)
from pipeline.replay.trial_figures import Outcome


def outcome(**figures: Any) -> Outcome:
    """An outcome with some figures."""
    return Outcome(figures, (), ())


def of_curve(curve: Any) -> Outcome:
    """The figures that DSR needs, of a curve."""
    returns = metrics.returns_of(curve)
    return outcome(
        sharpe_per_period=metrics.sharpe(returns, 1.0),
        periods=len(returns),
        skewness=metrics.skewness(returns),
        kurtosis=metrics.kurtosis(returns),
    )


def test_the_example_of_the_paper() -> None:
    """Bailey and Lopez de Prado: SR 2.5 a year, 1,250 days, skew -3, kurtosis 10, N = 100, 0.9004.

    The variance of the yearly ratios is 1/2.
    """
    best = 2.5 / np.sqrt(250)
    away = np.sqrt(0.5 / 250 * 99 / 98)  # of 98 ratios; two are the mean itself
    trials = [
        outcome(sharpe_per_period=ratio, periods=1250, skewness=-3.0, kurtosis=10.0)
        for ratio in ([best - away, best + away] * 49 + [best, best])
    ]
    assert deflated(trials)[-1] == pytest.approx(0.900397, abs=1e-6)  # its six digits


def test_dsr_is_that_of_the_metrics() -> None:
    """With the number of these runs and the variance of their ratios."""
    rng = np.random.default_rng(3)
    curves = [np.cumprod(np.append(1.0, 1 + rng.normal(m, 0.01, 300))) for m in (0, 4e-4, 9e-4)]
    ratios = [metrics.sharpe(metrics.returns_of(curve), 1.0) or 0.0 for curve in curves]
    spread = float(np.var(ratios, ddof=1))
    for curve, dsr in zip(curves, deflated([of_curve(c) for c in curves]), strict=True):
        assert dsr == pytest.approx(metrics.performance(curve, 252, 3, spread)["dsr"], rel=1e-12)
    alone = deflated([of_curve(curves[2])])[0]
    assert alone == pytest.approx(metrics.performance(curves[2], 252)["psr"], rel=1e-12)


def test_runs_without_a_ratio_have_none_but_count() -> None:
    """More trials deflate more, whether all of them traded or not."""
    curve = np.cumprod(np.append(1.0, 1 + np.random.default_rng(0).normal(1e-3, 0.01, 300)))
    flat = outcome(sharpe_per_period=None, periods=300, skewness=None, kurtosis=None)
    few, many = deflated([of_curve(curve), flat]), deflated([of_curve(curve), *([flat] * 50)])
    assert few[1] is None
    assert few[0] is not None
    assert many[0] is not None
    assert many[0] < few[0]


def test_the_best_come_first() -> None:
    """By the direction of the figure; the earlier one of equals, and none without the figure."""
    figures = [{"sharpe": s, "brier": s} for s in (1.0, None, 3.0, 3.0, -1.0)]
    assert best_first(figures, "sharpe") == [2, 3, 0, 4]
    assert best_first(figures, "brier") == [4, 0, 2, 3]
    assert best_first([{"sharpe": None}], "sharpe") == []


def test_columns_have_one_kind(tmp_path: Path) -> None:
    """Numbers as numbers, mixtures and lists as text; null where a figure is undefined."""
    variants = [
        {"a": 1, "b": 1, "c": "x", "d": True, "e": [1, 2], "f": 1},
        {"a": 2, "b": 0.5, "c": "y", "d": False, "e": [1], "f": "w"},
    ]
    figures: list[dict[str, Any]] = [{"trades": 5, "sharpe": 0.5}, {"trades": 6, "sharpe": None}]
    path = tmp_path / "runs.parquet"
    write_table(path, {**parameter_columns(variants), **figure_columns(figures)})
    table = pyarrow.parquet.read_table(path)
    kinds = [str(kind) for kind in table.schema.types]
    assert kinds == ["int64", "double", "string", "bool", "string", "string", "int64", "double"]
    assert table["e"].to_pylist() == ["[1, 2]", "[1]"]
    assert table["f"].to_pylist() == ["1", "w"]
    assert table["sharpe"].to_pylist() == [0.5, None]
