"""Features that every closed bar updates (QUANT 1.3, 1.4 and 1.6; golden_features.py)."""

import math

from pipeline.kernels.hot import once, piece
from pipeline.kernels.indicators import adx_step, atr_step, macd_step, rsi_step, true_range
from pipeline.kernels.layout import (
    ADX,
    ADX_SEEN,
    ATR,
    ATR_SEEN,
    BAR_HELD,
    BAR_RET,
    BAR_VAR,
    BARS,
    BEFORE,
    CLOSE,
    HAS_RET,
    HELD,
    HIGH,
    LOW,
    MACD,
    MACD_SEEN,
    PRICE,
    RET,
    RETURNS,
    RSI,
    RSI_SEEN,
    TOP,
    W_AMIHUD,
    W_AUTOCORR,
    W_BOLL,
    W_CHANGES,
    W_CLOSES,
    W_HIGHS,
    W_LOWS,
    W_RETURNS,
    W_RETURNS2,
    W_STEPS,
    W_VOLUME,
    W_VWAP_PV,
    W_VWAP_V,
    WILD,
    log_ratio,
    place,
    wild,
)
from pipeline.kernels.ranges import ranges_update
from pipeline.kernels.windows import (
    full,
    held,
    inverse,
    lag_push,
    lag_read,
    max_push,
    max_read,
    moments_push,
    moments_read,
    pairs_push,
    pairs_read,
    sum_push,
    sum_read,
)
from schemas.blocks import Array

NAN = math.nan
# Places in the table of periods that are not windows.
P_RSI, P_ATR, P_ADX, P_FAST, P_SLOW, P_SIGNAL, P_LAG, P_ROC, P_STEP = range(9)


@piece
def _return(f: Array, k: Array, close: float, counted: bool) -> float:
    """The log return of this bar; NaN without one that counts."""
    before = f[CLOSE]
    if not counted or k[BARS] == 0 or not (close > 0.0 and before > 0.0):
        return NAN
    # Where every tick is a bar, the tick took the logarithm already: same inputs, same bits.
    if k[HELD] & HAS_RET and close == f[PRICE] and before == f[BEFORE]:
        shared: float = f[RET]
        return shared
    return log_ratio(close, before)


@piece
def _on_returns(
    f: Array, k: Array, plan: Array, decay: float, ret: float, out: Array, i: int
) -> None:
    """Columns 0, 2, 3, 20: what lives on returns."""
    if ret != ret:  # noqa: PLR0124 -- NaN: no return
        k[BAR_HELD] = 0
        return
    square = ret * ret
    f[BAR_VAR] = decay * f[BAR_VAR] + (1.0 - decay) * square if k[RETURNS] > 0 else square
    k[RETURNS] += 1
    sum_push(f, k, place(plan, W_RETURNS2), square)
    moments_push(f, k, place(plan, W_RETURNS), ret)
    out[0, i] = ret
    out[2, i] = math.sqrt(f[BAR_VAR])
    if full(k, place(plan, W_RETURNS2)):
        out[3, i] = math.sqrt(sum_read(f, k, place(plan, W_RETURNS2)))
    if k[BAR_HELD] == 1:
        w = place(plan, W_AUTOCORR)
        pairs_push(f, k, w, ret, f[BAR_RET])
        if full(k, w):
            cxx, cxy, cyy = pairs_read(f, k, w)
            if cxx > 0.0 and cyy > 0.0:
                out[20, i] = cxy / math.sqrt(cxx * cyy)
    f[BAR_RET] = ret
    k[BAR_HELD] = 1


@piece
def _on_closes(
    f: Array, k: Array, plan: Array, periods: Array, c: float, out: Array, i: int
) -> None:
    """Columns 1, 11, 15, 16, 21, 22: what lives on closes alone."""
    w = place(plan, W_CLOSES)
    lag_push(f, k, w, c)
    count = k[BARS] + 1
    have = held(k, w)
    lag = periods[P_LAG]
    if have > lag:
        before = lag_read(f, k, w, lag)
        if c > 0.0 and before > 0.0:
            out[1, i] = log_ratio(c, before)
    b = place(plan, W_BOLL)
    moments_push(f, k, b, c)
    if full(k, b):
        mean, m2 = moments_read(f, k, b)
        if m2 > 0.0:
            out[11, i] = (c - f[b[1]] - mean) / math.sqrt(m2 * inverse(b[0]))
    if count > 1:
        sum_push(f, k, place(plan, W_CHANGES), abs(c - f[CLOSE]))
    lag = plan[W_CHANGES, 0]
    if have > lag:
        path = sum_read(f, k, place(plan, W_CHANGES))
        net = abs(c - lag_read(f, k, w, lag))
        # TA-Lib: 1 where nothing moved, and never above 1 by rounding.
        out[15, i] = net / path if path > net else 1.0
    lag = periods[P_ROC]
    if have > lag:
        before = lag_read(f, k, w, lag)
        if before != 0.0:
            out[16, i] = (c / before - 1.0) * 100.0
    lag = periods[P_STEP]
    if have > lag:
        before = lag_read(f, k, w, lag)
        if c > 0.0 and before > 0.0:
            moments_push(f, k, place(plan, W_STEPS), log_ratio(c, before))
            if full(k, place(plan, W_STEPS)) and full(k, place(plan, W_RETURNS)):
                _, steps = moments_read(f, k, place(plan, W_STEPS))
                _, ones = moments_read(f, k, place(plan, W_RETURNS))
                if ones > 0.0:
                    out[21, i] = steps / (lag * ones)
    if count == 1 or c > f[TOP]:
        f[TOP] = c
    if f[TOP] > 0.0:
        out[22, i] = c / f[TOP] - 1.0


