"""Equity: the book of each symbol on a fixed clock, so that returns have a period."""

import re
from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from pipeline.kernels import equity as kernels
from pipeline.kernels import fills as books
from pipeline.stages.base import Block, PerSymbol, beside, grow
from schemas.blocks import Array, Rows, empty

_FLOATS: Final = {
    "position": books.POSITION,
    "cash": books.CASH,
    "fees": books.FEES,
    "traded": books.TRADED,
    "pnl": books.PNL,
    "mark": books.MARK,
}
_UNITS: Final = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
_PERIOD: Final = re.compile(r"(\d{1,6})([smhd])")
_LONGEST: Final = 366 * 86_400 * 10**9


def parse_period(text: str, longest: int = _LONGEST) -> int:
    """A period as text (`1m`, `1h`, `1d`) in ns.

    Raises:
        ValueError: it is none, or zero, or longer than `longest` (a year).
    """
    found = _PERIOD.fullmatch(text)
    width = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < width <= longest:
        raise ValueError(f"period {text!r} is none like 1m, 1h, 1d")
    return width


class EquitySettings(BaseModel):
    """The fixed clock of the books."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    period: str = "1m"

    @field_validator("period")
    @classmethod
    def _known(cls, period: str) -> str:
        parse_period(period)
        return period


class Equity(PerSymbol):
    """Tells each book when a beat of the clock has passed in which its symbol had a bar.

    A book belongs to one symbol of one partition. The portfolio is the sum over all books, each
    carried on from its last row and standing at its first cash before that; partitions change
    nothing of it (a reader sums, no stage looks across them).
    """

    name: ClassVar[str] = "equity"

    def __init__(self, settings: EquitySettings) -> None:
        self._period = parse_period(settings.period)
        self._arrays: dict[str, Array] = {
            "floats": np.empty((0, books.BOOK)),
            "ints": np.empty((0, kernels.INT_STATE), np.int64),
        }

    def step(self, block: Block) -> Block:
        """Add the beats that these bars have passed; at the end of a file, the open ones."""
        bars = block.rows["bars"]
        arrays = self._arrays
        grow(arrays, len(bars.symbols))
        n = len(bars)
        room = n + (len(bars.symbols) if block.end_offset >= 0 else 0)
        floats = np.empty((room, books.BOOK))
        ints = np.empty((room, kernels.INT_OUT), np.int64)
        told = kernels.equity(
            self._period,
            bars["symbol"],
            bars["ts"],
            bars["known_at"],
            beside(block.filled_at, n),
            beside(block.books, n),
            arrays["floats"],
            arrays["ints"],
            floats,
            ints,
        )
        found = told
        if block.end_offset >= 0:
            found += kernels.close_all(
                self._period, n, arrays["floats"], arrays["ints"], floats[told:], ints[told:]
            )
        if not found:
            return block.plus(empty(self.name, 0, bars.symbols))
        return block.plus(self._rows(block, floats[:found], ints[:found], told))

    def _rows(self, block: Block, floats: Array, ints: Array, told: int) -> Rows:
        bars = block.rows["bars"]
        found = len(ints)
        rows = empty(self.name, found, bars.symbols)
        columns = rows.columns
        at = ints[:told, kernels.OUT_AT]
        for name in ("partition", "offset", "index", "known_at"):
            columns[name][:told] = bars[name][at]
        # Rows made by the end of a file stand behind its bars, one place for each symbol.
        columns["partition"][told:] = block.arrivals.partition
        columns["offset"][told:] = block.end_offset
        columns["index"][told:] = len(bars) + np.arange(found - told)
        columns["known_at"][told:] = ints[told:, kernels.OUT_KNOWN_AT]
        columns["symbol"][:] = ints[:, kernels.OUT_SYMBOL]
        columns["ts"][:] = ints[:, kernels.OUT_TS]
        for name, place in _FLOATS.items():
            columns[name][:] = floats[:, place]
        columns["equity"][:] = columns["cash"] + columns["position"] * columns["mark"]
        columns["refused"][:] = np.nan_to_num(floats[:, books.REFUSED], nan=-1)
        return rows
