"""From a probability and costs to an action, kept only when it changes."""

import numpy as np

from pipeline.kernels.hot import loop
from schemas.blocks import Array

HOLD, BUY, SELL = 0, 1, 2
EDGE, CONFIDENCE = 0, 1
OUTPUTS = 2

# E|r| of a centred normal return is sigma * sqrt(2 / pi).
MEAN_ABSOLUTE = 0.7978845608028654


@loop
def signals(
    cost_bp: float,
    symbol: Array,
    life: Array,
    p_up: Array,
    sigma: Array,
    life_state: Array,
    last_action: Array,
    action: Array,
    out: Array,
    changed: Array,
) -> int:
    """Decide bars of shape (n,); returns how many actions changed, their places in `changed`.

    The edge is (2p - 1) times the mean absolute return over the horizon, in bp, less `cost_bp`; act
    only on a positive one. Rows without probability or volatility decide nothing.
    """
    found = 0
    for i in range(symbol.shape[0]):
        s = symbol[i]
        if life[i] != life_state[s]:
            life_state[s] = life[i]
            last_action[s] = -1
        if np.isnan(p_up[i]) or np.isnan(sigma[i]):
            continue
        lean = 2.0 * p_up[i] - 1.0
        edge = abs(lean) * sigma[i] * MEAN_ABSOLUTE * 1e4 - cost_bp
        what = HOLD
        if edge > 0.0:
            what = BUY if lean > 0.0 else SELL
        if last_action[s] != what:
            last_action[s] = what
            action[found] = what
            out[EDGE, found] = edge
            out[CONFIDENCE, found] = abs(lean)
            changed[found] = i
            found += 1
    return found


@loop
def followed(
    symbol: Array,
    life: Array,
    column: Array,
    life_state: Array,
    last_action: Array,
    action: Array,
    changed: Array,
) -> int:
    """The same for a column that says itself what to do: its sign, or nothing where it is null."""
    found = 0
    for i in range(symbol.shape[0]):
        s = symbol[i]
        if life[i] != life_state[s]:
            life_state[s] = life[i]
            last_action[s] = -1
        if np.isnan(column[i]):
            continue
        what = HOLD
        if column[i] > 0.0:
            what = BUY
        elif column[i] < 0.0:
            what = SELL
        if last_action[s] != what:
            last_action[s] = what
            action[found] = what
            changed[found] = i
            found += 1
    return found
