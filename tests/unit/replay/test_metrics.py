"""The figures of a backtest against five libraries, published examples and identities.

Truth: `oracles/backtest_oracles.py` and its table in QUANT.md 4.2.
"""

import math
from typing import Any

import arch.data.sp500
import numpy as np
import pytest

from pipeline.replay import metrics
from schemas.blocks import Array

CLOSE: Array = arch.data.sp500.load()["Close"].to_numpy()
NORMAL_YEAR = 252


def held(closes: Array) -> Array:
    """The equity of one unit of money held in the index."""
    equity: Array = closes / closes[0]
    return equity


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_return", 1.0412426895121283),
        ("cagr", 0.03639554326851813),
        ("volatility", 0.19098207141371265),
        ("sharpe", 0.28273922904460697),
        ("sortino", 0.39861402985639693),
        ("max_drawdown", -0.5677538775030555),
        ("calmar", 0.06410443805083878),
        ("psr", 0.8965832130325041),
    ],
)
def test_the_table_of_the_oracles(name: str, value: float) -> None:
    """What empyrical, quantstats and vectorbt (252) agree on, to 1e-12."""
    found = metrics.performance(held(CLOSE), NORMAL_YEAR)[name]
    np.testing.assert_allclose(np.array(found, float), value, rtol=1e-12)


def test_the_profit_factor_of_days() -> None:
    """As quantstats and empyrical's omega have it; and wins of wins and losses only."""
    returns = metrics.returns_of(CLOSE)
    assert metrics.profit_factor(returns) == pytest.approx(1.0544888207136167, rel=1e-12)
    assert metrics.win_rate(returns) == pytest.approx(0.5315297394072012, rel=1e-12)


def test_buy_and_hold_is_the_price_ratio() -> None:
    """Golden."""
    found = metrics.total_return(np.append(1.0, np.cumprod(1 + metrics.returns_of(CLOSE))))
    assert found == pytest.approx(CLOSE[-1] / CLOSE[0] - 1, abs=1e-12)


@pytest.mark.parametrize(
    ("trials", "best", "dsr"),
    [(100, 0.11317200186513214, 0.9003968344493903), (46, None, 0.9505017068755787)],
)
def test_the_deflated_ratio_of_the_paper(trials: int, best: float | None, dsr: float) -> None:
    """SR 2.5 a year, 1,250 days, skewness -3, kurtosis 10, V 1/2 a year: .9004 and .9505."""
    expected = metrics.expected_best_sharpe(0.5 / 250, trials)
    if best is not None:
        assert expected == pytest.approx(best, rel=1e-9)
    found = metrics.probabilistic_sharpe(2.5 / math.sqrt(250), 1250, -3, 10, expected)
    assert found == pytest.approx(dsr, rel=1e-9)


def test_the_deflated_ratio_of_one_trial_is_the_probabilistic_one() -> None:
    """Nothing was chosen; with more trials less is left."""
    one, ten = (metrics.performance(held(CLOSE), 252, trials) for trials in (1, 10))
    assert one["dsr"] == one["psr"]
    assert float(ten["dsr"] or 0) < float(one["psr"] or 0)


def test_the_track_record_of_the_paper() -> None:
    """SR 2 against 1, daily and normal: 2.73 years."""
    found = metrics.minimum_track_record(2 / math.sqrt(250), 1 / math.sqrt(250))
    assert found == pytest.approx(2.731187801728176 * 250, rel=1e-9)
    assert metrics.minimum_track_record(1.0, 1.0) is None


def test_a_loss_of_the_first_period_is_a_drawdown() -> None:
    """Of [-10 %, +5 %] it is -10 %: the capital that it began with counts."""
    equity = np.cumprod([100.0, 0.9, 1.05])
    assert metrics.max_drawdown(equity) == pytest.approx(-0.1, abs=1e-15)
    np.testing.assert_allclose(metrics.drawdowns(equity), [0, -0.1, -0.055], atol=1e-15)


def test_scales_leave_the_figures() -> None:
    """Golden: ten times the money changes no rate."""
    one, ten = (metrics.performance(scale * CLOSE, 252) for scale in (1.0, 10.0))
    for name, value in one.items():
        np.testing.assert_allclose(float(ten[name] or 0), float(value or 0), rtol=1e-9)


@pytest.mark.parametrize("equity", [[100.0], [100.0, 100.0], [100.0] * 50, [100.0, 110.0]])
def test_what_is_undefined_is_none(equity: list[float]) -> None:
    """Never 0, NaN or infinity; always flat is a return of 0 and a drawdown of 0."""
    found = metrics.performance(np.array(equity), 252)
    assert found["sharpe"] is found["psr"] is found["dsr"] is found["skewness"] is None
    assert found["max_drawdown"] == 0.0
    assert found["calmar"] is None
    assert found["sortino"] is None
    assert found["total_return"] == pytest.approx(equity[-1] / equity[0] - 1)
    for value in found.values():
        assert value is None or math.isfinite(value)


def test_a_ruined_book_has_no_growth() -> None:
    """Below zero there are no returns that could be annualised."""
    found = metrics.performance(np.array([100.0, 50.0, -20.0, -30.0]), 252)
    assert found["cagr"] is None
    assert found["total_return"] == -1.3
    assert found["sharpe"] is None


def test_no_loss_has_no_factor() -> None:
    """Profit factor and win rate of wins only, of zeros only, of nothing."""
    cases: list[tuple[list[float], Any, Any]] = [
        ([1.0, 2.0], None, 1.0),
        ([0.0, 0.0], None, None),
        ([], None, None),
        ([-1.0, 0.0, 3.0], 3.0, 0.5),
    ]
    for profits, factor, rate in cases:
        assert metrics.profit_factor(np.array(profits)) == factor
        assert metrics.win_rate(np.array(profits)) == rate


def test_turnover_is_by_year() -> None:
    """Twice the mean equity traded in half a year is 4 a year."""
    equity = np.full(127, 50.0)
    assert metrics.turnover(100.0, equity, 252) == pytest.approx(4.0)
    assert metrics.turnover(100.0, equity[:1], 252) is None


def test_trades_are_summed() -> None:
    """Counts and means of three trades."""
    profits, fees = np.array([3.0, -1.0, 0.0]), np.array([0.5, 0.25, 0.25])
    found = metrics.trading(profits, fees, np.full(3, 3_600_000_000_000))
    assert (found["trades"], found["wins"], found["losses"]) == (3, 1, 1)
    assert (found["profit"], found["fees"], found["mean_hours_held"]) == (2.0, 1.0, 1.0)
    assert (found["mean_win"], found["mean_loss"]) == (3.0, -1.0)
    nothing = metrics.trading(np.empty(0), np.empty(0), np.empty(0))
    assert nothing["mean_profit"] is nothing["mean_hours_held"] is None
