"""Predictions: what each engine gives for a rise over the horizon, and their combination."""

from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.kernels import predictions as kernels
from pipeline.stages.base import Block, Stage, State, grown, head, moved
from schemas.blocks import Array

_COLUMNS = {
    "p_up": kernels.P_UP,
    "p_momentum": kernels.P_MOMENTUM,
    "p_base_rate": kernels.P_BASE_RATE,
    "w_momentum": kernels.W_MOMENTUM,
    "w_base_rate": kernels.W_BASE_RATE,
    "sigma": kernels.SIGMA,
}


class PredictionsSettings(BaseModel):
    """The horizon in bars and how steeply momentum turns into probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizon: int = Field(5, ge=1, le=10_000)
    momentum_scale: float = Field(0.5, ge=-10, le=10)


class Predictions(Stage):
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
        features = block.rows["features"]
        arrays = self._arrays
        for name, array in arrays.items():
            arrays[name] = grown(array, len(bars.symbols), 0)
        n = len(bars)
        out = np.empty((n, kernels.OUTPUTS))
        kernels.predictions(
            self._settings.horizon,
            self._settings.momentum_scale,
            bars["symbol"],
            bars["life"],
            bars["scale"],
            bars["stale"],
            bars["close"],
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
        rows = head(bars, self.name, n)
        rows.columns["horizon"][:] = self._settings.horizon
        for name, place in _COLUMNS.items():
            rows.columns[name][:] = out[:, place]
        rows.columns["close"][:] = bars["close"]
        return block.plus(rows)

    def snapshot(self) -> State:
        """Closes that wait for their label, and the counts, copied."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def restore(self, state: State) -> None:
        """Continue from a snapshot."""
        self._arrays = {name: state[name].copy() for name in self._arrays}

    def rename(self, old: int, new: int) -> None:
        """Move the state of one symbol to another."""
        moved(self._arrays, old, new)
