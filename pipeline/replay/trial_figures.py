"""The figures of one window of a run, flat, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from pipeline.models.purging import purged
from pipeline.replay import metrics
from pipeline.replay.books import on_clock, portfolio_of
from pipeline.replay.figures import (
    COMBINED,
    EQUITY,
    FILLS,
    HELD,
    engines,
    held,
    said,
    trading,
)
from pipeline.replay.splits import Window
from pipeline.replay.trades import BOOK, round_trips
from pipeline.stages.chain import ChainSettings
from pipeline.stages.fills import FillsSettings
from schemas.blocks import COLUMNS, Array, Column, Rows, dtype_of

STAGES_READ: Final = ("bars", "predictions", "fills", "equity")
SCORES: Final = ("log_loss", "log_loss_less_null", "brier", "auc", "hit_rate")
# Figures that a choice may go by, and whether more is better.
BETTER: Final[Mapping[str, bool]] = {
    "sharpe": True, "total_return": True, "cagr": True, "sortino": True, "calmar": True,
    "max_drawdown": True, "psr": True, "volatility": False, "profit": True, "win_rate": True,
    "profit_factor": True, "mean_profit": True, "turnover": False, "log_loss": False,
    "log_loss_less_null": False, "brier": False, "auc": True, "hit_rate": True,
}  # fmt: skip
_BP: Final = 1e-4
_NEVER: Final = 2**63 - 1
_APART: Final = 1_000_000  # more than a topic has partitions


@dataclass(frozen=True, slots=True)
class Outcome:
    """A window's figures, null where undefined, and its equity on the clock of the returns.

    `ts` (ns) are ends of periods and `equity` what the books then had, both of shape (n,); the
    capital that they began with is not among them.
    """

    figures: Mapping[str, Any]
    ts: Sequence[int]
    equity: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows of a window without a hole, and which of its bars count: kept, and scored."""

    bars: pd.DataFrame
    predictions: pd.DataFrame
    equity: pd.DataFrame
    fills: pd.DataFrame
    kept: "pd.Series[bool]"
    scored: "pd.Series[bool]"


def _span(parts: Sequence[Mapping[str, Rows]], window: Window, horizon: int) -> _Span:
    bars = table_of(parts, "bars", (*HELD, "ts"))
    predictions = table_of(parts, "predictions", said())
    equity = table_of(parts, "equity", EQUITY)
    fills = table_of(parts, "fills", FILLS)
    scored = pd.Series(data=True, index=bars.index)
    kept = scored
    if window.left_out and window.end is not None:
        kept = _teaching(bars, window.end, window.left_out)
        scored = _teaching(bars, window.end, max(window.left_out - horizon, 0))
        last = bars[kept].groupby(BOOK, sort=False)["ts"].max()
        equity, fills = _up_to(equity, last), _up_to(fills, last)
    if window.skipped:
        kept = scored = bars.groupby(BOOK, sort=False).cumcount() >= window.skipped
        first = bars[kept].groupby(BOOK, sort=False)["ts"].min()
        equity, fills = _from(equity, first), _from(fills, first)
    return _Span(bars, predictions, equity, fills, kept, scored)


def _together(spans: Sequence[_Span]) -> _Span:
    """Books of several spans side by side, as if each span were a partition of its own."""
    if len(spans) == 1:
        return spans[0]
    joined = {
        name: pd.concat(
            [
                table.assign(partition=table["partition"] + place * _APART)
                if "partition" in table
                else table
                for place, table in enumerate(getattr(span, name) for span in spans)
            ],
            ignore_index=True,
        )
        for name in ("bars", "predictions", "equity", "fills")
    }
    kept, scored = (
        pd.concat([getattr(span, name) for span in spans], ignore_index=True)
        for name in ("kept", "scored")
    )
    return _Span(**joined, kept=kept, scored=scored)


