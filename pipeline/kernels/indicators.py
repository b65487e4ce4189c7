"""Recursive indicators of one symbol with the seed rules of TA-Lib 0.8.2, to its last bits.

State is a slice of the symbol's row: floats from `a` on and one counter `k[b]` of inputs seen. Each
step takes the next input and returns the value, NaN while not ready. A row of zeros is a fresh
start.
"""

import math

from pipeline.kernels.hot import piece
from pipeline.kernels.windows import inverse
from schemas.blocks import Array

NAN = math.nan
RSI_FLOATS = 2  # mean gain, mean loss
ATR_FLOATS = 1
ADX_FLOATS = 4  # sums of true range, +DM, -DM; ADX
MACD_FLOATS = 3  # fast, slow, signal


@piece
def true_range(high: float, low: float, before: float) -> float:
    """Largest of high - low and the distances of both to the close before."""
    return max(high - low, abs(before - high), abs(before - low))


@piece
def rsi_step(f: Array, a: int, k: Array, b: int, n: int, change: float) -> float:
    """Wilder's RSI from the n first changes on; 50 where price never moved (TA-Lib says 0)."""
    seen = k[b] + 1
    k[b] = seen
    gain = max(change, 0.0)
    loss = max(-change, 0.0)
    if seen <= n:
        f[a] += gain
        f[a + 1] += loss
        if seen < n:
            return NAN
        f[a] /= n
        f[a + 1] /= n
    else:
        f[a] = (f[a] * (n - 1) + gain) / n
        f[a + 1] = (f[a + 1] * (n - 1) + loss) / n
    total = f[a] + f[a + 1]
    return 100.0 * (f[a] / total) if total > 0.0 else 50.0


@piece
def atr_step(f: Array, a: int, k: Array, b: int, n: int, tr: float) -> float:
    """Wilder's average true range: the mean of the n first, then (atr (n - 1) + tr) / n."""
    seen = k[b] + 1
    k[b] = seen
    if seen <= n:
        f[a] += tr
        if seen < n:
            return NAN
        f[a] /= n
    else:
        f[a] = (f[a] * (n - 1) + tr) / n
    value: float = f[a]
    return value


@piece
def adx_step(
    f: Array, a: int, k: Array, b: int, n: int, tr: float, up: float, down: float
) -> float:
    """Wilder's ADX: first value at the (2n - 1)th input, as TA-Lib.

    Args:
        f: floats of the symbol.
        a: first float: S(TR), S(+DM), S(-DM), ADX.
        k: counters of the symbol.
        b: counter of inputs.
        n: period.
        tr: true range.
        up: high - high before.
        down: low before - low.

    S is the plain sum of the n - 1 first inputs, then S - S/n + input. DX counts from the nth input
    on; ADX is the mean of n of them, then (adx (n - 1) + dx) / n. A bar without direction (+DI and
    -DI both 0) leaves the ADX as it is.
    """
    seen = k[b] + 1
    k[b] = seen
    plus = up if up > 0.0 and up > down else 0.0
    minus = down if down > 0.0 and down > up else 0.0
    if seen < n:
        f[a] += tr
        f[a + 1] += plus
        f[a + 2] += minus
        return NAN
    f[a] = f[a] - f[a] / n + tr
    f[a + 1] = f[a + 1] - f[a + 1] / n + plus
    f[a + 2] = f[a + 2] - f[a + 2] / n + minus
    if f[a] > 0.0:
        plus = 100.0 * (f[a + 1] / f[a])
        minus = 100.0 * (f[a + 2] / f[a])
        if plus + minus > 0.0:
            dx = 100.0 * (abs(minus - plus) / (plus + minus))
            f[a + 3] = f[a + 3] + dx if seen < 2 * n else (f[a + 3] * (n - 1) + dx) / n
    if seen == 2 * n - 1:
        f[a + 3] /= n
    value: float = f[a + 3]
    return value if seen >= 2 * n - 1 else NAN


@piece
def macd_step(
    f: Array, a: int, k: Array, b: int, fast: int, slow: int, signal: int, x: float
) -> tuple[float, float]:
    """Line and signal of the MACD, both from input slow + signal - 1 on.

    TA-Lib seeds both EMAs at input `slow`: the slow one with the mean of all inputs so far, the
    fast one with the mean of the `fast` last of them; the signal with the mean of the `signal`
    first lines.
    """
    seen = k[b] + 1
    k[b] = seen
    if seen <= slow:
        if seen > slow - fast:
            f[a] += x
        f[a + 1] += x
        if seen < slow:
            return NAN, NAN
        f[a] /= fast
        f[a + 1] /= slow
    else:
        f[a] += 2.0 * inverse(fast + 1) * (x - f[a])
        f[a + 1] += 2.0 * inverse(slow + 1) * (x - f[a + 1])
    line = f[a] - f[a + 1]
    lines = seen - slow + 1
    if lines <= signal:
        f[a + 2] += line
        if lines < signal:
            return NAN, NAN
        f[a + 2] /= signal
    else:
        f[a + 2] += 2.0 * inverse(signal + 1) * (line - f[a + 2])
    return line, f[a + 2]
