"""Figures of a backtest, one definition each (QUANT.md 4.1, 4.2); what is undefined is None.

Equity is float64 of shape (n + 1,) on a fixed clock, the capital that it began with first; returns
are its n ratios less one. `year` is how many periods of that clock make a year (252 sessions, 365
days, 52 weeks). Rates are fractions, not percent. No function raises on short or flat input.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Final

import numpy as np

from schemas.blocks import Array

Figure = float | None
_NORMAL: Final = NormalDist()
_EULER: Final = 0.5772156649015329
_NORMAL_KURTOSIS: Final = 3.0


def returns_of(equity: Array) -> Array:
    """r_k = E_k / E_(k-1) - 1, shape (n,); from where the capital is gone, NaN."""
    before = np.where(equity[:-1] > 0.0, equity[:-1], np.nan)
    found: Array = equity[1:] / before - 1.0
    return found


def _finite(value: float) -> Figure:
    return float(value) if math.isfinite(value) else None


def _ratio(above: float, below: float) -> Figure:
    return _finite(above / below) if below != 0.0 else None


def _spread(returns: Array) -> float:
    """Standard deviation, ddof 1; 0 where all are equal, whatever the rounding of their mean."""
    return 0.0 if np.ptp(returns) == 0.0 else float(returns.std(ddof=1))


def total_return(equity: Array) -> Figure:
    """E_n / E_0 - 1."""
    return _ratio(float(equity[-1] - equity[0]), float(equity[0]))


def cagr(equity: Array, year: float) -> Figure:
    """(E_n / E_0) ^ (year / n) - 1."""
    n = len(equity) - 1
    if n < 1 or equity[0] <= 0.0 or equity[-1] <= 0.0:
        return None
    growth = math.log(float(equity[-1] / equity[0])) * year / n
    return _finite(math.expm1(growth)) if growth < math.log(1e300) else None


def volatility(returns: Array, year: float) -> Figure:
    """Standard deviation (ddof 1) times the root of the year."""
    return _finite(_spread(returns) * math.sqrt(year)) if len(returns) > 1 else None


def sharpe(returns: Array, year: float) -> Figure:
    """Mean / standard deviation (ddof 1) times the root of the year."""
    if len(returns) < 2:  # noqa: PLR2004 -- no spread of one
        return None
    return _ratio(float(returns.mean()) * math.sqrt(year), _spread(returns))


def sortino(returns: Array, year: float) -> Figure:
    """Mean x year / (root mean square of min(r, 0) x root of the year)."""
    if not len(returns):
        return None
    down = math.sqrt(float((np.minimum(returns, 0.0) ** 2).mean()))
    return _ratio(float(returns.mean()) * year, down * math.sqrt(year))


def drawdowns(equity: Array) -> Array:
    """E / highest E so far - 1, shape (n + 1,); the first capital counts as a height."""
    found: Array = equity / np.maximum.accumulate(equity) - 1.0
    return found


def max_drawdown(equity: Array) -> Figure:
    """The lowest of the drawdowns, 0 or less."""
    return _finite(float(drawdowns(equity).min())) if equity[0] > 0.0 else None


def calmar(equity: Array, year: float) -> Figure:
    """CAGR / |max drawdown|."""
    growth, fall = cagr(equity, year), max_drawdown(equity)
    return None if growth is None or fall is None else _ratio(growth, abs(fall))


def win_rate(profits: Array) -> Figure:
    """Wins / (wins + losses) of closed trades; a profit of zero is neither."""
    wins, losses = int((profits > 0.0).sum()), int((profits < 0.0).sum())
    return _ratio(wins, wins + losses)


def profit_factor(profits: Array) -> Figure:
    """Gross win / gross loss; None without a loss."""
    return _ratio(float(profits[profits > 0.0].sum()), float(-profits[profits < 0.0].sum()))


def turnover(traded: float, equity: Array, year: float) -> Figure:
    """Sum of |trade value| / mean equity, a year."""
    years = (len(equity) - 1) / year
    return _ratio(traded, float(equity.mean()) * years)


def skewness(returns: Array) -> Figure:
    """Third standardised moment of the sample (ddof 0)."""
    return _standardised(returns, 3)


def kurtosis(returns: Array) -> Figure:
    """Fourth standardised moment of the sample (ddof 0): 3 for the normal distribution."""
    return _standardised(returns, 4)


def _standardised(returns: Array, power: int) -> Figure:
    if len(returns) < 2 or np.ptp(returns) == 0.0:  # noqa: PLR2004 -- no spread of one
        return None
    away = returns - returns.mean()
    return _ratio(float((away**power).mean()), float((away**2).mean()) ** (power / 2))


def probabilistic_sharpe(
    ratio: float, n: int, skew: float, kurt: float, benchmark: float = 0.0
) -> Figure:
    """PSR: how probably the true Sharpe ratio is above the benchmark, both per period.

    Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)), g4 the raw kurtosis
    (Bailey and Lopez de Prado 2012).
    """
    variance = 1.0 - skew * ratio + (kurt - 1.0) / 4.0 * ratio * ratio
    if n < 2 or variance <= 0.0:  # noqa: PLR2004 -- no spread of one
        return None
    return _NORMAL.cdf((ratio - benchmark) * math.sqrt(n - 1) / math.sqrt(variance))


def psr(returns: Array, benchmark: float = 0.0) -> Figure:
    """`probabilistic_sharpe` of returns, with their own skewness and kurtosis."""
    ratio = sharpe(returns, 1.0)
    if ratio is None:
        return None
    skew, kurt = skewness(returns) or 0.0, kurtosis(returns) or _NORMAL_KURTOSIS
    return probabilistic_sharpe(ratio, len(returns), skew, kurt, benchmark)


def expected_best_sharpe(variance: float, trials: int) -> float:
    """SR*: what the best of so many trials without skill is expected to show, per period.

    sqrt(V) ((1 - g) Z(1 - 1/N) + g Z(1 - 1/(N e))), V the variance of their Sharpe ratios; 0 for a
    single trial (Bailey and Lopez de Prado 2014).
    """
    if trials < 2:  # noqa: PLR2004 -- one trial is no choice
        return 0.0
    first = _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    second = _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * ((1.0 - _EULER) * first + _EULER * second)


def minimum_track_record(
    ratio: float, benchmark: float, skew: float = 0.0, kurt: float = 3.0, alpha: float = 0.05
) -> Figure:
    """How many periods it takes until the PSR against the benchmark is 1 - alpha (MinTRL)."""
    if ratio <= benchmark:
        return None
    variance = 1.0 - skew * ratio + (kurt - 1.0) / 4.0 * ratio * ratio
    return 1.0 + variance * (_NORMAL.inv_cdf(1.0 - alpha) / (ratio - benchmark)) ** 2


def performance(
    equity: Array, year: float, trials: int = 1, trials_variance: float | None = None
) -> dict[str, Figure]:
    """Every figure of an equity curve by name.

    `trials` is how many runs this one was chosen from, `trials_variance` the variance of their
    Sharpe ratios per period; without it, that of an estimated ratio without skill, 1 / (n - 1).
    """
    returns = returns_of(equity)
    found: dict[str, Figure] = {
        "total_return": total_return(equity),
        "cagr": cagr(equity, year),
        "volatility": volatility(returns, year),
        "sharpe": sharpe(returns, year),
        "sortino": sortino(returns, year),
        "max_drawdown": max_drawdown(equity),
        "calmar": calmar(equity, year),
        "skewness": skewness(returns),
        "kurtosis": kurtosis(returns),
        "psr": psr(returns),
        "dsr": None,
    }
    n = len(returns)
    if n > 1:
        variance = 1.0 / (n - 1) if trials_variance is None else trials_variance
        found["dsr"] = psr(returns, expected_best_sharpe(variance, trials))
    return found


def trading(profits: Array, fees: Array, held: Array) -> Mapping[str, Figure | int]:
    """Figures of closed trades: profits and fees in money, shape (n,), and ns held."""
    n = len(profits)
    wins, losses = profits[profits > 0.0], profits[profits < 0.0]
    return {
        "trades": n,
        "wins": len(wins),
        "losses": len(losses),
        "win_rate": win_rate(profits),
        "profit_factor": profit_factor(profits),
        "profit": float(profits.sum()),
        "mean_profit": float(profits.mean()) if n else None,
        "mean_win": float(wins.mean()) if len(wins) else None,
        "mean_loss": float(losses.mean()) if len(losses) else None,
        "fees": float(fees.sum()),
        "mean_hours_held": float(held.mean()) / 3.6e12 if n else None,
    }
