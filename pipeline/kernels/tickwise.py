"""Features that every tick updates and that are read at the end of a bar (QUANT 1.4 and 1.6)."""

import math

from pipeline.kernels.daytime import on_circle
from pipeline.kernels.hot import once, piece
from pipeline.kernels.layout import (
    ASK,
    ASK_SIZE,
    BEFORE,
    BID,
    BID_SIZE,
    HAS_QUOTE,
    HAS_RET,
    HAS_SIZE_Z,
    HAS_SIZES,
    HELD,
    LN2,
    OFI_ASK,
    OFI_ASK_SIZE,
    OFI_BID,
    OFI_BID_SIZE,
    OFI_SEEN,
    PRICE,
    RATE_DEN,
    RATE_NUM,
    RET,
    SIGN,
    SIZE_Z,
    TICKS,
    TS,
    VOL_DEN,
    VOL_NUM,
    W_OFI,
    W_PRICES,
    W_SIGNED,
    W_SIZED,
    W_SIZES,
    W_TICK_PV,
    W_TICK_RETURNS2,
    W_TICK_V,
    WILD,
    log_ratio,
    place,
    wild,
)
from pipeline.kernels.windows import (
    full,
    held,
    inverse,
    lag_push,
    lag_read,
    moments_push,
    moments_read,
    sum_push,
    sum_read,
)
from schemas.blocks import Array

NAN = math.nan
PER_LN2 = 1.0 / LN2
BUY, SELL = 0, 1  # codes of the label `side`


@piece
def _kept(age: float) -> float:
    """exp(-age); ticks follow each other soon, and a short series is exact for most of them."""
    if age > 0.01:
        return math.exp(-age)
    square = age * age
    even = 1.0 / 2.0 + square * (1.0 / 24.0 + square * (1.0 / 720.0))
    odd = 1.0 + square * (1.0 / 6.0 + square * (1.0 / 120.0))
    return 1.0 - (age * odd - square * even)


@piece
def _decay(f: Array, seconds: float, vol_half_life: float, rate_half_life: float) -> None:
    """Let the time-decayed sums age; no time passed means weight 1."""
    if seconds <= 0.0:
        return
    weight = _kept(seconds * LN2 / vol_half_life)
    f[VOL_NUM] *= weight
    f[VOL_DEN] *= weight
    if rate_half_life != vol_half_life:
        weight = _kept(seconds * LN2 / rate_half_life)
    f[RATE_NUM] *= weight
    # The weight that the elapsed time itself has kept: so the rate has no bias at the start.
    f[RATE_DEN] = f[RATE_DEN] * weight + (1.0 - weight) * rate_half_life * PER_LN2


@piece
def _price(f: Array, k: Array, plan: Array, price: float, counted: bool) -> int:
    """Returns and their windows; HAS_RET when there is a return that counts."""
    before = f[PRICE]
    bits = 0
    if k[TICKS] > 0:
        if price > before:
            k[SIGN] = 1
        elif price < before:
            k[SIGN] = -1
        if counted and price > 0.0 and before > 0.0:
            ret = log_ratio(price, before)
            f[RET] = ret
            f[VOL_NUM] += ret * ret
            f[VOL_DEN] += 1.0
            sum_push(f, k, place(plan, W_TICK_RETURNS2), ret * ret)
            bits = HAS_RET
        f[RATE_NUM] += 1.0
    f[BEFORE] = before
    f[PRICE] = price
    lag_push(f, k, place(plan, W_PRICES), price)
    return bits


@piece
def _size(f: Array, k: Array, plan: Array, price: float, size: float, side: int) -> int:
    """Windows of sizes; a tick without size, or with size 0, does not enter them."""
    if not size > 0.0:
        return 0
    sign = 1 if side == BUY else -1 if side == SELL else k[SIGN]
    sum_push(f, k, place(plan, W_TICK_PV), price * size)
    sum_push(f, k, place(plan, W_TICK_V), size)
    sum_push(f, k, place(plan, W_SIGNED), sign * size)
    sum_push(f, k, place(plan, W_SIZED), size)
    w = place(plan, W_SIZES)
    bits = 0
    if full(k, w):  # against the sizes before this one
        mean, m2 = moments_read(f, k, w)
        if m2 > 0.0:
            f[SIZE_Z] = (size - f[w[1]] - mean) / math.sqrt(m2 * inverse(w[0] - 1))
            bits = HAS_SIZE_Z
    moments_push(f, k, w, size)
    return bits


