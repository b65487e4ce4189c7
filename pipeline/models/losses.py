"""Drift of engines: whether they lose more than they did; see `kernels.losses`."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from pipeline.kernels import losses as kernels
from pipeline.kernels.learners import CLIP
from pipeline.kernels.losses import BOUND, LOOKED, TOTAL
from pipeline.models.drift import DriftAlarm, DriftRow, State
from schemas.blocks import Array, Rows, engines, names_of

FIRST_LOSSES: Final = 10_240  # losses that an engine is measured over
# Nats that a loss may be higher without being worse. Its mean: engines that know nothing wander by
# less, and always will, as they learn from noise. What it is for what was predicted, whatever that
# is: noise moves nothing of it.
MARGINS: Final = (0.01, 0.002)


class Losses:
    """Log losses of every engine, of rows of predictions against the close a horizon later.

    What moves a price without a return, as a split does, counts as an outcome here.
    """

    def __init__(self) -> None:
        self._columns = [name for name in names_of("predictions") if name.startswith("p_")]
        self.names = ("combined", *engines())
        self._waiting: dict[str, Array] = {}  # rows without an outcome: close, then probabilities

    def of(self, rows: Rows) -> Iterator[tuple[str, Array, Array]]:
        """For each symbol the losses (engines, m) that the last m of its rows tell, and these rows.

        A close that is the same is no outcome, nor is one of a row at which an engine was silent.
        """
        said = np.stack([rows[name] for name in ("close", *self._columns)])
        for code in np.unique(rows["symbol"]).tolist():
            at = np.flatnonzero(rows["symbol"] == code)
            losses = self._matured(rows.symbols[code], said[:, at], int(rows["horizon"][at[0]]))
            yield rows.symbols[code], losses, at[len(at) - losses.shape[1] :]

    def _matured(self, symbol: str, said: Array, horizon: int) -> Array:
        before = self._waiting.get(symbol, np.empty((len(said), 0)))
        both = np.concatenate((before, said), axis=1)
        matured = max(0, both.shape[1] - horizon)
        self._waiting[symbol] = both[:, matured:].copy()  # the rest need not stay in memory
        was, now = both[:, :matured], both[0, horizon:]
        p = np.clip(np.where(now > was[0], was[1:], 1.0 - was[1:]), CLIP, 1.0 - CLIP)
        told = (now > was[0]) | (now < was[0])
        return np.where(told, -np.log(p), np.nan)

    def snapshot(self) -> State:
        """What is waiting, by symbol."""
        return dict(self._waiting)

    def restore(self, state: State) -> None:
        """Go on from a snapshot of one with the same engines."""
        self._waiting = dict(state)


class LossDrift:
    """Watches the losses of all engines by symbol.

    While none becomes worse an alarm comes once in `rows` predictions of a symbol at the most, all
    engines together, in expectation. Symbols beyond `most` are not watched.
    """

    def __init__(self, *, rows: float = 1e6, most: int = 256) -> None:
        self._losses = Losses()
        self.names = self._losses.names
        self._limit = rows * len(self.names)
        self._most = most
        self._symbols: dict[str, dict[str, Array]] = {}

    def step(self, rows: Rows) -> list[DriftAlarm]:
        """Take the next rows of predictions; the alarms they give, in the order of the rows."""
        found: list[tuple[int, int, DriftAlarm]] = []
        for symbol, losses, at in self._losses.of(rows):
            if not len(at):
                continue
            state = self._state(symbol, int(rows["horizon"][at[0]]))
            if state is None:
                continue
            out = np.full(losses.shape, np.nan)
            looked, began = np.zeros(losses.shape, np.int64), np.zeros(losses.shape, np.int64)
            turns = state["evidence"].shape[1]
            kernels.worse(
                losses, rows["ts"][at], int(state["begin"][0]), FIRST_LOSSES, MARGINS,
                self._limit / turns, state["counts"], state["sums"], state["tables"],
                state["evidence"], state["runs"], state["since"], out, looked, began,
            )  # fmt: skip
            state["begin"][0] = (state["begin"][0] + len(at)) % turns
            for j, i in np.argwhere(~np.isnan(out)).tolist():
                state["alarms"][j] += 1
                where = int(at[i])
                alarm = DriftAlarm(
                    "engine",
                    self.names[j],
                    symbol,
                    "higher",
                    int(began[j, i]),
                    int(rows["ts"][where]),
                    int(rows["partition"][where]),
                    int(rows["offset"][where]),
                    int(rows["index"][where]),
                    float(out[j, i]),
                    int(looked[j, i]),
                    1,
                )
                found.append((where, j, alarm))
        return [alarm for _, _, alarm in sorted(found, key=lambda one: one[:2])]

    def rows(self) -> Iterator[DriftRow]:
        """How it stands with each engine."""
        for symbol, state in self._symbols.items():
            parts = state["evidence"][0].size
            for j, name in enumerate(self.names):
                count, sums = state["counts"][j], state["sums"][j]
                yield DriftRow(
                    "engine",
                    name,
                    symbol,
                    "watched" if sums[BOUND] > 0.0 else "measured",
                    1,
                    int(count[LOOKED]),
                    float(sums[TOTAL] / parts),
                    int(state["alarms"][j]),
                )

    def _state(self, symbol: str, horizon: int) -> dict[str, Array] | None:
        if symbol not in self._symbols and len(self._symbols) < self._most:
            d = len(self.names)
            bets = (d, horizon, kernels.BETS)
            self._symbols[symbol] = {
                "begin": np.zeros(1, np.int64),
                "counts": np.zeros((d, kernels.COUNTS), np.int64),
                "sums": np.zeros((d, kernels.SUMS)),
                "tables": np.zeros((d, kernels.BINS, kernels.FIELDS)),
                "evidence": np.zeros(bets),
                "runs": np.zeros(bets),
                "since": np.zeros(bets, np.int64),
                "alarms": np.zeros(d, np.int64),
            }
        return self._symbols.get(symbol)

    def snapshot(self) -> State:
        """The whole state."""
        return {"waiting": self._losses.snapshot(), "symbols": self._symbols}

    def restore(self, state: State) -> None:
        """Go on from a snapshot of one with the same engines, bit for bit."""
        self._losses.restore(state["waiting"])
        self._symbols = state["symbols"]
