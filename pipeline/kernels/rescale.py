"""Corporate actions on the state of a symbol: levels change their units, returns stay."""

from typing import Final

import numpy as np

from pipeline.kernels.hot import rare
from pipeline.kernels.indicators import ADX_FLOATS, ATR_FLOATS, MACD_FLOATS, RSI_FLOATS
from pipeline.kernels.layout import (
    ADX,
    ASK,
    ASK_SIZE,
    ATR,
    BEFORE,
    BID,
    BID_SIZE,
    CLOSE,
    HIGH,
    LOW,
    MACD,
    OFI_ASK,
    OFI_ASK_SIZE,
    OFI_BID,
    OFI_BID_SIZE,
    PRICE,
    RSI,
    TOP,
    W_AMIHUD,
    W_BOLL,
    W_CHANGES,
    W_CLOSES,
    W_HIGHS,
    W_LOWS,
    W_OFI,
    W_PRICES,
    W_SIGNED,
    W_SIZED,
    W_SIZES,
    W_TICK_PV,
    W_TICK_V,
    W_VOLUME,
    W_VWAP_PV,
    W_VWAP_V,
    shape_of,
)
from schemas.blocks import Array

# What a float of the state is measured in.
NOTHING, PRICES, SIZES, NOTIONALS, PER_NOTIONAL, PRICES2, SIZES2 = range(7)
_SQUARES: Final = {PRICES: PRICES2, SIZES: SIZES2}
_SCALARS: Final = {
    PRICES: (PRICE, BEFORE, BID, ASK, OFI_BID, OFI_ASK, HIGH, LOW, CLOSE, TOP),
    SIZES: (BID_SIZE, ASK_SIZE, OFI_BID_SIZE, OFI_ASK_SIZE),
}
# The last float of ADX is the index itself, a ratio.
_RUNS: Final = ((RSI, RSI_FLOATS), (ATR, ATR_FLOATS), (ADX, ADX_FLOATS - 1), (MACD, MACD_FLOATS))
_VALUES: Final = {
    PRICES: (W_CLOSES, W_PRICES, W_HIGHS, W_LOWS, W_CHANGES),
    SIZES: (W_VWAP_V, W_TICK_V, W_SIGNED, W_SIZED, W_OFI),
    NOTIONALS: (W_VWAP_PV, W_TICK_PV),
    PER_NOTIONAL: (W_AMIHUD,),
}
_MOMENTS: Final = {PRICES: (W_BOLL,), SIZES: (W_VOLUME, W_SIZES)}


def units_of(plan: Array, floats: int) -> Array:
    """The unit of each float of a symbol's row, int8 (floats,), by the plan of its windows."""
    units = np.zeros(floats, np.int8)
    for unit, places in _SCALARS.items():
        units[list(places)] = unit
    for start, n in _RUNS:
        units[start : start + n] = PRICES
    for unit, windows in _VALUES.items():
        for window in windows:
            n, a, _, s, width = plan[window]
            units[a : a + shape_of(window)[0]] = unit
            units[s : s + n * width] = unit
    for unit, windows in _MOMENTS.items():
        for window in windows:  # anchor, mean, M2; slots of (value or mean, M2)
            n, a, _, s, _ = plan[window]
            units[a : a + 3] = unit, unit, _SQUARES[unit]
            units[s : s + 2 * n : 2] = unit
            units[s + 1 : s + 2 * n : 2] = _SQUARES[unit]
    return units


@rare
def rescale(f: Array, units: Array, prices: float, sizes: float) -> None:
    """Bring the state row f of a symbol into new units.

    Args:
        f: floats of the symbol, changed.
        units: what each float is measured in.
        prices: what earlier prices are multiplied by.
        sizes: what earlier sizes are multiplied by.
    """
    notionals = prices * sizes
    by = (1.0, prices, sizes, notionals, 1.0 / notionals, prices * prices, sizes * sizes)
    for j in range(f.shape[0]):
        f[j] *= by[units[j]]
