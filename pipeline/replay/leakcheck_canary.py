"""The canary: where the sign of each return is drawn by lot, no column may foretell the next one.

Every return of the input keeps its size and gets a sign by a fair coin. A shuffle would keep the
sum of returns, so that the past told of the rest; a coin tells nothing. What a column has done
since the row before (up or down) is bet on the next move. If it knows only the past, each bet is
won with probability one half whatever was before, so that wins less losses over the root of the
number of bets exceeds z with probability below 2 exp(-z^2 / 2) (Hoeffding), for any column at all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.replay.leakcheck_cuts import fresh
from pipeline.replay.leakcheck_plan import Make, Plan, Source
from pipeline.replay.leakcheck_rows import Leak, keys, stages_of
from pipeline.replay.leakcheck_stamps import OWN_TIME, STAMPED
from schemas.arrivals import Arrivals
from schemas.blocks import COLUMNS, Array, Rows

_LIMIT: Final = 6.0  # by chance in fewer than one of 30 million columns
_CERTAIN: Final = 0.98  # of bets won on the true input: more than skill
_BOUNCE: Final = 0.9  # of bets that the price wins by itself
_BETS: Final = 200
_HEAD: Final = frozenset({"partition", "offset", "index", "symbol", "ts", "known_at"})
_SHAPE: Final = ("open", "high", "low")


@dataclass(frozen=True, slots=True)
class Score:
    """How many bets a column won on the next move of its symbol.

    `horizon` is tick (to the next tick), bar (to the tick that triggers the next bar) or close
    (from close to close).

    `drawn` is true where the signs were drawn by lot, false on the input as it is.
    """

    stage: str
    column: str
    horizon: str
    drawn: bool
    bets: int
    won: int

    @property
    def z(self) -> float:
        """Wins less losses in standard deviations of fair coins."""
        return float((2 * self.won - self.bets) / np.sqrt(max(self.bets, 1)))

    @property
    def share(self) -> float:
        """The share of bets won, or lost if that is more."""
        return max(self.won, self.bets - self.won) / max(self.bets, 1)

    def leak(self) -> Leak:
        """It as a leak of the column."""
        what = f"{self.won} of {self.bets} bets on the next {self.horizon} won, z {self.z:.1f}"
        return Leak("canary" if self.drawn else "foresight", self.stage, self.column, detail=what)


def totals(some: Iterable[Score]) -> tuple[Score, ...]:
    """The bets of several inputs taken together: they are independent, so z keeps its meaning."""
    found: dict[tuple[str, str, str, bool], Score] = {}
    for one in some:
        place = (one.stage, one.column, one.horizon, one.drawn)
        known = found.get(place)
        more = (0, 0) if known is None else (known.bets, known.won)
        found[place] = Score(*place, one.bets + more[0], one.won + more[1])
    return tuple(found.values())


def scores(make: Make, source: Source, plan: Plan) -> tuple[Score, ...]:
    """All columns over the first ticks of the input, as it is and with drawn signs."""
    parts = _first(source, plan)
    drawn = _Coins(np.random.default_rng(plan.seed))
    plain = [fresh(came, 0, len(came)) for came in parts]
    flipped = [drawn.flipped(came) for came in parts]
    return (*_scored(make, flipped, drawn=True), *_scored(make, plain, drawn=False))


def telling(scored: Sequence[Score]) -> Iterator[Leak]:
    """The leaks among them.

    On the input as it is a column may win almost always without a leak where the price itself does:
    trades that bounce between bid and ask. There nothing can be told.
    """
    bounce: dict[str, float] = {}
    for one in scored:
        if not one.drawn and (one.stage, one.column) in {("bars", "close"), ("ticks", "price")}:
            bounce[one.horizon] = max(one.share, bounce.get(one.horizon, 0.0))
    for one in scored:
        if one.drawn:
            if abs(one.z) > _LIMIT:
                yield one.leak()
        elif one.bets >= _BETS and one.share >= _CERTAIN > _BOUNCE > bounce.get(one.horizon, 1.0):
            yield one.leak()


def _first(source: Source, plan: Plan) -> list[Arrivals]:
    parts, left = [], plan.canary
    for came in source(plan.block):
        parts.append(fresh(came, 0, min(len(came), left)))
        left -= len(parts[-1])
        if left <= 0:
            break
    return parts


class _Coins:
    """Gives returns new signs; remembers where each symbol's price was and where it is now."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._logs: dict[str, tuple[float, float]] = {}

    def flipped(self, came: Arrivals) -> Arrivals:
        """The ticks with new signs; a row that is a bar is mirrored with its return."""
        ticks = fresh(came, 0, len(came))
        price = came["price"]
        good = np.isfinite(price) & (price > 0)
        for code in np.unique(came["symbol"][good]).tolist():
            self._turn(ticks, np.flatnonzero(good & (came["symbol"] == code)), came.symbols[code])
        return ticks

    def _turn(self, ticks: Arrivals, at: Array, symbol: str) -> None:
        old = np.log(ticks["price"][at])
        before, start = self._logs.get(symbol, (old[0], old[0]))
        coins = self._rng.choice(np.array([-1.0, 1.0]), len(at))
        new = start + np.cumsum(coins * np.diff(old, prepend=before))
        self._logs[symbol] = float(old[-1]), float(new[-1])
        scale = np.exp(new) / ticks["price"][at]
        ticks["price"][at] = np.exp(new)  # equal where nothing moved
        for name in ("bid", "ask"):
            ticks[name][at] *= scale
        with np.errstate(all="ignore"):
            shape = {name: np.exp(new + coins * (np.log(ticks[name][at]) - old)) for name in _SHAPE}
        ticks["open"][at] = shape["open"]
        ticks["high"][at] = np.maximum(shape["high"], shape["low"])
        ticks["low"][at] = np.minimum(shape["high"], shape["low"])