@piece
def _quote(
    f: Array, k: Array, plan: Array, bid: float, ask: float, bid_size: float, ask_size: float
) -> int:
    """The quote and the order flow imbalance; a crossed quote is as good as none (NaN fails too).

    OFI: e_n of Cont, Kukanov, Stoikov (2014), between this quote and the last one that was good.
    """
    if not bid <= ask:
        return 0
    f[BID] = bid
    f[ASK] = ask
    if not (bid_size >= 0.0 and ask_size >= 0.0):
        return HAS_QUOTE
    f[BID_SIZE] = bid_size
    f[ASK_SIZE] = ask_size
    if k[OFI_SEEN] == 1:
        e = 0.0
        if bid >= f[OFI_BID]:
            e += bid_size
        if bid <= f[OFI_BID]:
            e -= f[OFI_BID_SIZE]
        if ask <= f[OFI_ASK]:
            e -= ask_size
        if ask >= f[OFI_ASK]:
            e += f[OFI_ASK_SIZE]
        sum_push(f, k, place(plan, W_OFI), e)
    k[OFI_SEEN] = 1
    f[OFI_BID] = bid
    f[OFI_ASK] = ask
    f[OFI_BID_SIZE] = bid_size
    f[OFI_ASK_SIZE] = ask_size
    return HAS_QUOTE | HAS_SIZES


@once
def tick_update(
    f: Array,
    k: Array,
    plan: Array,
    half_lives: Array,
    counted: bool,
    ts: int,
    price: float,
    size: float,
    side: int,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
) -> None:
    """One accepted tick of the symbol whose rows are f and k.

    Args:
        f: floats of the symbol.
        k: counters of the symbol.
        plan: places of the windows.
        half_lives: seconds, float64 (2,), of volatility and of intensity.
        counted: whether the return to this tick counts.
        ts: ns.
        price: finite.
        size: NaN when missing, as the four of the quote.
        side: code of the aggressor, -1 when unknown.
        bid: best bid.
        ask: best ask.
        bid_size: quantity there.
        ask_size: quantity there.
    """
    if k[TICKS] > 0:
        _decay(f, (ts - k[TS]) * 1e-9, half_lives[0], half_lives[1])
    bits = _price(f, k, plan, price, counted)
    bits |= _size(f, k, plan, price, size, side)
    bits |= _quote(f, k, plan, bid, ask, bid_size, ask_size)
    if wild(price) or wild(size) or wild(bid) or wild(ask) or wild(bid_size) or wild(ask_size):
        k[WILD] = 1
    k[HELD] = bits
    k[TS] = ts
    k[TICKS] += 1


@piece
def tick_sample(f: Array, k: Array, plan: Array, zone: Array, out: Array, i: int, at: int) -> None:
    """Write the 15 tick features as they stand into out[at:at + 15, i]; NaN = not ready.

    `zone` is int64 (2, m): times in ns from which an offset to UTC holds, and the offsets in ns.
    """
    if k[TICKS] == 0:
        return
    bits = k[HELD]
    price = f[PRICE]
    sigma = math.sqrt(f[VOL_NUM] / f[VOL_DEN]) if f[VOL_DEN] > 0.0 else NAN
    w = place(plan, W_PRICES)
    lag = w[0] - 1
    ret_h = NAN
    if full(k, w):
        before = lag_read(f, k, w, lag)
        if before > 0.0 and price > 0.0:
            ret_h = log_ratio(price, before)
    if bits & HAS_RET:
        out[at, i] = f[RET]
        out[at + 2, i] = sigma
        if full(k, place(plan, W_TICK_RETURNS2)):
            out[at + 3, i] = math.sqrt(sum_read(f, k, place(plan, W_TICK_RETURNS2)))
    out[at + 1, i] = ret_h
    if sigma > 0.0:
        out[at + 4, i] = ret_h / (sigma * math.sqrt(lag))
    volume = sum_read(f, k, place(plan, W_TICK_V))
    if volume > 0.0:
        if full(k, place(plan, W_TICK_V)):
            out[at + 5, i] = price / (sum_read(f, k, place(plan, W_TICK_PV)) / volume) - 1.0
        if held(k, place(plan, W_SIZED)) > 1:  # the very first size has no sign by the tick rule
            out[at + 6, i] = sum_read(f, k, place(plan, W_SIGNED)) / sum_read(
                f, k, place(plan, W_SIZED)
            )
    if bits & HAS_QUOTE:
        bid, ask = f[BID], f[ASK]
        mid = 0.5 * (bid + ask)
        if mid > 0.0:
            out[at + 9, i] = (ask - bid) / mid * 1e4
        depth = f[BID_SIZE] + f[ASK_SIZE]
        if bits & HAS_SIZES and depth > 0.0:
            imbalance = (f[BID_SIZE] - f[ASK_SIZE]) / depth
            out[at + 8, i] = imbalance
            if mid > 0.0:
                # (b qa + a qb) / (qa + qb) - mid, without the cancellation.
                out[at + 7, i] = 0.5 * (ask - bid) * imbalance / mid
    if full(k, place(plan, W_OFI)):
        out[at + 10, i] = sum_read(f, k, place(plan, W_OFI))
    if bits & HAS_SIZE_Z:
        out[at + 11, i] = f[SIZE_Z]
    if f[RATE_DEN] > 0.0:
        out[at + 12, i] = f[RATE_NUM] / f[RATE_DEN]
    low = 0
    high = zone.shape[1]
    while high - low > 1:
        middle = (low + high) // 2
        if zone[0, middle] <= k[TS]:
            low = middle
        else:
            high = middle
    out[at + 13, i], out[at + 14, i] = on_circle(k[TS] + zone[1, low])