def outcome(
    parts: Mapping[Window, Sequence[Mapping[str, Rows]]],
    settings: ChainSettings,
    period: int,
    year: float,
) -> Outcome:
    """The figures of a window, from the rows that a chain made in each of its spans.

    What is left out before an end is left out of every figure: for returns, trades and what was
    held the bars themselves, for scores the labels that reach beyond them. So are skipped bars
    behind a start. Of a window with a hole, where books stand on while others have not begun, there
    is neither exposure nor leverage.
    """
    horizon = settings.predictions.horizon
    whole = _together([_span(some, window, horizon) for window, some in parts.items()])
    bars, predictions, equity, fills = whole.bars, whole.predictions, whole.equity, whole.fills
    kept, scored = whole.kept, whole.scored
    cash = float(settings.fills.cash)
    portfolio = portfolio_of(equity, cash)
    clock = on_clock(portfolio.beats, period)
    curve = np.append(portfolio.capital, clock["equity"].to_numpy())
    performance = metrics.performance(curve, year) if portfolio.books else {}
    trades = round_trips(fills)
    combined = engines(bars[scored], predictions[scored]).get(COMBINED, {})
    figures = {
        "bars": int(kept.sum()),
        "books": portfolio.books,
        "capital": portfolio.capital,
        "final_equity": float(curve[-1]),
        "periods": len(clock),
        "sharpe_per_period": metrics.sharpe(metrics.returns_of(curve), 1.0),
        **{name: performance.get(name) for name in _PERFORMANCE},
        **trading(portfolio, curve, equity, fills, trades, year),
        **(dict.fromkeys(("exposure", "gross_leverage")) if len(parts) > 1 else {}),
        "closing_cost": closing_cost(equity, settings.fills),
        "buy_and_hold": held(bars[kept]),
        **{name: combined.get(name) for name in SCORES},
    }
    return Outcome(
        {name: _plain(value) for name, value in figures.items()},
        clock["ts"].tolist(),
        clock["equity"].tolist(),
    )


_PERFORMANCE: Final = tuple(
    name for name in metrics.performance(np.array([1.0, 1.0]), 1.0) if name != "dsr"
)


def _teaching(bars: pd.DataFrame, end: int, left_out: int) -> "pd.Series[bool]":
    """Which bars of each book are far enough before the end."""
    found = np.zeros(len(bars), np.bool_)
    for at in bars.groupby(BOOK, sort=False).indices.values():
        found[at] = purged(bars["ts"].to_numpy()[at], end, None, left_out, 0)
    return pd.Series(found, bars.index)


def _up_to(rows: pd.DataFrame, last: "pd.Series[int]") -> pd.DataFrame:
    """Rows of each book up to a time of its own; of a book without one, none."""
    return rows[rows["ts"].to_numpy() <= _each(rows, last, -1)].reset_index(drop=True)


def _from(rows: pd.DataFrame, first: "pd.Series[int]") -> pd.DataFrame:
    """Rows of each book from a time of its own on; of a book without one, none."""
    return rows[rows["ts"].to_numpy() >= _each(rows, first, _NEVER)].reset_index(drop=True)


def _each(rows: pd.DataFrame, times: "pd.Series[int]", otherwise: int) -> Array:
    """For each row the time of its book, int64 (n,)."""
    books = pd.MultiIndex.from_frame(rows[BOOK])
    found: Array = times.reindex(books, fill_value=otherwise).to_numpy(np.int64)
    return found


def closing_cost(equity: pd.DataFrame, settings: FillsSettings) -> float:
    """What selling all that is still held would cost: fees, slippage and half the spread."""
    last = equity.groupby(BOOK, sort=False)[["position", "mark"]].last()
    units = last["position"].abs()
    value = units * last["mark"].abs()
    taker = settings.liquidity == "taker"
    fee_bp = settings.taker_bp if taker else settings.maker_bp
    fees = (value * fee_bp * _BP + units * settings.fee_per_unit).clip(lower=settings.fee_minimum)
    slipped = value * (settings.slippage_bp + settings.half_spread_bp) * _BP
    return float((fees + slipped)[units > 0].sum())


def table_of(parts: Sequence[Mapping[str, Rows]], stage: str, names: Sequence[str]) -> pd.DataFrame:
    """Columns of a stage as a replay's Parquet file gives them, the parts one after another."""
    kinds = {column.name: column for column in COLUMNS[stage]}
    found: dict[str, Any] = {}
    for name in names:
        column = kinds[name]
        if column.kind in {"symbol", "label"}:
            words = [_words(part[stage], column) for part in parts]
            whole = np.concatenate(words) if words else np.empty(0, object)
            found[name] = pd.array(whole, dtype="str")
        else:
            values = [part[stage][name] for part in parts]
            found[name] = np.concatenate(values) if values else np.empty(0, dtype_of(column))
    return pd.DataFrame(found)


def _words(rows: Rows, column: Column) -> Array:
    words = rows.symbols if column.kind == "symbol" else column.labels
    found: Array = np.array([*words, None], object)[rows[column.name]]  # the code of null is -1
    return found


def _plain(value: Any) -> Any:
    """A figure as JSON and Parquet hold it: no NaN, no infinity, no numpy."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
