"""Figures of books beyond their curve: how they traded, what was held, what engines said."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from pipeline.models import scoring
from pipeline.replay import metrics
from pipeline.replay.books import Portfolio, exposure
from pipeline.replay.trades import BOOK
from schemas.blocks import Array, names_of

# What is read of each stage.
EQUITY: Final = (*BOOK, "ts", "position", "mark", "equity", "fees", "traded", "refused")
FILLS: Final = (
    *BOOK, "ts", "decided_ts", "side", "reason", "quantity", "price", "fee", "slippage", "pnl",
    "position",
)  # fmt: skip
HELD: Final = (*BOOK, "life", "close", "scale")
NULL_ENGINE: Final = "p_base_rate"
COMBINED: Final = "combined"
P_UP: Final = "p_up"


def said() -> tuple[str, ...]:
    """The columns of `predictions` that are scored: the horizon and each engine's probability."""
    return ("horizon", *(name for name in names_of("predictions") if name.startswith("p_")))


def name_of(column: str) -> str:
    """The engine whose probability a column of `predictions` holds."""
    return COMBINED if column == P_UP else column.removeprefix("p_")


def trading(
    portfolio: Portfolio,
    curve: Array,
    equity: pd.DataFrame,
    fills: pd.DataFrame,
    trades: pd.DataFrame,
    year: float,
) -> dict[str, Any]:
    """How the books traded: round trips, costs, and how much of the money was at work.

    Args:
        portfolio: the sum of the books.
        curve: its equity on the clock of the returns, shape (n + 1,).
        equity: rows of the stage with the columns EQUITY.
        fills: rows of the stage with the columns FILLS.
        trades: what `round_trips` makes of them.
        year: how many periods of that clock make a year.
    """
    last = equity.groupby(BOOK).last()
    return {
        **metrics.trading(
            trades["profit"].to_numpy(float),
            trades["fees"].to_numpy(float),
            (trades["closed"] - trades["opened"]).to_numpy(float),
        ),
        "fills": len(fills),
        "all_fees": float(last["fees"].sum()),
        "all_slippage": float(fills["slippage"].sum()),
        "open_profit": float(curve[-1] - portfolio.capital - fills["pnl"].sum()),
        "refused_prices": int(last["refused"].sum()),
        **_use(portfolio, curve, fills, float(last["traded"].sum()), year),
    }


def _use(
    portfolio: Portfolio, curve: Array, fills: pd.DataFrame, traded: float, year: float
) -> dict[str, float | None]:
    beats = portfolio.beats
    if not len(beats):
        return {"turnover": None, "exposure": None, "gross_leverage": None}
    leverage = (beats["gross"] / beats["equity"].where(beats["equity"] > 0)).mean()
    return {
        "turnover": metrics.turnover(traded, curve, year),
        "exposure": exposure(fills, int(beats["ts"].iloc[0]), int(beats["ts"].iloc[-1])),
        "gross_leverage": float(leverage) if np.isfinite(leverage) else None,
    }


def held(bars: pd.DataFrame) -> float | None:
    """Mean over the symbols of last close / first close - 1, in the units of one scale."""
    level = bars["close"] / bars["scale"]
    ends = level.groupby([bars[name] for name in (*BOOK, "life")]).agg(["first", "last"])
    found = float((ends["last"] / ends["first"] - 1.0).mean()) if len(ends) else np.nan
    return found if np.isfinite(found) else None


def outcomes(bars: pd.DataFrame, horizon: int) -> tuple[Array, Array]:
    """Of each bar whether it is known what came at the horizon, and whether the close had risen.

    An unchanged close is no outcome.

    Args:
        bars: rows of the stage with the columns HELD, in the order of identity.
        horizon: bars.
    """
    level = bars["close"] / bars["scale"]
    groups = [bars[name] for name in (*BOOK, "life")]
    later = level.groupby(groups, sort=False).shift(-horizon)
    return (later.notna() & (later != level)).to_numpy(), (later > level).to_numpy()


def engines(bars: pd.DataFrame, predictions: pd.DataFrame) -> Mapping[str, Any]:
    """Scores of each engine on labels that have matured, by name; the null engine among them.

    Args:
        bars: rows of the stage with the columns HELD.
        predictions: the row of each of those bars, columns `said()`.
    """
    if not len(predictions):
        return {}
    horizon = int(predictions["horizon"].iloc[0])
    told, rose = outcomes(bars, horizon)
    rose = rose[told]
    null = predictions[NULL_ENGINE].to_numpy()[told]
    return {
        name_of(name): {
            "horizon": horizon,
            **scoring.scores(predictions[name].to_numpy()[told], rose, null, horizon),
        }
        for name in said()[1:]
    }
