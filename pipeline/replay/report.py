"""The report of a backtest: one HTML page that carries everything it shows and asks nobody."""

import html
import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pyarrow.compute as pc
import pyarrow.parquet
from plotly.subplots import make_subplots

from pipeline.replay import metrics
from pipeline.replay.backtest import Result
from pipeline.replay.books import table_of
from pipeline.replay.pages import (
    GREEN,
    GREY,
    INK,
    POINTS,
    RED,
    drawn,
    grid,
    inputs_of,
    moments,
    page,
    pairs,
    thinned,
)
from pipeline.replay.trades import BOOK

_BARS: Final = 600  # of the strip of regimes
_SHOWN: Final = 4  # symbols with a picture of their own, those with the most fills
_WINDOW: Final = 63  # days of the rolling Sharpe ratio: a quarter
_TAGS: Final = (
    "low, range",
    "low, trend",
    "mid, range",
    "mid, trend",
    "high, range",
    "high, trend",
)
_COLOURS: Final = ("#e3edf7", "#b9d3ea", "#fdf0d0", "#f6d98f", "#f7d4cf", "#e79a90")


def _equity(result: Result) -> str:
    beats = result.portfolio.beats
    if not len(beats):
        return "<p class=says>No bar closed, so there is no equity.</p>"
    curve = np.append(result.portfolio.capital, beats["equity"].to_numpy())
    fall = metrics.drawdowns(curve)[1:]
    kept = np.union1d(thinned(beats["equity"].to_numpy()), thinned(fall))
    at = moments(beats["ts"].to_numpy()[kept])
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3])
    equity = beats["equity"].to_numpy()[kept]
    figure.add_scatter(x=at, y=equity, name="equity", line={"color": INK}, row=1, col=1)
    figure.add_scatter(
        x=at, y=fall[kept], name="drawdown", fill="tozeroy", line={"color": RED}, row=2, col=1
    )
    figure.update_yaxes(tickformat=".1%", row=2, col=1)
    figure.update_yaxes(title="money", row=1, col=1)
    return drawn(figure, 460, "equity")


def _prices(result: Result) -> Iterable[str]:
    fills = table_of(
        result.directory, "fills", *BOOK, "ts", "side", "price", "quantity", "reason", "pnl"
    )
    bars = table_of(result.directory, "bars", *BOOK, "ts", "close")
    regimes = table_of(result.directory, "regimes", *BOOK, "ts", "vol", "trend")
    first = fills if len(fills) else bars
    most = first.groupby(BOOK).size().sort_values(ascending=False, kind="stable")
    for place, key in enumerate(most.index[:_SHOWN].tolist()):
        mine = [
            table[(table["partition"] == key[0]) & (table["symbol"] == key[1])]
            for table in (bars, fills, regimes)
        ]
        yield f"<h3>{html.escape(str(key[1]))}</h3>" + _price(f"price{place}", *mine)


def _price(name: str, bars: pd.DataFrame, fills: pd.DataFrame, regimes: pd.DataFrame) -> str:
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.88, 0.12])
    kept = thinned(bars["close"].to_numpy())
    figure.add_scatter(
        x=moments(bars["ts"].to_numpy()[kept]), y=bars["close"].to_numpy()[kept], name="close",
        line={"color": GREY, "width": 1}, row=1, col=1,
    )  # fmt: skip
    for side, mark, colour in (("buy", "triangle-up", GREEN), ("sell", "triangle-down", RED)):
        mine = fills[fills["side"] == side].iloc[-POINTS:]
        words = [f"{side} {q:,.6g} ({reason})" for q, reason in
                 zip(mine["quantity"], mine["reason"], strict=True)]  # fmt: skip
        figure.add_scatter(
            x=moments(mine["ts"].to_numpy()), y=mine["price"], name=side, mode="markers",
            text=words, marker={"symbol": mark, "size": 9, "color": colour}, row=1, col=1,
        )  # fmt: skip
    known = regimes[regimes["vol"].notna() & regimes["trend"].notna()]
    if len(known):
        tags = known["vol"].astype(str) + ", " + known["trend"].astype(str)
        code = tags.map({name: i for i, name in enumerate(_TAGS)}).to_numpy()
        at = np.unique(np.linspace(0, len(code) - 1, _BARS).astype(int))
        scale = [[(i + e) / len(_TAGS), c] for i, c in enumerate(_COLOURS) for e in (0, 1)]
        figure.add_heatmap(
            x=moments(known["ts"].to_numpy()[at]), y=["regime"], z=[code[at]], zmin=-0.5, zmax=5.5,
            colorscale=scale, customdata=[tags.to_numpy()[at]], name="regime", row=2, col=1,
            hovertemplate="%{customdata}",
            colorbar={"tickvals": list(range(6)), "ticktext": list(_TAGS), "len": 0.9, "y": 0.5},
        )  # fmt: skip
    return drawn(figure, 420, name)


def _rolling(result: Result) -> str:
    days = result.portfolio.days
    returns = pd.Series(metrics.returns_of(result.portfolio.curve))
    if len(returns) <= _WINDOW:
        return f"<p>It needs more than {_WINDOW} days; there are {len(returns)}.</p>"
    year = result.metrics["clock"]["periods_per_year"]
    window = returns.rolling(_WINDOW)
    spread = window.std()
    ratio = window.mean() / spread.where(spread > 0) * np.sqrt(year)
    figure = go.Figure()
    figure.add_scatter(x=moments(days["ts"]), y=ratio, name="Sharpe", line={"color": INK})
    return drawn(figure, 260, "rolling")


