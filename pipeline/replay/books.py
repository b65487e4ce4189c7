"""A replay's books as one portfolio, its days, and what each regime brought."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet

from pipeline.replay import metrics
from pipeline.replay.trades import BOOK
from schemas.blocks import Array
from schemas.times import DAY

SESSIONS, DAYS = 252, 365
_WARMING: Final = "warming up"
_WEEK: Final = 7
_KEYS: Final = {"partition": "int64", "symbol": "str"}
_OPEN_DAYS: Final = 6  # a market that is open on more days of a week has no weekend


def table_of(directory: Path, stage: str, *columns: str) -> pd.DataFrame:
    """Columns of a stage of a replay, in the order of identity."""
    table = pyarrow.parquet.read_table(directory / f"{stage}.parquet", columns=list(columns))
    found: pd.DataFrame = table.to_pandas()
    return found


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The sum of all books on the clock of `equity`, and by days.

    `beats` are ts (ns), equity, gross (sum of |position x mark|); `days` the last of each UTC day,
    ts its end. A bar stamped with midnight ends the day before. A book stands at its first cash
    before its first row and at its last equity behind its last one.
    """

    capital: float
    books: int
    beats: pd.DataFrame
    days: pd.DataFrame

    @property
    def curve(self) -> Array:
        """Equity by days, shape (days + 1,), the capital first."""
        return np.append(self.capital, self.days["equity"].to_numpy())


def portfolio_of(equity: pd.DataFrame, cash: float) -> Portfolio:
    """The portfolio of books that began with `cash` each.

    Args:
        equity: rows of the stage, columns partition, symbol, ts, equity, position, mark.
        cash: what each of them began with.
    """
    books = equity.groupby(BOOK, sort=False).ngroups
    table = equity.assign(gross=(equity["position"] * equity["mark"]).abs())
    before = table.groupby(BOOK, sort=False)[["equity", "gross"]].shift()
    before = before.fillna({"equity": cash, "gross": 0.0})
    steps = (table[["equity", "gross"]] - before).assign(ts=table["ts"])
    beats = steps.groupby("ts", sort=True)[["equity", "gross"]].sum().cumsum()
    if books == 1:  # no sum, so no rounding of one
        beats = table.set_index("ts")[["equity", "gross"]]
    else:
        beats["equity"] += cash * books
    beats = beats.reset_index()
    return Portfolio(cash * books, books, beats, on_clock(beats, DAY))


def on_clock(beats: pd.DataFrame, period: int) -> pd.DataFrame:
    """The last beat of each period (ns) that has any, its `ts` the end of the period."""
    ends = -(-beats["ts"] // period) * period
    return beats.assign(ts=ends).groupby("ts", sort=True).last().reset_index()


def year_of(days: pd.DataFrame) -> int:
    """How many periods a year has: 365 of a market without weekends, else 252 sessions."""
    if not len(days):
        return SESSIONS
    span = int(days["ts"].iloc[-1] - days["ts"].iloc[0]) // DAY + 1
    return DAYS if span > _WEEK and len(days) / span > _OPEN_DAYS / _WEEK else SESSIONS


def exposure(fills: pd.DataFrame, first: int, last: int) -> float | None:
    """Share of the time between two stamps (ns) in which any book had a position."""
    if last <= first:
        return None
    spans: list[tuple[int, int]] = []
    for _, mine in fills.groupby(BOOK, sort=False):
        ends = [*mine["ts"].tolist()[1:], last]
        held = zip(mine["ts"].tolist(), ends, mine["position"].tolist(), strict=True)
        spans += [(start, end) for start, end, position in held if position != 0.0]
    covered, reached = 0, first
    for start, end in sorted(spans):
        low, high = max(start, reached), min(end, last)
        covered += max(0, high - low)
        reached = max(reached, high)
    return covered / (last - first)


def _tags(regimes: pd.DataFrame) -> pd.DataFrame:
    known = regimes["vol"].notna() & regimes["trend"].notna()
    words = regimes["vol"].astype(object) + ", " + regimes["trend"].astype(object)
    return regimes[[*BOOK, "ts"]].assign(regime=words.where(known, _WARMING))


def tagged(rows: pd.DataFrame, at: str, regimes: pd.DataFrame) -> pd.DataFrame:
    """Rows with the regime that was told at or before their column `at`."""
    if not len(rows) or not len(regimes):
        return rows.assign(regime=pd.Series(_WARMING, rows.index, dtype="str"))
    tags = _tags(regimes).sort_values("ts", kind="stable")
    tags = tags.rename(columns={"ts": "_known"}).astype(_KEYS)
    keyed = rows.astype(_KEYS).assign(_order=np.arange(len(rows)), _at=rows[at].astype("int64"))
    found = pd.merge_asof(
        keyed.sort_values("_at", kind="stable"), tags, left_on="_at", right_on="_known", by=BOOK
    )
    found = found.sort_values("_order", kind="stable", ignore_index=True)
    return found.assign(regime=found["regime"].fillna(_WARMING)).drop(
        columns=["_order", "_at", "_known"]
    )


def by_regime(
    equity: pd.DataFrame, trades: pd.DataFrame, regimes: pd.DataFrame, cash: float, year: int
) -> list[dict[str, Any]]:
    """Figures of each regime, one dictionary each, by its name.

    A step of a book's equity belongs to the regime that was told at the beat before; a day's return
    to that at its beginning; a trade to that of its decision. So no regime knows its own outcome.
    """
    steps = equity.assign(ts_before=equity.groupby(BOOK)["ts"].shift())
    steps["gain"] = steps["equity"] - steps.groupby(BOOK)["equity"].shift().fillna(cash)
    steps["ts_before"] = steps["ts_before"].fillna(-1)
    steps = tagged(steps, "ts_before", regimes)
    days = equity.assign(ts=-(-equity["ts"] // DAY) * DAY).groupby([*BOOK, "ts"]).last()
    days = days.reset_index()
    before = days.groupby(BOOK)["equity"].shift().fillna(cash)
    days["return"] = days["equity"] / before.where(before > 0) - 1.0
    days = tagged(days.assign(start=days["ts"] - DAY), "start", regimes)
    trades = tagged(trades, "decided", regimes)
    found = []
    for name in sorted({*steps["regime"], *trades["regime"]}):
        mine = trades[trades["regime"] == name]
        returns = days.loc[days["regime"] == name, "return"].to_numpy()
        beats = int((steps["regime"] == name).sum())
        found.append(
            {
                "regime": name,
                "share_of_time": beats / len(steps) if len(steps) else None,
                "gain": float(steps.loc[steps["regime"] == name, "gain"].sum()),
                "days": len(returns),
                "sharpe": metrics.sharpe(returns, year),
                "sortino": metrics.sortino(returns, year),
                "volatility": metrics.volatility(returns, year),
                "psr": metrics.psr(returns),
                **metrics.trading(
                    mine["profit"].to_numpy(float),
                    mine["fees"].to_numpy(float),
                    (mine["closed"] - mine["opened"]).to_numpy(float),
                ),
            }
        )
    return found
