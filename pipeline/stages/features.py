"""Bars and ticks to features: tick features by every tick, bar features at the close."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from pydantic import BaseModel, Field, field_validator, model_validator

from pipeline.kernels import features as kernels
from pipeline.kernels import layout
from pipeline.kernels.rescale import units_of
from pipeline.stages.base import HEAD, Block, State, beside, grown, head, moved, room
from schemas.blocks import Array, Rows, empty, names_of

FEATURES: Final = names_of("features")[len(HEAD) :]
_TICKS: Final = ("symbol", "flag", "ts", "side")
_NUMBERS: Final = ("price", "size", "bid", "ask", "bid_size", "ask_size")
_MARKS: Final = ("life", "session")
_SCALES: Final = ("scale", "volume_scale")
_BARS: Final = ("symbol", "ts", "session")
_PRICES: Final = ("open", "high", "low", "close", "volume", "notional")
_WEEK: Final = 7 * 86_400
_LAST_YEAR_END: Final = 2**32  # s: the year 2106


class FeaturesSettings(BaseModel, frozen=True, extra="forbid"):
    """Periods in bars or ticks, half-lives in seconds; column names keep those of the defaults."""

    ret_bars: int = Field(20, ge=1, description="h of bar_ret_20")
    ewma_lambda: float = Field(0.94, gt=0, lt=1, description="decay of bar_ewma_vol per bar")
    realized_vol_bars: int = Field(20, ge=1)
    parkinson_bars: int = Field(20, ge=1)
    garman_klass_bars: int = Field(20, ge=1)
    yang_zhang_bars: int = Field(20, ge=2)
    rsi_bars: int = Field(14, ge=2)
    macd_fast: int = Field(12, ge=2)
    macd_slow: int = Field(26, ge=3)
    macd_signal: int = Field(9, ge=1)
    boll_bars: int = Field(20, ge=2)
    natr_bars: int = Field(14, ge=2)
    adx_bars: int = Field(14, ge=2)
    donchian_bars: int = Field(20, ge=1)
    efficiency_bars: int = Field(10, ge=1)
    roc_bars: int = Field(10, ge=1)
    volume_z_bars: int = Field(20, ge=2)
    vwap_bars: int = Field(20, ge=1)
    amihud_bars: int = Field(20, ge=1)
    autocorr_bars: int = Field(50, ge=2)
    variance_ratio_step: int = Field(5, ge=2)
    variance_ratio_bars: int = Field(50, ge=2)
    beta_bars: int = Field(60, ge=2)
    ret_ticks: int = Field(20, ge=1, description="h of ret_20 and momentum_20")
    realized_vol_ticks: int = Field(50, ge=1)
    vwap_ticks: int = Field(50, ge=1, description="ticks that carry a size")
    imbalance_ticks: int = Field(50, ge=2, description="ticks that carry a size")
    ofi_ticks: int = Field(50, ge=1, description="good quotes with sizes")
    size_z_ticks: int = Field(50, ge=2, description="ticks that carry a size")
    vol_half_life: float = Field(60.0, gt=0, allow_inf_nan=False, description="s, of ewma_vol")
    intensity_half_life: float = Field(60.0, gt=0, allow_inf_nan=False, description="s")
    reference_symbol: str = Field("", description="of beta_60 and corr_60; empty: both null")
    reference_join: Literal["end", "span"] = Field(
        "end",
        description="end: bars with equal ends are a pair (time clocks, rows); "
        "span: the reference's return between our two closes (clocks that count ticks)",
    )
    bar_ns: int = Field(0, ge=0, description="ns of a time clock, 0 for the other clocks")
    exclude_overnight: bool = Field(
        False, description="returns across a session break are null and enter nothing"
    )
    zone: str = Field("UTC", description="IANA zone of tod_sin and tod_cos")

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is not a zone of the IANA database") from error
        return value

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.macd_fast >= self.macd_slow:
            raise ValueError("macd_fast must be below macd_slow")
        return self


def _windows(s: FeaturesSettings) -> dict[int, int]:
    longest = max(s.ret_bars, s.efficiency_bars, s.roc_bars, s.variance_ratio_step)
    return {
        layout.W_CLOSES: longest + 1,
        layout.W_RETURNS2: s.realized_vol_bars,
        layout.W_PARKINSON: s.parkinson_bars,
        layout.W_GARMAN_KLASS: s.garman_klass_bars,
        layout.W_OPEN_GAP: s.yang_zhang_bars,
        layout.W_OPEN_CLOSE: s.yang_zhang_bars,
        layout.W_ROGERS_SATCHELL: s.yang_zhang_bars,
        layout.W_BOLL: s.boll_bars,
        layout.W_HIGHS: s.donchian_bars,
        layout.W_LOWS: s.donchian_bars,
        layout.W_CHANGES: s.efficiency_bars,
        layout.W_VOLUME: s.volume_z_bars,
        layout.W_VWAP_PV: s.vwap_bars,
        layout.W_VWAP_V: s.vwap_bars,
        layout.W_AMIHUD: s.amihud_bars,
        layout.W_AUTOCORR: s.autocorr_bars,
        layout.W_STEPS: s.variance_ratio_bars,
        layout.W_RETURNS: s.variance_ratio_bars,
        layout.W_BETA: s.beta_bars,
        layout.W_WAITING: layout.WAITING,
        layout.W_PRICES: s.ret_ticks + 1,
        layout.W_TICK_RETURNS2: s.realized_vol_ticks,
        layout.W_TICK_PV: s.vwap_ticks,
        layout.W_TICK_V: s.vwap_ticks,
        layout.W_SIGNED: s.imbalance_ticks,
        layout.W_SIZED: s.imbalance_ticks,
        layout.W_OFI: s.ofi_ticks,
        layout.W_SIZES: s.size_z_ticks,
    }


@lru_cache(maxsize=64)
def _zone_table(name: str) -> Array:
    """Offsets of a zone from 1970 to 2106: int64 (2, m) of (from when, offset), both ns."""
    zone = ZoneInfo(name)

    def offset(at: int) -> int:
        found = datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()
        return 0 if found is None else round(found.total_seconds())

    starts, offsets = [-(2**33)], [offset(0)]
    weeks = range(0, _LAST_YEAR_END + _WEEK, _WEEK)
    known = [offset(at) for at in weeks]
    for (low, before), (high, now) in pairwise(zip(weeks, known, strict=True)):
        if before == now:
            continue
        left, right = low, high  # the change is in (left, right]
        while right - left > 1:
            middle = (left + right) // 2
            left, right = (middle, right) if offset(middle) == before else (left, middle)
        starts.append(right)
        offsets.append(now)
    return np.array([starts, offsets], np.int64) * 1_000_000_000


def _plain(columns: Mapping[str, Array], names: Sequence[str]) -> tuple[Array, ...]:
    """Columns the compiled loop takes as they are; others would each cost another compilation."""
    return tuple([v if v.flags.carray else v.copy() for v in [columns[name] for name in names]])


class Features:
    """The features of one partition (QUANT 1)."""

    name: ClassVar[str] = "features"

    def __init__(self, settings: FeaturesSettings) -> None:
        self._settings = settings
        s = settings
        self._plan, floats, counters = layout.plan(_windows(s))
        self._units = units_of(self._plan, floats)
        self._periods = np.array(
            [
                s.rsi_bars,
                s.natr_bars,
                s.adx_bars,
                s.macd_fast,
                s.macd_slow,
                s.macd_signal,
                s.ret_bars,
                s.roc_bars,
                s.variance_ratio_step,
            ],
            np.int64,
        )
        self._half_lives = np.array([s.vol_half_life, s.intensity_half_life])
        self._zone = _zone_table(s.zone)
        self._join = -1 if s.reference_join == "span" else s.bar_ns
        self._symbols = 0
        self._looked = 0
        self._reference = -1
        self._floats = np.zeros((0, floats))
        self._counters = np.zeros((0, counters), np.int64)
        self._ring_ends = np.zeros(layout.REFERENCE_BARS, np.int64)
        self._ring_returns = np.zeros(layout.REFERENCE_BARS)
        self._ring_count = np.zeros(1, np.int64)

    @property
    def state_bytes(self) -> int:
        """Bytes of state of one symbol."""
        return 8 * (self._floats.shape[1] + self._counters.shape[1])

    def step(self, block: Block) -> Block:
        """The block with a row of features for each of its bars."""
        ticks, bars = block.rows["ticks"], block.rows["bars"]
        symbols = ticks.symbols
        if self._reference < 0:  # codes are for ever: look among the new ones only
            for code in range(self._looked, len(symbols)):
                if symbols[code] == self._settings.reference_symbol:
                    self._reference = code
            self._looked = len(symbols)
        self._symbols = max(self._symbols, len(symbols))
        self._floats = grown(self._floats, self._symbols, 0.0)
        self._counters = grown(self._counters, self._symbols, 0)
        n = len(bars)
        out = room(len(FEATURES), n)
        out.fill(math.nan)
        symbol, flag, ts, side = _plain(ticks.columns, _TICKS)
        bar_symbol, bar_ts, bar_session = _plain(bars.columns, _BARS)
        kernels.run(
            symbol,
            flag,
            ts,
            _plain(ticks.columns, _NUMBERS),
            side,
            _plain(ticks.columns, _MARKS),
            _plain(ticks.columns, _SCALES),
            bar_symbol,
            bar_ts,
            _plain(bars.columns, _PRICES),
            bar_session,
            not self._settings.exclude_overnight,
            beside(block.at, n),
            block.after,
            self._floats,
            self._counters,
            self._plan,
            self._units,
            self._periods,
            self._settings.ewma_lambda,
            self._half_lives,
            self._zone,
            self._reference,
            self._join,
            self._ring_ends,
            self._ring_returns,
            self._ring_count,
            out,
        )
        if not n:
            return block.plus(empty(self.name, 0, bars.symbols))
        columns = head(bars)
        columns.update(zip(FEATURES, out[:, :n], strict=True))
        return block.plus(Rows(self.name, columns, bars.symbols))

    def snapshot(self) -> State:
        """The whole state as arrays by name; `plan` tells the periods it was made with."""
        return {
            "floats": self._floats[: self._symbols].copy(),
            "counters": self._counters[: self._symbols].copy(),
            "plan": self._plan.copy(),
            "ring_ends": self._ring_ends.copy(),
            "ring_returns": self._ring_returns.copy(),
            "ring_count": self._ring_count.copy(),
        }

    def restore(self, state: State) -> None:
        """Continue from a snapshot, bit for bit.

        Raises:
            ValueError: the snapshot was made with other periods.
        """
        same = np.array_equal(state["plan"], self._plan)
        widths = state["floats"].shape[1], state["counters"].shape[1]
        if not same or widths != (self._floats.shape[1], self._counters.shape[1]):
            raise ValueError("the snapshot of features was made with other periods")
        self._floats = state["floats"].copy()
        self._counters = state["counters"].copy()
        self._symbols = len(self._floats)
        self._looked = 0
        self._reference = -1
        self._ring_ends = state["ring_ends"].copy()
        self._ring_returns = state["ring_returns"].copy()
        self._ring_count = state["ring_count"].copy()

    def rename(self, old: int, new: int) -> None:
        """Move the state of one symbol to another; the old one starts anew."""
        self._symbols = max(self._symbols, old + 1, new + 1)
        arrays: dict[str, Array] = {"floats": self._floats, "counters": self._counters}
        moved(arrays, old, new)
        self._floats, self._counters = arrays["floats"], arrays["counters"]
