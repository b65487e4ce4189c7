"""Drift: whether features are what they were; see `kernels.drift`, and `losses` for engines.

A series is measured over its first values: its median, the edges of its bins, and how far apart
two of its values must lie to say something new. From then on it is watched, until an alarm; then it
is measured anew, so that a change is told once and what came of it is the next thing to compare
with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pipeline.kernels import drift as kernels
from pipeline.kernels.drift import ALARM, COUNT, HELD, SIDES, STRIDE
from pipeline.stages.base import grow
from schemas.blocks import Array, Rows, numbers_of

Kind = Literal["feature", "engine"]
State = dict[str, Any]
CHANGES: Final = ("higher", "lower", "wider", "narrower")  # a side of the kernel each
FIRST: Final = 4096  # values that a series is measured over
_FARTHEST: Final = 16  # the part of these that may lie between two that are looked at
_HANGING: Final = 1.2  # the most that what is looked at may vary, as a multiple of independence
# No longer what they were by definition: they follow the price, its peak or the time of day.
_WANDERING: Final = frozenset({"drawdown", "tod_sin", "tod_cos", "amihud_20"})


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """A series has changed; the row at which that was certain, and when it seems to have begun."""

    kind: Kind
    name: str
    symbol: str
    change: str  # one of `CHANGES`, what speaks loudest
    since: int  # ns
    ts: int  # ns
    partition: int
    offset: int
    index: int
    # While nothing changes its mean is 1 of a feature, and of an engine at most what was looked at.
    evidence: float
    looked: int  # values since it was measured, one in `stride`
    stride: int


@dataclass(frozen=True, slots=True)
class DriftRow:
    """How it stands with one series; `unfit`: its values hang together for too long to compare."""

    kind: Kind
    name: str
    symbol: str
    state: Literal["measured", "watched", "unfit"]
    stride: int
    looked: int
    evidence: float
    alarms: int


def watched_features() -> tuple[str, ...]:
    """The features that can be expected to stay what they are, a user's own among them."""
    return tuple(
        name
        for name, column in numbers_of("features").items()
        if column.unit != "price" and name not in _WANDERING
    )