def months_of(result: Result) -> list[dict[str, Any]]:
    """The return of each month, one dictionary a year; a month that was not traded is missing."""
    days = result.portfolio.days
    if not len(days):
        return []
    # A day ends at midnight: its month is that of the moment before.
    at = pd.to_datetime(days["ts"] - 1, unit="ns", utc=True)
    months = days.groupby([at.dt.year, at.dt.month])["equity"].last()
    before = months.shift().fillna(result.portfolio.capital)
    rates = (months / before.where(before > 0) - 1.0).tolist()
    moments = zip(months.index.get_level_values(0), months.index.get_level_values(1), strict=True)
    change = dict(zip(((int(y), int(m)) for y, m in moments), rates, strict=True))
    years = sorted({year for year, _ in change})
    return [
        {
            "year": str(year),
            **{name: change.get((year, m)) for m, name in enumerate(_MONTHS, 1)},
            "all": _compounded([change[key] for key in sorted(change) if key[0] == year]),
        }
        for year in years
    ]


_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
)  # fmt: skip


def _compounded(changes: list[float]) -> float:
    return float(np.prod([1.0 + change for change in changes]) - 1.0)


def _monthly(result: Result) -> str:
    names = (*_MONTHS, "all")
    head = "".join(f"<th>{name}</th>" for name in ("year", *names))
    body = ""
    for row in months_of(result):
        cells = ""
        for name in names:
            value = row[name]
            if value is None or not np.isfinite(value):
                cells += "<td></td>"
                continue
            colour = "46,125,85" if value >= 0 else "178,58,72"
            shade = min(abs(value) / 0.1, 1.0) * 0.6
            cells += f'<td style="background:rgba({colour},{shade:.2f})">{value:.1%}</td>'
        body += f"<tr><th>{row['year']}</th>{cells}</tr>"
    return f"<table class=grid><tr>{head}</tr>{body}</table>"


def _calibration(result: Result) -> str:
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], name="as it should be", line={"color": GREY, "dash": "dot"}
    )
    any_bin = False
    for name, found in result.metrics["engines"].items():
        bins = found.get("bins", [])
        any_bin = any_bin or bool(bins)
        figure.add_scatter(
            x=[one["p"] for one in bins], y=[one["rose"] for one in bins], name=name,
            mode="lines+markers", text=[f"{one['n']:,} times" for one in bins],
        )  # fmt: skip
    if not any_bin:
        return "<p>No label has matured.</p>"
    figure.update_xaxes(title="probability that was said", range=[0, 1])
    figure.update_yaxes(title="share that rose", range=[0, 1])
    return drawn(figure, 380, "calibration")


def _quality(result: Result) -> str:
    manifest = result.manifest
    facts: dict[str, Any] = {f"{stage}_rows": n for stage, n in manifest["rows"].items()}
    facts |= {f"rejected_{reason}": n for reason, n in manifest["rejected"].items()}
    facts |= dict.fromkeys(("quarantined", "stale", "ids_missing"), 0)
    ticks = pyarrow.parquet.ParquetFile(result.directory / "ticks.parquet")
    for part in ticks.iter_batches(columns=["flag", "stale", "gap"]):
        facts["quarantined"] += pc.sum(pc.equal(part["flag"], "quarantined")).as_py() or 0
        facts["stale"] += pc.sum(part["stale"]).as_py() or 0
        facts["ids_missing"] += pc.sum(part["gap"]).as_py() or 0
    facts["prices_refused_by_fills"] = result.metrics["trading"]["refused_prices"]
    return pairs(facts)


def report(result: Result) -> str:
    """The page as text."""
    found = result.metrics
    engines = [{"engine": name, **one} for name, one in found["engines"].items()]
    values = {
        "warnings": "".join(f"<li>{html.escape(text)}</li>" for text in found["warnings"]),
        "performance": pairs(
            {
                "capital": f"{found['capital']:,.2f}",
                "final_equity": f"{found['final_equity']:,.2f}",
                **found["performance"],
                "buy and hold": _held(found["buy_and_hold"]),
            }
        ),
        "trading": pairs(found["trading"]),
        "equity": _equity(result),
        "prices": "".join(_prices(result)),
        "rolling": _rolling(result),
        "monthly": _monthly(result),
        "regimes": grid(
            found["regimes"],
            ("regime", "share_of_time", "gain", "days", "sharpe", "sortino", "psr", "trades",
             "win_rate", "profit_factor", "profit"),
        ),
        "engines": grid(
            engines,
            ("engine", "horizon", "n", "log_loss", "log_loss_less_null", "brier", "auc", "hit_rate",
             "hit_rate_95", "ece"),
        ),
        "alone": _alone(result),
        "calibration": _calibration(result),
        "quality": _quality(result),
        "manifest": html.escape(json.dumps(result.manifest, indent=1)),
        "year": str(found["clock"]["periods_per_year"]),
    }  # fmt: skip
    return page("report.html", f"Backtest of {html.escape(inputs_of(result.manifest))}", values)


def _alone(result: Result) -> str:
    rows = []
    for name, one in result.metrics["engines"].items():
        apart = one["alone"]
        if apart is not None:
            rows.append({"engine": name, **apart["trading"], **apart["performance"]})
    if not rows:
        return "<p>No engine was traded alone.</p>"
    return grid(
        rows,
        ("engine", "total_return", "sharpe", "sortino", "max_drawdown", "psr", "dsr", "trades",
         "win_rate", "profit_factor", "turnover", "exposure", "all_fees"),
    )  # fmt: skip


def _held(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"
