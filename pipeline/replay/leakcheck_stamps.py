"""Times of rows: none may be before that of what the row was made from."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from pipeline.replay.leakcheck_rows import Leak, differing, keys, place_of
from pipeline.stages.base import Block
from schemas.arrivals import Arrivals
from schemas.blocks import COLUMNS, Array, Rows, spoken

# Stages of one row a decision, stamped with the bar's end. A fill has a time of its own.
STAMPED: Final = ("bars", "features", "regimes", "predictions", "signals")
# Columns that say at which later time they stand: `exec_ts`, `trigger_ts`, `known_at`.
OWN_TIME: Final = frozenset(
    {"exec_price", "exec_bid", "exec_ask", "exec_ts", "trigger_ts", "known_at"}
)


class Stamps:
    """Checks the times of all rows of a run, block by block."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}  # event time of the last tick in the kernels, by symbol

    def check(self, came: Arrivals, block: Block) -> Iterator[Leak]:
        """Rows of a block that bear a time too early; `came` is what it was made from."""
        for stage, rows in block.rows.items():
            at = np.searchsorted(keys(came), keys(rows))
            inside = at < len(came)
            early = np.flatnonzero(
                inside & (rows["known_at"] < came["known_at"][np.where(inside, at, 0)])
            )
            if early.size:
                yield place_of(rows, int(early[0]), "stamp", "known_at")
            if stage in STAMPED and stage != "bars":
                yield from _before_the_bar(rows, block.rows["bars"])
        yield from self._bars(block)

    def _bars(self, block: Block) -> Iterator[Leak]:
        """Bars stamped before their last tick: as with the time of their open."""
        ticks, bars = block.rows["ticks"], block.rows["bars"]
        kept = np.flatnonzero(ticks["flag"] == 0)
        symbol, ts = ticks["symbol"][kept], ticks["ts"][kept]
        order = np.argsort(symbol, kind="stable")
        n = len(ticks)
        places = symbol[order].astype(np.int64) * (n + 1) + kept[order]
        closed = np.flatnonzero(block.at < n)
        at, codes = block.at[closed], bars["symbol"][closed].astype(np.int64)
        # The last one that belongs to the bar: the trigger itself, or the one before it.
        found = np.searchsorted(places, codes * (n + 1) + at, "right" if block.after else "left")
        found -= 1
        inside = (found >= 0) & (places[found] // (n + 1) == codes) if n else found >= 0
        carried = [self._last.get(code, np.iinfo(np.int64).min) for code in codes.tolist()]
        newest = np.where(inside, ts[order][found], carried) if len(ts) else np.array(carried)
        # Where time goes back (a plain guard takes such ticks) a bar may end before a tick of it.
        early = np.flatnonzero(
            (bars["ts"][closed] < newest) & (newest <= bars["trigger_ts"][closed])
        )
        if early.size:
            yield place_of(bars, int(closed[early[0]]), "stamp", "ts")
        seen, last = np.unique(symbol[::-1], return_index=True)
        self._last.update(zip(seen.tolist(), ts[::-1][last].tolist(), strict=True))


def _before_the_bar(rows: Rows, bars: Rows) -> Iterator[Leak]:
    theirs = keys(bars)
    at = np.searchsorted(theirs, keys(rows))
    at = np.where(at < len(theirs), at, 0)
    if not len(theirs):
        return
    early = np.flatnonzero((theirs[at] == keys(rows)) & (rows["ts"] < bars["ts"][at]))
    if early.size:
        yield place_of(rows, int(early[0]), "stamp", "ts")


def untimely(whole: Mapping[str, Rows], shocked: Mapping[str, Rows], before: int) -> Iterator[Leak]:
    """Rows stamped before a time that differ though only ticks from then on were changed."""
    for stage in STAMPED:
        if stage not in whole:
            continue
        ours, theirs = _shared(whole[stage], shocked[stage])
        past = ours["ts"] < before
        if not past.any():
            continue
        ours, theirs = ours.take(past), theirs.take(past)
        for column in COLUMNS[stage]:
            if column.name in OWN_TIME:
                continue
            wrong = differing(ours, theirs, column)
            if wrong.size:
                at = int(wrong[0])
                values = spoken(ours, column, at), spoken(theirs, column, at)
                detail = f"{values[0]!r}, {values[1]!r} with later ticks changed"
                yield place_of(ours, at, "stamp", column.name, detail)


def _shared(ours: Rows, theirs: Rows) -> tuple[Rows, Rows]:
    """The rows that both have."""
    places: tuple[Array, Array]
    _, *places = np.intersect1d(keys(ours), keys(theirs), return_indices=True)  # type: ignore[assignment]
    return ours.take(places[0]), theirs.take(places[1])
