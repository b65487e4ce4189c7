"""Regimes: volatility tercile and trend of each bar, from what was known at its close."""

from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.kernels import regimes as kernels
from pipeline.stages.base import Block, PerSymbol, grow, head, room
from schemas.blocks import Array, Rows, empty


class RegimesSettings(BaseModel):
    """Windows in bars and the efficiency ratio from which a market trends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vol_window: int = Field(252, ge=3, le=10_000)
    trend_window: int = Field(20, ge=2, le=10_000)
    trend_above: float = Field(0.3, ge=0, le=1)


class Regimes(PerSymbol):
    """Tags low | mid | high and range | trend; null until the windows are full."""

    name: ClassVar[str] = "regimes"

    def __init__(self, settings: RegimesSettings) -> None:
        self._settings = settings
        self._arrays: dict[str, Array] = {
            "vol_sorted": np.empty((0, settings.vol_window)),
            "vol_ring": np.empty((0, settings.vol_window)),
            "floats": np.empty((0, kernels.floats_needed(settings.trend_window))),
            "ints": np.empty((0, kernels.INT_STATE), np.int64),
        }

    def step(self, block: Block) -> Block:
        """Add one row of tags per bar."""
        bars = block.rows["bars"]
        arrays = self._arrays
        grow(arrays, len(bars.symbols))
        n = len(bars)
        labels = room(kernels.LABELS, n, np.int32)
        floats = room(kernels.FLOATS, n)
        floats.fill(np.nan)
        columns = bars.columns
        kernels.regimes(
            self._settings.trend_window,
            self._settings.trend_above,
            columns["symbol"],
            columns["life"],
            columns["scale"],
            columns["close"],
            block.rows["features"]["bar_ewma_vol"],
            arrays["vol_sorted"],
            arrays["vol_ring"],
            arrays["floats"],
            arrays["ints"],
            labels,
            floats,
        )
        if not n:
            return block.plus(empty(self.name, 0, bars.symbols))
        rows = head(bars)
        rows["vol"], rows["trend"] = labels[:, :n]
        rows["efficiency_ratio"], rows["vol_low"], rows["vol_high"] = floats[:, :n]
        return block.plus(Rows(self.name, rows, bars.symbols))
