"""How the engines did on stored bars of one symbol, by period and by regime."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from pipeline.models.scoring import scores
from pipeline.replay.figures import HELD, NULL_ENGINE, name_of, outcomes, said
from pipeline.store import history
from pipeline.store.pool import Pool
from pipeline.store.reads import EARLIEST, LAST, LATEST
from schemas.blocks import IDENTITY

MOST_BARS: Final = 20_000
_PLACE: Final = [column.name for column in IDENTITY]
_TAGS: Final = ["vol", "trend"]
Row = dict[str, Any]


def engine_names() -> tuple[str, ...]:
    """The combined prediction, then each engine, as they are called everywhere."""
    return tuple(name_of(column) for column in said()[1:])


async def stored_scores(
    pool: Pool,
    symbol: str,
    start: int | None = None,
    end: int | None = None,
    *,
    period: int | None = None,
    by_regime: bool = False,
) -> list[Row]:
    """Scores of every engine on the last 20,000 bars with start <= ts < end (ns).

    Only labels that have matured within these bars count. One row for each engine and, when asked
    for, each period (ns) in which bars ended and each pair of regime tags; the figures are those
    of `pipeline.models.scoring.scores` without the bins.

    Raises:
        UnavailableError: Postgres does not answer.
        StateError: the database has not the tables of this version.
    """
    bars = await _frame(pool, "bars", symbol, (start, end), [*HELD])
    if not len(bars):
        return []
    bounds = int(bars["ts"].min()), int(bars["ts"].max()) + 1
    told = await _frame(pool, "predictions", symbol, bounds, [*said()])
    tags = await _frame(pool, "regimes", symbol, bounds, _TAGS) if by_regime else None
    return await asyncio.to_thread(_scored, bars, told, tags, period)


async def _frame(
    pool: Pool,
    stage: str,
    symbol: str,
    bounds: tuple[int | None, int | None],
    columns: Sequence[str],
) -> pd.DataFrame:
    """The last rows of a range with these columns, in the order of identity."""
    start, end = bounds
    names = tuple(dict.fromkeys([*_PLACE, "ts", *columns]))
    rows = await history.read(
        pool,
        stage,
        symbol,
        EARLIEST + 1 if start is None else start,
        LATEST if end is None else end,
        MOST_BARS,
        before=LAST,
        columns=names,
    )
    return pd.DataFrame.from_records(rows, columns=list(names)).sort_values(_PLACE)


def _scored(
    bars: pd.DataFrame, told: pd.DataFrame, tags: pd.DataFrame | None, period: int | None
) -> list[Row]:
    columns = said()
    joined = bars.merge(told[[*_PLACE, *columns]], on=_PLACE, how="left")
    for name in _TAGS:
        joined[name] = None
    if tags is not None:
        joined = joined.drop(columns=_TAGS).merge(tags[[*_PLACE, *_TAGS]], on=_PLACE, how="left")
    horizons = joined["horizon"].dropna()
    if not len(horizons):
        return []
    horizon = int(horizons.iloc[0])
    known, rose = outcomes(joined, horizon)
    joined["rose"] = rose
    # A bar bears the time of its end: one that ends with a period belongs to it.
    joined["_period"] = 0 if period is None else (joined["ts"] - 1) // period
    groups = joined[known].groupby(["_period", *_TAGS], dropna=False, sort=True)
    return [
        {"horizon": horizon, **_labels(rows), "engine": name_of(column), **_figures(rows, column)}
        for _, rows in groups
        for column in columns[1:]
    ]


def _labels(rows: pd.DataFrame) -> Row:
    found: Row = {"start": int(rows["ts"].min()), "end": int(rows["ts"].max())}
    for name in _TAGS:
        value = rows[name].iloc[0]
        found[name] = None if pd.isna(value) else value
    return found


def _figures(rows: pd.DataFrame, column: str) -> Row:
    p, null = (rows[name].to_numpy(np.float64) for name in (column, NULL_ENGINE))
    found = dict(scores(p, rows["rose"].to_numpy(bool), null, int(rows["horizon"].iloc[0])))
    found.pop("bins", None)
    low, high = found.pop("hit_rate_95", None) or (None, None)
    return {**found, "hit_rate_low": low, "hit_rate_high": high}