class Drift:
    """Watches series of rows by symbol.

    While nothing changes an alarm comes once in `rows` values of a symbol at the most, all series
    together, in expectation. Symbols beyond `most` are not watched: each costs `first` values.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        rows: float = 1e6,
        most: int = 256,
    ) -> None:
        d = len(names)
        self._names, self._most = tuple(names), most
        self._limit = rows * d
        self._weights = np.full((SIDES, kernels.BETS), 1 / (SIDES * kernels.BETS))
        self._symbols: dict[str, int] = {}
        self._due = np.zeros(d, np.int64)
        bets = (0, d, SIDES, kernels.BETS)
        self._arrays: dict[str, Array] = {
            "ints": np.zeros((0, d, kernels.INTS), np.int64),
            "held": np.zeros((0, d, FIRST)),
            "centre": np.zeros((0, d)),
            "edges": np.zeros((0, d, kernels.SCORES, kernels.BINS - 1)),
            "counts": np.zeros((0, d, kernels.SCORES, kernels.BINS), np.int64),
            "evidence": np.zeros(bets),
            "since": np.zeros(bets, np.int64),
            "alarms": np.zeros((0, d), np.int64),
        }

    def step(self, rows: Rows) -> list[DriftAlarm]:
        """Take the next rows, of any stage that has the columns; the alarms they give."""
        columns = rows.columns
        return self.take(rows, [columns[name] for name in self._names])

    def take(self, rows: Rows, values: Sequence[Array]) -> list[DriftAlarm]:
        """The same for values (n,) of each series that stand in no column of the rows."""
        if not len(rows):
            return []
        codes = self._codes(rows.symbols)[rows["symbol"]]
        x = np.ascontiguousarray(np.stack(values, axis=1), np.float64)
        state = [array for name, array in self._arrays.items() if name != "alarms"]
        found: list[DriftAlarm] = []
        row = 0
        while row < len(rows):
            row = kernels.watch(
                row, codes, rows["ts"], x, self._limit, self._weights, self._due, *state
            )
            for j in np.flatnonzero(self._due).tolist():
                if self._due[j] == ALARM:
                    found.append(self._alarm(rows, row - 1, codes[row - 1], j))
                else:
                    self._measure(codes[row - 1], j)
            self._due[:] = 0
        return found

    def rows(self) -> Iterator[DriftRow]:
        """How it stands with each series."""
        arrays = self._arrays
        for symbol, s in self._symbols.items():
            for j, name in enumerate(self._names):
                stride = int(arrays["ints"][s, j, STRIDE])
                yield DriftRow(
                    "feature",
                    name,
                    symbol,
                    "measured" if stride == 0 else "watched" if stride > 0 else "unfit",
                    stride,
                    int(arrays["ints"][s, j, COUNT]),
                    self._evidence(s, j),
                    int(arrays["alarms"][s, j]),
                )

    def snapshot(self) -> State:
        """The whole state; of values to be measured over only those that are still needed."""
        n = len(self._symbols)
        found: State = {name: array[:n].copy() for name, array in self._arrays.items()}
        measured = found["ints"][:, :, STRIDE] == 0
        counts = found["ints"][measured, HELD]
        held = found["held"][measured, : counts.max(initial=0)]
        held[np.arange(held.shape[1]) >= counts[:, None]] = 0.0  # of a time before
        return {**found, "held": held, "symbols": list(self._symbols)}

    def restore(self, state: State) -> None:
        """Go on from a snapshot of one with the same names and sizes, bit for bit."""
        n = len(state["symbols"])
        self._symbols = {symbol: s for s, symbol in enumerate(state["symbols"])}
        for name, array in self._arrays.items():
            self._arrays[name] = np.zeros((n, *array.shape[1:]), array.dtype)
            if name != "held":
                self._arrays[name][:] = state[name]
        measured = self._arrays["ints"][:, :, STRIDE] == 0
        self._arrays["held"][measured, : state["held"].shape[1]] = state["held"]

    def _codes(self, symbols: Sequence[str]) -> Array:
        """Own places of these symbols, -1 of those that are not watched."""
        for symbol in symbols:
            if symbol not in self._symbols and len(self._symbols) < self._most:
                self._symbols[symbol] = len(self._symbols)
        grow(self._arrays, len(self._symbols))
        return np.array([self._symbols.get(symbol, -1) for symbol in symbols], np.int64)

    def _evidence(self, s: int, j: int) -> float:
        return float((self._weights * self._arrays["evidence"][s, j]).sum())

    def _alarm(self, rows: Rows, at: int, s: int, j: int) -> DriftAlarm:
        """What is told of it; the series is measured anew."""
        evidence, ints = self._arrays["evidence"][s, j], self._arrays["ints"][s, j]
        loudest = np.unravel_index(int(evidence.argmax()), evidence.shape)
        found = DriftAlarm(
            "feature",
            self._names[j],
            rows.symbols[rows["symbol"][at]],
            CHANGES[loudest[0]],
            int(self._arrays["since"][s, j][loudest]),
            int(rows["ts"][at]),
            int(rows["partition"][at]),
            int(rows["offset"][at]),
            int(rows["index"][at]),
            self._evidence(s, j),
            int(ints[COUNT]),
            int(ints[STRIDE]),
        )
        ints[:] = 0
        self._arrays["alarms"][s, j] += 1
        return found

    def _measure(self, s: int, j: int) -> None:
        arrays = self._arrays
        first = arrays["held"][s, j]
        centre = float(np.quantile(first, 0.5, method="inverted_cdf"))
        scores = (first, np.abs(first - centre))
        for score, values in enumerate(scores):
            arrays["edges"][s, j, score] = edges_of(values)
        arrays["centre"][s, j] = centre
        arrays["counts"][s, j] = 0
        arrays["evidence"][s, j] = 0
        arrays["ints"][s, j] = (stride_of(scores), 1, 0, 0)


def edges_of(values: Array) -> Array:
    """Edges (BINS - 1,) of bins of about as many of these values; what is beyond all is in two."""
    edges = np.quantile(values, np.linspace(0, 1, kernels.BINS - 1), method="inverted_cdf")
    edges[-1] = np.nextafter(edges[-1], np.inf)
    return np.asarray(edges)


def stride_of(scores: Sequence[Array]) -> int:
    """How many values apart these series are to be looked at; -1 if a sixteenth is not enough.

    At the first distance b at which their ranks vary, summed up, at most `_HANGING` times as much
    as independent ones would: 1 + 2 (r(b) + r(2 b) + ...), the sum ended where the autocorrelation
    r is no longer positive and only noise (Geyer 1992, Statistical Science 7, 473).
    """
    farthest = len(scores[0]) // _FARTHEST
    found = [autocorrelation(values, 4 * farthest) for values in scores]
    for apart in range(1, farthest + 1):
        if all(_hanging(r[apart::apart]) <= _HANGING for r in found):
            return apart
    return -1


def _hanging(r: Array) -> float:
    over = np.flatnonzero(r <= 0.0)
    return 1.0 + 2.0 * float(r[: over[0] if len(over) else len(r)].sum())


def autocorrelation(values: Array, lags: int) -> Array:
    """Of the ranks of values (n,), at lags 0 to `lags`; zeros when all values are equal."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2.0)[place]
    ranks -= ranks.mean()
    n = len(ranks)
    spectrum = np.fft.rfft(ranks, 2 * n)  # padded: it must not wrap around
    found = np.fft.irfft(np.abs(spectrum) ** 2)[: lags + 1]
    return np.asarray(found / found[0] if found[0] > 0.0 else np.zeros(lags + 1))
