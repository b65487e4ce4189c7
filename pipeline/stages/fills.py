"""Fills: paper orders from signals, filled at the next execution reference after the decision."""

from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.kernels import fills as kernels
from pipeline.stages.base import HEAD, Block, PerSymbol, beside, grow
from schemas.blocks import Array, empty

_MARKS: Final = (
    "symbol", "offset", "index", "ts", "trigger_ts", "exec_ts", "session", "life", "stale"
)  # fmt: skip
_NUMBERS: Final = (
    "close", "volume", "exec_price", "exec_bid", "exec_ask", "scale", "volume_scale"
)  # fmt: skip
BARS_READ: Final = tuple(dict.fromkeys((*HEAD, *_MARKS, *_NUMBERS)))
"""Columns of `bars` that this stage, the one before it and the one behind it read."""
_FLOATS: Final = {
    "quantity": kernels.QUANTITY,
    "price": kernels.PRICE,
    "reference": kernels.REFERENCE,
    "fee": kernels.OUT_FEE,
    "slippage": kernels.SLIPPED,
    "pnl": kernels.OUT_PNL,
    "position": kernels.OUT_POSITION,
    "cash": kernels.OUT_CASH,
}
_INTS: Final = {
    "side": kernels.OUT_SIDE,
    "reason": kernels.OUT_REASON,
    "ts": kernels.OUT_TS,
    "decided_ts": kernels.OUT_DECIDED_TS,
}
_MODES: Final = {
    "next_quote": kernels.NEXT_QUOTE,
    "next_trade": kernels.NEXT_TRADE,
    "next_open": kernels.NEXT_OPEN,
    "close": kernels.CLOSE,
}
_SIZINGS: Final = {
    "fraction": kernels.FRACTION,
    "volatility": kernels.VOLATILITY,
    "fixed": kernels.FIXED,
}
_BP: Final = 1e-4

