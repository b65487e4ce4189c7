"""Predictions: what each engine gives for a rise over the horizon, and their combination."""

from typing import ClassVar, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.kernels import predictions as kernels
from pipeline.stages.base import Block, PerSymbol, grow, head, room
from schemas.blocks import Array, Rows, empty

# The columns that the kernel fills, in the order of its outputs.
_COLUMNS: Final = ("p_up", "p_momentum", "p_base_rate", "w_momentum", "w_base_rate", "sigma")


class PredictionsSettings(BaseModel):
    """The horizon in bars and how steeply momentum turns into probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizon: int = Field(5, ge=1, le=10_000)
    momentum_scale: float = Field(0.5, ge=-10, le=10)


class Predictions(PerSymbol):
    """Two engines, momentum and base_rate, at even weights; matured labels teach base_rate."""

    name: ClassVar[str] = "predictions"

    def __init__(self, settings: PredictionsSettings) -> None:
        self._settings = settings
        self._arrays: dict[str, Array] = {
            "life": np.empty(0, np.int64),
            "scale": np.empty(0),
            "close_ring": np.empty((0, settings.horizon)),
            "bar_count": np.empty(0, np.int64),
            "rises": np.empty(0, np.int64),
            "labels": np.empty(0, np.int64),
        }

    def step(self, block: Block) -> Block:
        """Add one row of probabilities per bar."""
        bars = block.rows["bars"]
        arrays = self._arrays
        grow(arrays, len(bars.symbols))
        n = len(bars)
        out = room(kernels.OUTPUTS, n)
        columns = bars.columns
        features = block.rows["features"].columns
        kernels.predictions(
            self._settings.horizon,
            self._settings.momentum_scale,
            columns["symbol"],
            columns["life"],
            columns["scale"],
            columns["stale"],
            columns["close"],
            features["bar_ret_20"],
            features["bar_ewma_vol"],
            arrays["life"],
            arrays["scale"],
            arrays["close_ring"],
            arrays["bar_count"],
            arrays["rises"],
            arrays["labels"],
            out,
        )
        if not n:
            return block.plus(empty(self.name, 0, bars.symbols))
        rows = head(bars)
        rows["horizon"] = np.empty(n, np.int32)
        rows["horizon"].fill(self._settings.horizon)
        rows.update(zip(_COLUMNS, out[:, :n], strict=True))
        rows["close"] = columns["close"]
        return block.plus(Rows(self.name, rows, bars.symbols))
