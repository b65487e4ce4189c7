"""Bars: the one decision clock of a run."""

import re
from dataclasses import replace
from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.kernels import bars as kernels
from pipeline.stages.base import Block, Stage, State, grown
from schemas.blocks import Array, Rows, empty

_UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_CLOCK: Final = re.compile(r"time:(\d+)(ns|us|ms|s|m|h)|ticks:(\d+)|row")
_MARKS: Final = ("symbol", "flag", "session", "life", "stale", "gap")
_NUMBERS: Final = (
    "price", "size", "bid", "ask", "open", "high", "low", "scale", "volume_scale"
)  # fmt: skip
_FLOATS: Final = {
    "open": kernels.OPEN,
    "high": kernels.HIGH,
    "low": kernels.LOW,
    "close": kernels.CLOSE,
    "volume": kernels.VOLUME,
    "notional": kernels.NOTIONAL,
    "vwap": kernels.VWAP,
    "exec_price": kernels.EXEC_PRICE,
    "exec_bid": kernels.EXEC_BID,
    "exec_ask": kernels.EXEC_ASK,
    "scale": kernels.SCALE,
    "volume_scale": kernels.VOLUME_SCALE,
}
_INTS: Final = {
    "symbol": kernels.OUT_SYMBOL,
    "ts": kernels.OUT_TS,
    "n": kernels.OUT_N,
    "trigger_ts": kernels.OUT_TRIGGER_TS,
    "exec_ts": kernels.OUT_EXEC_TS,
    "session": kernels.OUT_SESSION,
    "life": kernels.OUT_LIFE,
    "stale": kernels.OUT_STALE,
    "gap": kernels.OUT_GAP,
}


def parse_clock(text: str) -> tuple[int, int]:
    """A clock as text (`time:10s`, `ticks:100`, `row`) as (kind, width in ns or ticks).

    Raises:
        ValueError: it is none of these, or its width is zero.
    """
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"clock {text!r} is none of time:10s, ticks:100, ticks:1, row")
    length, unit, count = found.groups()
    if length is not None:
        kind, width = kernels.TIME, int(length) * _UNITS[unit]
    elif count is not None:
        kind, width = kernels.TICKS, int(count)
    else:
        kind, width = kernels.ROW, 1
    if not 0 < width <= 366 * 86_400 * 10**9:
        raise ValueError(f"clock {text!r} has no usable width")
    return kind, width


class BarsSettings(BaseModel):
    """The decision clock and the time an order takes to reach the market."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clock: str = "time:10s"
    execution_latency: int = Field(0, ge=0, description="ns from a decision to its execution")

    @field_validator("clock")
    @classmethod
    def _known(cls, clock: str) -> str:
        parse_clock(clock)
        return clock


class Bars(Stage):
    """Closes bars at their trigger; empty bars are not emitted, so no bar is invented."""

    name: ClassVar[str] = "bars"

    def __init__(self, settings: BarsSettings) -> None:
        self._clock, self._width = parse_clock(settings.clock)
        self._latency = settings.execution_latency
        self._floats: Array = np.empty((0, kernels.FLOAT_STATE))
        self._ints: Array = np.empty((0, kernels.INT_STATE), np.int64)

    def step(self, block: Block) -> Block:
        """Add the bars that these ticks closed; at the end of a file, all open ones."""
        ticks = block.rows["ticks"]
        self._grow(len(ticks.symbols))
        room = len(ticks) + (len(ticks.symbols) if block.end_offset >= 0 else 0)
        floats = np.empty((room, kernels.FLOAT_OUT))
        ints = np.empty((room, kernels.INT_OUT), np.int64)
        n = kernels.bars(
            self._clock,
            self._width,
            self._latency,
            tuple(ticks[name] for name in _MARKS),
            ticks["ts"],
            tuple(ticks[name] for name in _NUMBERS),
            self._floats,
            self._ints,
            floats,
            ints,
        )
        closed = n
        if block.end_offset >= 0:
            n += kernels.close_all(
                self._clock, self._width, len(ticks), self._floats, self._ints, floats[n:], ints[n:]
            )
        rows = self._rows(block, floats[:n], ints[:n], closed)
        at = ints[:n, kernels.OUT_AT].copy()
        return replace(block.plus(rows), at=at, after=self._clock != kernels.TIME)

    def _rows(self, block: Block, floats: Array, ints: Array, closed: int) -> Rows:
        ticks = block.rows["ticks"]
        n = len(ints)
        rows = empty(self.name, n, ticks.symbols)
        columns = rows.columns
        at = ints[:closed, kernels.OUT_AT]
        for name in ("partition", "offset", "index", "known_at"):
            columns[name][:closed] = ticks[name][at]
        # Rows made by the end of a file stand one past its last tick, one place for each symbol.
        columns["partition"][closed:] = block.arrivals.partition
        columns["offset"][closed:] = block.end_offset
        columns["index"][closed:] = np.arange(n - closed)
        columns["known_at"][closed:] = ints[closed:, kernels.OUT_TRIGGER_TS]
        for name, place in _INTS.items():
            columns[name][:] = ints[:, place]
        for name, place in _FLOATS.items():
            columns[name][:] = floats[:, place]
        return rows

    def _grow(self, n: int) -> None:
        have = len(self._floats)
        self._floats = grown(self._floats, n, np.nan)
        self._ints = grown(self._ints, n, 0)
        self._fresh(slice(have, None))

    def _fresh(self, rows: slice) -> None:
        self._floats[rows] = np.nan
        self._floats[rows, kernels.SCALE : kernels.VOLUME_SCALE + 1] = 1.0
        self._ints[rows] = 0
        self._ints[rows, kernels.EXEC_TS] = -1

    def rename(self, old: int, new: int) -> None:
        """Move the state of one symbol to another."""
        self._grow(max(old, new) + 1)
        for array in (self._floats, self._ints):
            array[new] = array[old]
        self._fresh(slice(old, old + 1))

    def snapshot(self) -> State:
        """Open bars and pending references, copied."""
        return {"floats": self._floats.copy(), "ints": self._ints.copy()}

    def restore(self, state: State) -> None:
        """Continue from a snapshot."""
        self._floats = state["floats"].copy()
        self._ints = state["ints"].copy()