Bp = Annotated[float, Field(ge=0, lt=10_000, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class FillsSettings(BaseModel):
    """One book of paper money for each symbol: how it is sized, filled, charged and limited.

    Latency is `bars.execution_latency`. Money is borrowed only with `max_leverage` above 1, at no
    interest; short positions pay none either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["next_quote", "next_trade", "next_open", "close"] = Field(
        "next_trade",
        description="buy at ask and sell at bid; the trade and half the spread; the trade; "
        "close: at the very price that was decided on, for research only",
    )
    cash: Positive = Field(1_000_000.0, description="what each book begins with")
    sizing: Literal["fraction", "volatility", "fixed"] = "fraction"
    fraction: Positive = Field(1.0, description="sizing fraction: of the equity")
    vol_target_bp: Positive = Field(
        10.0, description="sizing volatility: bp of the equity that a bar should move it"
    )
    quantity: Positive = Field(1.0, description="sizing fixed: units of the instrument")
    long_only: bool = Field(False, description="sell means flat, not short")
    on_hold: Literal["keep", "flat"] = "keep"
    any_session: bool = Field(
        False, description="take the first price after a break; with the clock row always"
    )
    taker_bp: Bp = Field(1.0, description="fee of taking liquidity, of the traded value")
    maker_bp: Bp = Field(0.0, description="fee of giving it")
    liquidity: Literal["taker", "maker"] = Field(
        "taker", description="which of the two is paid; maker assumes that orders rest and fill"
    )
    fee_per_unit: Amount = Field(0.0, description="fee for each unit, on top")
    fee_minimum: Amount = Field(0.0, description="least fee of an order")
    slippage_bp: Bp = 0.0
    half_spread_bp: Bp = Field(0.0, description="paid where the reference carries no quote")
    impact: Amount = Field(
        0.0, description="y of y sigma sqrt(quantity / mean volume), both of a bar"
    )
    participation: Share | None = Field(None, description="most of a bar's mean volume to trade")
    max_position: Positive | None = Field(None, description="units, long or short")
    max_leverage: Positive = Field(1.0, description="value of the position to equity, at an order")
    max_drawdown: Share | None = Field(None, description="from the peak: sell all and stop")
    daily_loss: Share | None = Field(None, description="sell all and stop until the next UTC day")


class Fills(PerSymbol):
    """Trades what signals say; a decision is never filled at or before its own trigger.

    The one exception is `mode` close. No fill at a reference that is stale, crossed, one-sided, not
    positive, or the first one after a break of the session: it is counted, and the order waits.
    """

    name: ClassVar[str] = "fills"

    def __init__(self, settings: FillsSettings, latency: int = 0, *, rows: bool = False) -> None:
        """Args: the settings, the latency in ns, and whether the clock is `row`."""
        self._ints, self._rates = _constants(settings, latency, rows=rows)
        self._arrays: dict[str, Array] = {
            "floats": np.empty((0, kernels.FLOAT_STATE)),
            "ints": np.empty((0, kernels.INT_STATE), np.int64),
        }

    def step(self, block: Block) -> Block:
        """Add one row for each fill, and the books before and after each bar."""
        bars, signals = block.rows["bars"], block.rows["signals"]
        arrays = self._arrays
        grow(arrays, len(bars.symbols))
        n = len(bars)
        floats = np.empty((n, kernels.FLOAT_OUT))
        ints = np.empty((n, kernels.INT_OUT), np.int64)
        books = np.empty((n, 2, kernels.BOOK))
        columns, said = bars.columns, signals.columns
        sigma = beside(block.rows["features"]["bar_ewma_vol"], n)
        found = kernels.fills(
            self._ints,
            self._rates,
            tuple([columns[name] for name in _MARKS]),
            (*[columns[name] for name in _NUMBERS], sigma),
            (said["offset"], said["index"], said["action"]),
            arrays["floats"],
            arrays["ints"],
            ints,
            floats,
            books,
        )
        filled_at = np.full(n, -1, np.int64)
        if not found:
            return block.plus(empty(self.name, 0, bars.symbols), books=books, filled_at=filled_at)
        at = ints[:found, kernels.OUT_AT]
        rows = empty(self.name, found, bars.symbols)
        for name in HEAD:
            rows.columns[name][:] = columns[name][at]
        for name, place in _FLOATS.items():
            rows.columns[name][:] = floats[:found, place]
        for name, place in _INTS.items():
            rows.columns[name][:] = ints[:found, place]
        filled_at[at] = rows["ts"]
        return block.plus(rows, books=books, filled_at=filled_at)


def _constants(settings: FillsSettings, latency: int, *, rows: bool) -> tuple[Array, Array]:
    """The settings as the kernel takes them: rates as fractions, no limit as infinity."""
    ints = np.empty(kernels.INT_SETTINGS, np.int64)
    ints[kernels.MODE] = _MODES[settings.mode]
    ints[kernels.SIZING] = _SIZINGS[settings.sizing]
    ints[kernels.LONG_ONLY] = settings.long_only
    ints[kernels.FLAT_ON_HOLD] = settings.on_hold == "flat"
    ints[kernels.ANY_SESSION] = settings.any_session or rows
    ints[kernels.LATENCY] = latency
    sizes = {
        "fraction": settings.fraction,
        "volatility": settings.vol_target_bp * _BP,
        "fixed": settings.quantity,
    }
    fee_bp = settings.taker_bp if settings.liquidity == "taker" else settings.maker_bp
    rates = np.empty(kernels.FLOAT_SETTINGS)
    rates[kernels.START_CASH] = settings.cash
    rates[kernels.SIZE] = sizes[settings.sizing]
    rates[kernels.FEE] = fee_bp * _BP
    rates[kernels.FEE_PER_UNIT] = settings.fee_per_unit
    rates[kernels.FEE_MINIMUM] = settings.fee_minimum
    rates[kernels.SLIPPAGE] = settings.slippage_bp * _BP
    rates[kernels.HALF_SPREAD] = settings.half_spread_bp * _BP
    rates[kernels.IMPACT] = settings.impact
    rates[kernels.PARTICIPATION] = settings.participation or np.inf
    rates[kernels.MAX_POSITION] = settings.max_position or np.inf
    rates[kernels.MAX_LEVERAGE] = settings.max_leverage
    rates[kernels.MAX_DRAWDOWN] = settings.max_drawdown or np.inf
    rates[kernels.DAILY_LOSS] = settings.daily_loss or np.inf
    return ints, rates