@piece
def _on_bars(
    f: Array,
    k: Array,
    plan: Array,
    periods: Array,
    h: float,
    low: float,
    c: float,
    out: Array,
    i: int,
) -> None:
    """Columns 7 to 10 and 12 to 14: indicators of TA-Lib."""
    if k[BARS] > 0:
        before = f[CLOSE]
        tr = true_range(h, low, before)
        out[7, i] = rsi_step(f, RSI, k, RSI_SEEN, periods[P_RSI], c - before)
        atr = atr_step(f, ATR, k, ATR_SEEN, periods[P_ATR], tr)
        if c != 0.0:
            out[12, i] = atr / c * 100.0
        up = h - f[HIGH]
        down = f[LOW] - low
        out[13, i] = adx_step(f, ADX, k, ADX_SEEN, periods[P_ADX], tr, up, down)
    line, signal = macd_step(
        f, MACD, k, MACD_SEEN, periods[P_FAST], periods[P_SLOW], periods[P_SIGNAL], c
    )
    out[8, i] = line
    out[9, i] = signal
    out[10, i] = line - signal
    max_push(f, k, place(plan, W_HIGHS), h)
    max_push(f, k, place(plan, W_LOWS), -low)
    if full(k, place(plan, W_HIGHS)):
        top = max_read(f, k, place(plan, W_HIGHS))
        bottom = -max_read(f, k, place(plan, W_LOWS))
        if top > bottom:
            out[14, i] = (c - bottom) / (top - bottom)


@piece
def _on_volume(
    f: Array,
    k: Array,
    plan: Array,
    c: float,
    ret: float,
    volume: float,
    notional: float,
    out: Array,
    i: int,
) -> None:
    """Columns 17 to 19: what lives on volume; a bar without one is skipped."""
    if not (volume >= 0.0 and notional == notional):  # noqa: PLR0124 -- NaN: no volume
        return
    w = place(plan, W_VOLUME)
    if full(k, w):  # against the volumes before this one
        mean, m2 = moments_read(f, k, w)
        if m2 > 0.0:
            out[17, i] = (volume - f[w[1]] - mean) / math.sqrt(m2 * inverse(w[0] - 1))
    moments_push(f, k, w, volume)
    sum_push(f, k, place(plan, W_VWAP_PV), notional)
    sum_push(f, k, place(plan, W_VWAP_V), volume)
    if full(k, place(plan, W_VWAP_V)):
        volumes = sum_read(f, k, place(plan, W_VWAP_V))
        notionals = sum_read(f, k, place(plan, W_VWAP_PV))
        if volumes > 0.0 and notionals != 0.0:
            out[18, i] = c / (notionals / volumes) - 1.0
    w = place(plan, W_AMIHUD)
    if notional > 0.0 and ret == ret:  # noqa: PLR0124 -- not NaN
        sum_push(f, k, w, abs(ret) / notional)
    if full(k, w):
        out[19, i] = sum_read(f, k, w) * inverse(w[0])


@once
def bar_update(
    f: Array,
    k: Array,
    plan: Array,
    periods: Array,
    decay: float,
    counted: bool,
    o: float,
    h: float,
    low: float,
    c: float,
    volume: float,
    notional: float,
    out: Array,
    i: int,
) -> float:
    """One closed bar of the symbol whose rows are f and k: columns 0 to 22 of out[:, i].

    Args:
        f: floats of the symbol.
        k: counters of the symbol.
        plan: places of the windows.
        periods: int64 (9,), periods that are not windows, places P_*.
        decay: lambda of the EWMA of squared returns.
        counted: whether the return to this bar counts.
        o: open.
        h: high.
        low: low.
        c: close.
        volume: sum of sizes, NaN without.
        notional: sum of price times size, NaN without.
        out: float64 (features, rows), NaN on entry.
        i: row.

    Returns:
        The log return of the bar, NaN without.
    """
    if wild(o) or wild(h) or wild(low) or wild(c) or wild(volume) or wild(notional):
        k[WILD] = 1
    ret = _return(f, k, c, counted)
    _on_returns(f, k, plan, decay, ret, out, i)
    ranges_update(f, k, plan, o, h, low, c, ret, out, i)
    _on_closes(f, k, plan, periods, c, out, i)
    _on_bars(f, k, plan, periods, h, low, c, out, i)
    _on_volume(f, k, plan, c, ret, volume, notional, out, i)
    f[HIGH] = h
    f[LOW] = low
    f[CLOSE] = c
    k[BARS] += 1
    return ret
