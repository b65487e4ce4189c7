"""What versions of a model said of bars, and what came: rows mature when their outcome is known."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Literal

import numpy as np

from pipeline.models.comparison import losses
from schemas.blocks import VOL_REGIMES, Array
from schemas.models import Activation

Role = Literal["live", "shadow"]
_DAY: Final = 86_400 * 10**9  # ns
_EVEN: Final = 0.5
SAID: Final = np.dtype(
    [
        ("level", "f8"),  # close by scale
        ("live", "f8"),  # probabilities, NaN where nothing was said
        ("shadow", "f8"),
        ("null", "f8"),
        ("ts", "i8"),  # ns
        ("activation", "i4"),  # number of the partition's, -1 before the first
        ("regime", "i4"),  # whose selected version spoke: a code, -1 for the active one
    ]
)
"""A bar that waits for its outcome."""


@dataclass(frozen=True, slots=True)
class Matured:
    """Rows (n,) of `SAID` with an outcome: whether the close `rose`, and of which `book`."""

    said: Array
    rose: Array  # bool
    book: Array  # int64, a hash of partition, symbol and life

    def of(self, activation: int) -> "Matured":
        """Those by one activation."""
        return self.at(self.said["activation"] == activation)

    def at(self, chosen: Array) -> "Matured":
        """Those that are chosen, (n,) bool."""
        return Matured(self.said[chosen], self.rose[chosen], self.book[chosen])


@dataclass(frozen=True, slots=True)
class DayScores:
    """How a version did on the rows of a UTC day by event time; ts in ns, losses in nats."""

    version: str
    rows: Role
    day: date
    first_ts: int
    last_ts: int
    n: int
    log_loss: float
    null_log_loss: float
    brier: float


class Maturing:
    """Bars of one partition, in order; the outcome of each is the level `horizon` bars later.

    That is by book, which is a symbol in one life. An unchanged level is no outcome.
    """

    def __init__(self, partition: int, horizon: int) -> None:
        self._partition = partition
        self._horizon = horizon
        self._waiting: dict[str, tuple[int, Array]] = {}  # life and rows, by symbol

    def step(self, symbol: Array, life: Array, said: Array) -> Matured:
        """Take the next bars: names (n,), lives (n,), rows of `SAID` (n,); those that mature."""
        parts = [
            self._book(str(name), int(one), said[(symbol == name) & (life == one)])
            for name in np.unique(symbol)
            for one in np.unique(life[symbol == name])
        ]
        if not parts:
            return Matured(np.empty(0, SAID), np.empty(0, bool), np.empty(0, np.int64))
        found = [(one.said, one.rose, one.book) for one in parts]
        return Matured(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _book(self, symbol: str, life: int, new: Array) -> Matured:
        of, before = self._waiting.get(symbol, (life, new[:0]))
        both = np.concatenate((before, new)) if of == life else new
        m = max(0, len(both) - self._horizon)
        self._waiting[symbol] = life, both[m:].copy()
        was, later = both[:m], both["level"][self._horizon :]
        spoken = ~np.isnan(was["live"]) | ~np.isnan(was["shadow"])
        told = spoken & (np.isfinite(later - was["level"])) & (later != was["level"])
        book = zlib.crc32(f"{self._partition} {life} {symbol}".encode())
        return Matured(was[told], (later > was["level"])[told], np.full(told.sum(), book))

    def snapshot(self) -> dict[str, Any]:
        """What waits, by symbol."""
        return {
            symbol: {"life": life, "rows": rows.view(np.uint8)}
            for symbol, (life, rows) in self._waiting.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a snapshot of one with the same horizon, bit for bit."""
        self._waiting = {
            symbol: (one["life"], one["rows"].view(SAID)) for symbol, one in state.items()
        }


def day_scores(matured: Matured, activations: Sequence[Activation]) -> Iterator[DayScores]:
    """Scores of each version that said something, by role and day, beside the base rate.

    Where that says nothing its odds are even.
    """
    for number in np.unique(matured.said["activation"]).tolist():
        part = matured.of(number)
        one = activations[number]
        spoken: dict[str | None, Array] = {}  # in however many regimes
        for code in np.unique(part.said["regime"]).tolist():
            name = one.version if code < 0 else one.selected[VOL_REGIMES[code]]
            spoken[name] = (part.said["regime"] == code) | spoken.get(name, np.False_)
        everywhere = np.ones(len(part.said), bool)
        named: list[tuple[Role, str | None, Array]] = [
            *(("live", name, at) for name, at in spoken.items()),
            ("shadow", one.shadow, everywhere),
        ]
        for role, version, rows in named:
            at = rows & ~np.isnan(part.said[role])
            if version is not None and at.any():
                yield from _by_day(version, role, part.said[at], part.rose[at])


def _by_day(version: str, role: Role, said: Array, rose: Array) -> Iterator[DayScores]:
    days = said["ts"] // _DAY
    for day in np.unique(days).tolist():
        at = days == day
        p, ts, came = said[role][at], said["ts"][at], rose[at]
        null = np.where(np.isnan(said["null"][at]), _EVEN, said["null"][at])
        yield DayScores(
            version,
            role,
            datetime.fromtimestamp(day * 86_400, UTC).date(),
            int(ts.min()),
            int(ts.max()),
            len(p),
            float(losses(p, came).mean()),
            float(losses(null, came).mean()),
            float(((p - came) ** 2).mean()),
        )
