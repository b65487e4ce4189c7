"""A stage that keeps a window's first bars from being traded on: they stand too near to a test."""

from typing import ClassVar

import numpy as np

from pipeline.stages.base import Block, PerSymbol, grow
from schemas.blocks import Array, Rows


class Silence(PerSymbol):
    """Nothing is said, by an engine or by the column that decides, of the first bars of a symbol.

    It stands before the signals: of the bar behind them the first action is what is said then.
    """

    name: ClassVar[str] = "silence"

    def __init__(self, bars: int, follow: str | None) -> None:
        self._bars = bars
        self._follow = follow
        self._arrays: dict[str, Array] = {"seen": np.empty(0, np.int64)}

    def step(self, block: Block) -> Block:
        """Null the probabilities, and the column, of bars that are not far enough."""
        predictions = block.rows["predictions"]
        grow(self._arrays, len(predictions.symbols))
        near = self._near(predictions["symbol"])
        if not near.any():
            return block
        names = [name for name in predictions.columns if name.startswith("p_")]
        block = block.plus(_nulled(predictions, names, near))
        if self._follow is None:
            return block
        return block.plus(_nulled(block.rows["features"], [self._follow], near))

    def _near(self, symbols: Array) -> Array:
        """Which bars are among the first of their symbol, bool (n,)."""
        seen = self._arrays["seen"]
        order = np.argsort(symbols, kind="stable")
        codes, first, counts = np.unique(symbols[order], return_index=True, return_counts=True)
        place = np.empty(len(symbols), np.int64)
        place[order] = np.arange(len(symbols)) - np.repeat(first, counts)
        near: Array = seen[symbols] + place < self._bars
        seen[codes] += counts
        return near


def _nulled(rows: Rows, names: list[str], at: Array) -> Rows:
    nulled = {name: np.where(at, np.nan, rows[name]) for name in names}
    return Rows(rows.stage, {**rows.columns, **nulled}, rows.symbols)
