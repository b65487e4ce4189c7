"""Signals: buy, sell or hold with edge and confidence, a row only when the action changes."""

from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import MisuseError
from pipeline.kernels import signals as kernels
from pipeline.stages.base import Block, Stage, State, beside, cut, grown, head, moved, room
from schemas.blocks import Array, Rows, empty, names_of


class SignalsSettings(BaseModel):
    """What a round of trading costs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cost_bp: float = Field(0.25, ge=0, description="cost of acting, in basis points of the price")
    follow: str | None = Field(
        None,
        description="a column of features, a user's own too, that decides instead of p_up: "
        "above 0 buy, below 0 sell, 0 hold, null says nothing",
    )


class Signals(Stage):
    """Weighs the combined probability against costs."""

    name: ClassVar[str] = "signals"

    def __init__(self, settings: SignalsSettings) -> None:
        if settings.follow is not None and settings.follow not in names_of("features"):
            raise MisuseError(f"signals.follow: features has no column {settings.follow}")
        self._settings = settings
        self._last_action: Array = np.empty(0, np.int64)
        self._life: Array = np.empty(0, np.int64)

    def step(self, block: Block) -> Block:
        """Add one row for each change of action."""
        predictions = block.rows["predictions"]
        n = len(predictions)
        symbols = predictions.symbols
        self._last_action = grown(self._last_action, len(symbols), -1)
        self._life = grown(self._life, len(symbols), 0)
        action = np.empty(n, np.int32)
        out = room(kernels.OUTPUTS, n)
        changed = np.empty(n, np.int64)
        columns = predictions.columns
        life = beside(block.rows["bars"]["life"], n)
        state = (self._life, self._last_action)
        follow = self._settings.follow
        if follow is None:
            cost, sigma = self._settings.cost_bp, columns["sigma"]
            found = kernels.signals(
                cost, columns["symbol"], life, columns["p_up"], sigma, *state, action, out, changed
            )
        else:
            out.fill(np.nan)
            said = beside(block.rows["features"][follow], n)
            found = kernels.followed(columns["symbol"], life, said, *state, action, changed)
        if not found:
            return block.plus(empty(self.name, 0, symbols))
        at = changed[:found]
        rows = {name: values[at] for name, values in head(predictions).items()}
        rows["action"] = cut(action, found)
        rows["edge_bp"], rows["confidence"] = cut(out, found)
        rows["p_up"] = columns["p_up"][at]
        rows["price"] = columns["close"][at]
        rows["horizon"] = columns["horizon"][at]
        return block.plus(Rows(self.name, rows, symbols))

    def snapshot(self) -> State:
        """The last action of each symbol, copied."""
        return {"last_action": self._last_action.copy(), "life": self._life.copy()}

    def restore(self, state: State) -> None:
        """Continue from a snapshot."""
        self._last_action = state["last_action"].copy()
        self._life = state["life"].copy()

    def rename(self, old: int, new: int) -> None:
        """Move the state of one symbol to another."""
        arrays = {"last_action": self._last_action}
        moved(arrays, old, new, -1)
        self._last_action = arrays["last_action"]
        arrays = {"life": self._life}
        moved(arrays, old, new)
        self._life = arrays["life"]
