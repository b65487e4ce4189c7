"""Bars: the one decision clock of a run."""

import re
from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.kernels import bars as kernels
from pipeline.stages.base import Block, Stage, State, cut, grown, room
from schemas.blocks import Array, Rows, empty, names_of

_UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_CLOCK: Final = re.compile(r"time:(\d+)(ns|us|ms|s|m|h)|ticks:(\d+)|row")
_MARKS: Final = ("symbol", "flag", "session", "life", "stale", "gap")
_NUMBERS: Final = (
    "price", "size", "bid", "ask", "open", "high", "low", "scale", "volume_scale"
)  # fmt: skip
_NAMES: Final = names_of("bars")
_TAKEN: Final = ("offset", "index", "known_at")  # of the tick that closed the bar


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


def _places(block: Block, ints: Array, closed: int) -> list[Array]:
    """Offset, index and receive time of the rows; so many of them were closed by a tick."""
    ticks = block.rows["ticks"].columns
    at = ints[kernels.OUT_AT]
    if closed == len(ticks["ts"]):  # one tick closes one bar at most: each has closed one
        taken = [ticks[name] for name in _TAKEN]
    else:
        taken = [ticks[name][at[:closed]] for name in _TAKEN]
    left = len(at) - closed
    if left:
        # Rows made by the end of a file stand one past its last tick, one place for each symbol.
        ends: tuple[Array, ...] = (
            np.full(left, block.end_offset, np.int64),
            np.arange(left, dtype=np.int32),
            ints[kernels.OUT_TRIGGER_TS, closed:],
        )
        taken = [np.concatenate(pair) for pair in zip(taken, ends, strict=True)]
    return taken


def _rows(block: Block, floats: Array, ints: Array, marks: Array, closed: int) -> Rows:
    offset, index, known_at = _places(block, ints, closed)
    partition = np.empty(len(offset), np.int32)
    partition.fill(block.arrivals.partition)
    symbol, session, life, stale, gap = marks
    _, ts, count, trigger_ts, exec_ts = ints
    prices = floats[: kernels.EXEC_PRICE]
    values = (
        *(partition, offset, index, symbol, ts, known_at),
        *(*prices, floats[kernels.VWAP], count, trigger_ts),
        *(*floats[kernels.EXEC_PRICE : kernels.SCALE], exec_ts),
        *(session, life, *floats[kernels.SCALE : kernels.VWAP], stale, gap),
    )
    return Rows("bars", dict(zip(_NAMES, values, strict=True)), block.rows["ticks"].symbols)


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
        most = len(ticks) + (len(ticks.symbols) if block.end_offset >= 0 else 0)
        floats = room(kernels.FLOAT_OUT, most)
        ints = room(kernels.INT_OUT, most, np.int64)
        marks = room(kernels.MARK_OUT, most, np.int32)
        columns = ticks.columns
        closed = n = kernels.bars(
            self._clock,
            self._width,
            self._latency,
            tuple([columns[name] for name in _MARKS]),
            columns["ts"],
            tuple([columns[name] for name in _NUMBERS]),
            self._floats,
            self._ints,
            floats,
            ints,
            marks,
        )
        if block.end_offset >= 0:
            n = kernels.close_all(
                self._clock,
                self._width,
                len(ticks),
                self._floats,
                self._ints,
                floats,
                ints,
                marks,
                n,
            )
        ints = cut(ints, n)
        rows = (
            _rows(block, cut(floats, n), ints, cut(marks, n), closed)
            if n
            else empty(self.name, 0, ticks.symbols)
        )
        return block.plus(rows, at=ints[kernels.OUT_AT], after=self._clock != kernels.TIME)

    def _grow(self, n: int) -> None:
        have = len(self._floats)
        if n <= have:
            return
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
