"""Backtest: a replay with figures, trades and a report beside its stages (DESIGN.md 5)."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from pipeline.disk import MANIFEST, digest, unwritable, write_whole
from pipeline.replay import metrics
from pipeline.replay.alone import Traded, alone
from pipeline.replay.books import Portfolio, by_regime, portfolio_of, table_of, year_of
from pipeline.replay.figures import EQUITY, FILLS, HELD, engines, held, said, trading
from pipeline.replay.output import check_replaceable, put
from pipeline.replay.trades import BOOK, round_trips

METRICS: Final = "metrics.json"
TRADES: Final = "trades.parquet"
REPORT: Final = "report.html"
_SUSPICIOUS: Final = 5.0  # a Sharpe ratio that no honest engine has shown (QUANT.md 4.4)


@dataclass(frozen=True, slots=True)
class Result:
    """What a backtest found: its figures as they are written, and the tables behind them."""

    directory: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    portfolio: Portfolio
    trades: pd.DataFrame


Draw = Callable[[Result], str]


def backtest(
    out: Path,
    replay: Callable[[Path], Mapping[str, Any]],
    draw: Draw,
    *,
    trials: int = 1,
    year: int | None = None,
) -> Mapping[str, Any]:
    """Replay into a directory, add figures, trades and the report, and put it under its name.

    Args:
        out: the directory that appears when all of it is there.
        replay: writes the stages into the directory it is given, returns the manifest.
        draw: makes the report's text.
        trials: how many runs this one was chosen from, for the deflated Sharpe ratio.
        year: periods of a year; None: 252, or 365 where there are no weekends.

    Returns the figures.

    Raises:
        MisuseError: `out` is something else already, or what `replay` raises.
    """
    out = out.resolve()
    check_replaceable(out)
    partial = out.parent / f".{out.name}.backtest"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        manifest = dict(replay(partial))
        result = analyse(partial, manifest, trials=trials, year=year)
        trades = pa.Table.from_pandas(result.trades, preserve_index=False)
        try:
            pa.parquet.write_table(trades, partial / TRADES, compression="zstd")
        except OSError as error:
            raise unwritable(out / TRADES, error) from error
        write_whole(partial / METRICS, json.dumps(result.metrics, indent=1) + "\n")
        write_whole(partial / REPORT, draw(result))
        added = {name: digest(partial / name) for name in (METRICS, TRADES, REPORT)}
        manifest["sha256"] = {**manifest["sha256"], **added}
        write_whole(partial / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        put(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result.metrics


def analyse(
    directory: Path, manifest: Mapping[str, Any], *, trials: int = 1, year: int | None = None
) -> Result:
    """The figures of a replay's directory. Memory: the columns that are read, not the stages."""
    book = manifest["settings"]["fills"]
    cash = float(book["cash"])
    equity = table_of(directory, "equity", *EQUITY)
    fills = table_of(directory, "fills", *FILLS)
    regimes = table_of(directory, "regimes", *BOOK, "ts", "vol", "trend")
    bars = table_of(directory, "bars", *HELD)
    predictions = table_of(directory, "predictions", *said())
    portfolio = portfolio_of(equity, cash)
    year = year_of(portfolio.days) if year is None else year
    trades = round_trips(fills)
    curve = portfolio.curve
    figures: dict[str, Any] = {
        "clock": {"period": "day", "periods_per_year": year, "periods": len(curve) - 1},
        "capital": portfolio.capital,
        "books": portfolio.books,
        "final_equity": float(curve[-1]),
        "trials": trials,
        "performance": metrics.performance(curve, year, trials) if portfolio.books else {},
        "trading": trading(portfolio, curve, equity, fills, trades, year),
        "buy_and_hold": held(bars),
        "regimes": by_regime(equity, trades, regimes, cash, year),
    }
    apart = alone(directory, manifest, equity)
    scored = engines(bars, predictions)
    figures["engines"] = {
        name: {**scores, "alone": apart and _alone(apart[name], cash, year, trials)}
        for name, scores in scored.items()
    }
    research = book["mode"] == "close"
    figures["research_only"] = research
    figures["warnings"] = _warnings(figures, research=research)
    if scored and apart is None:
        figures["warnings"].append("an instrument changed its symbol: no engine is traded alone")
    return Result(directory, manifest, figures, portfolio, trades)


def _alone(traded: Traded, cash: float, year: int, trials: int) -> dict[str, Any]:
    """The figures of QUANT.md 4.1 for one engine's books."""
    portfolio = portfolio_of(traded.equity, cash)
    curve, trades = portfolio.curve, round_trips(traded.fills)
    return {
        "final_equity": float(curve[-1]),
        "performance": metrics.performance(curve, year, trials) if portfolio.books else {},
        "trading": trading(portfolio, curve, traded.equity, traded.fills, trades, year),
    }


def _warnings(figures: Mapping[str, Any], *, research: bool) -> list[str]:
    found = []
    if research:
        found.append("fills.mode close trades at the price that was decided on: research only")
    ratio = figures["performance"].get("sharpe")
    if ratio is not None and ratio > _SUSPICIOUS:
        found.append(f"a Sharpe ratio of {ratio:.1f}: look for a leak before believing it")
    if figures["trials"] == 1:
        found.append("DSR counts one trial: say with --trials how many runs this was chosen from")
    if figures["clock"]["periods"] < figures["clock"]["periods_per_year"]:
        found.append(f"only {figures['clock']['periods']} days: yearly figures mean little")
    return found