def _scored(make: Make, parts: Sequence[Arrivals], *, drawn: bool) -> Iterator[Score]:
    chain = make()
    blocks = [chain.step(came).rows for came in parts]
    if not blocks:
        return
    rows = {stage: _joined(stage, blocks) for stage in stages_of(blocks[-1])}
    moves = _Moves(rows)
    for stage, found in rows.items():
        order = np.argsort(found["symbol"], kind="stable")
        mine = found.take(order)
        for horizon, labels in moves.labels(mine, drawn=drawn):
            for column in COLUMNS[stage]:
                if column.name in _HEAD or (horizon == "close" and column.name in OWN_TIME):
                    continue
                bets = _bets(mine[column.name], mine["symbol"]) * labels
                n, won = np.count_nonzero(bets), np.count_nonzero(bets > 0)
                yield Score(stage, column.name, horizon, drawn, int(n), int(won))


def _joined(stage: str, blocks: Sequence[Mapping[str, Rows]]) -> Rows:
    names = blocks[-1][stage].columns
    columns = {n: np.concatenate([block[stage][n] for block in blocks]) for n in names}
    return Rows(stage, columns, blocks[-1][stage].symbols)


def _bets(values: Array, symbols: Array) -> Array:
    """1 where a value rose since its symbol's row before, -1 where it fell, else 0."""
    change = np.diff(values.astype(np.float64), prepend=np.nan)
    change[1:][symbols[1:] != symbols[:-1]] = np.nan
    return np.nan_to_num(np.sign(change))


class _Moves:
    """What the price did after each row: to its symbol's next tick, to its next bar."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        ticks = rows["ticks"].take(rows["ticks"]["flag"] == 0)
        self._all = keys(ticks)
        places = self._places(ticks)
        order = np.argsort(places)
        self._ticks, self._prices = places[order], ticks["price"][order]
        self._bars, at = np.unique(self._places(rows["bars"]), return_index=True)
        self._closes = rows["bars"]["close"][at]
        self._triggers = np.append(self._prices, np.nan)[self._last(self._ticks, self._bars)]

    def labels(self, rows: Rows, *, drawn: bool) -> Iterator[tuple[str, Array]]:
        """For rows sorted by symbol the sign of each move, 0 where there is none.

        No move is told twice: its bets must be independent. From close to close a part of the move
        may be known when a bar is triggered: not fair, where signs are drawn.
        """
        places = self._places(rows)
        first = np.diff(places, prepend=-1) != 0
        at = self._last(self._ticks, places)
        yield "tick", first * self._signs(self._ticks, self._prices, at)
        at = self._last(self._bars, places)
        exact = np.append(self._bars, -1)[at] == places
        yield "bar", first * exact * self._signs(self._bars, self._triggers, at)
        if not drawn and rows.stage in STAMPED:
            yield "close", first * exact * self._signs(self._bars, self._closes, at)

    def _places(self, rows: Rows) -> Array:
        """Symbol and identity as one int64 that grows with time within a symbol."""
        at = np.searchsorted(self._all, keys(rows))
        return rows["symbol"].astype(np.int64) * (len(self._all) + 1) + at

    def _last(self, known: Array, places: Array) -> Array:
        """Where in `known` the symbol's last place at or before each place is; -1: nowhere."""
        at = np.searchsorted(known, places, "right") - 1
        span = len(self._all) + 1
        same = np.append(known, -1)[at] // span == places // span
        return np.where(same & (at >= 0), at, -1)

    def _signs(self, known: Array, prices: Array, at: Array) -> Array:
        """Signs of the moves from each of the places to the symbol's next."""
        span = len(self._all) + 1
        after = at + 1
        inside = (at >= 0) & (after < len(known))
        at, after = np.where(inside, at, 0), np.where(inside, after, 0)
        if not len(known):
            return np.zeros(len(at))
        same = inside & (known[at] // span == known[after] // span)
        return np.where(same, np.nan_to_num(np.sign(prices[after] - prices[at])), 0.0)
