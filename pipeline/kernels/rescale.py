"""Corporate actions on the state of a symbol: levels change their units, returns stay."""

from typing import Final

from pipeline.kernels.hot import piece, rare
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
)
from schemas.blocks import Array

_PRICES: Final = (PRICE, BEFORE, BID, ASK, OFI_BID, OFI_ASK, HIGH, LOW, CLOSE, TOP)
_SIZES: Final = (BID_SIZE, ASK_SIZE, OFI_BID_SIZE, OFI_ASK_SIZE)
# The last float of ADX is the index itself, a ratio.
_RUNS: Final = ((RSI, RSI_FLOATS), (ATR, ATR_FLOATS), (ADX, ADX_FLOATS - 1), (MACD, MACD_FLOATS))


@piece
def _scale(f: Array, start: int, n: int, by: float) -> None:
    for i in range(start, start + n):
        f[i] *= by


@piece
def _scale_moments(f: Array, plan: Array, window: int, by: float) -> None:
    """A window of mean and variance: anchor, back mean, back M2, n slots of (value or mean, M2)."""
    a = plan[window, 1]
    f[a] *= by
    for i in range(plan[window, 0] + 1):
        f[a + 1 + 2 * i] *= by
        f[a + 2 + 2 * i] *= by * by


@rare
def rescale(f: Array, plan: Array, prices: float, sizes: float) -> None:
    """Bring the state row f of a symbol into new units.

    Args:
        f: floats of the symbol, changed.
        plan: places of the windows.
        prices: what earlier prices are multiplied by.
        sizes: what earlier sizes are multiplied by.
    """
    for place in _PRICES:
        f[place] *= prices
    for place in _SIZES:
        f[place] *= sizes
    for start, n in _RUNS:
        _scale(f, start, n, prices)
    _scale(f, plan[W_CLOSES, 1], plan[W_CLOSES, 0], prices)
    _scale(f, plan[W_PRICES, 1], plan[W_PRICES, 0], prices)
    # Sums and maxima hold one float more than values.
    for window in (W_HIGHS, W_LOWS, W_CHANGES):
        _scale(f, plan[window, 1], plan[window, 0] + 1, prices)
    for window in (W_VWAP_V, W_TICK_V, W_SIGNED, W_SIZED, W_OFI):
        _scale(f, plan[window, 1], plan[window, 0] + 1, sizes)
    for window in (W_VWAP_PV, W_TICK_PV):
        _scale(f, plan[window, 1], plan[window, 0] + 1, prices * sizes)
    _scale(f, plan[W_AMIHUD, 1], plan[W_AMIHUD, 0] + 1, 1.0 / (prices * sizes))
    _scale_moments(f, plan, W_BOLL, prices)
    _scale_moments(f, plan, W_VOLUME, sizes)
    _scale_moments(f, plan, W_SIZES, sizes)
