"""Bars of one decision clock from ticks, and the execution reference of the previous decision."""

import numpy as np

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

TIME, TICKS, ROW = 0, 1, 2

# Columns of the state of a symbol and of an output row.
OPEN, HIGH, LOW, CLOSE, VOLUME, NOTIONAL, EXEC_PRICE, EXEC_BID, EXEC_ASK = range(9)
SCALE, VOLUME_SCALE, VWAP = 9, 10, 11
FLOAT_STATE = 11
FLOAT_OUT = 12
N, SIZED, BUCKET, LAST_TS, TRIGGER_TS, PENDING, EXEC_TS, SESSION, LIFE, GAP = range(10)
INT_STATE = 10
OUT_AT, OUT_TS, OUT_N, OUT_TRIGGER_TS, OUT_EXEC_TS = range(5)
INT_OUT = 5
OUT_SYMBOL, OUT_SESSION, OUT_LIFE, OUT_STALE, OUT_GAP = range(5)
MARK_OUT = 5

_INT32_MAX = 2**31 - 1


@piece
def _emit(
    f: Array,
    k: Array,
    floats: Array,
    ints: Array,
    marks: Array,
    row: int,
    at: int,
    symbol: int,
    ts: int,
    trigger: int,
    stale: int,
) -> None:
    for j in range(FLOAT_STATE):
        floats[j, row] = f[j]
    if k[SIZED] == 0:
        floats[VOLUME, row] = np.nan
        floats[NOTIONAL, row] = np.nan
    floats[VWAP, row] = f[NOTIONAL] / f[VOLUME] if f[VOLUME] > 0.0 else np.nan
    ints[OUT_AT, row] = at
    ints[OUT_TS, row] = ts
    ints[OUT_N, row] = k[N]
    ints[OUT_TRIGGER_TS, row] = trigger
    ints[OUT_EXEC_TS, row] = k[EXEC_TS]
    marks[OUT_SYMBOL, row] = symbol
    marks[OUT_SESSION, row] = k[SESSION]
    marks[OUT_LIFE, row] = k[LIFE]
    marks[OUT_STALE, row] = stale
    marks[OUT_GAP, row] = min(k[GAP], _INT32_MAX)
    k[N] = 0
    k[GAP] = 0
    if k[PENDING] == 0:  # else an earlier decision still waits: it is served first
        k[TRIGGER_TS] = trigger
        k[PENDING] = 1
    f[EXEC_PRICE] = np.nan
    f[EXEC_BID] = np.nan
    f[EXEC_ASK] = np.nan
    k[EXEC_TS] = -1


@piece
def _enter(f: Array, k: Array, price: float, size: float, bucket: int, gap: int) -> None:
    if k[N] == 0:
        f[OPEN] = price
        f[HIGH] = price
        f[LOW] = price
        f[VOLUME] = 0.0
        f[NOTIONAL] = 0.0
        k[SIZED] = 0
        k[BUCKET] = bucket
    f[HIGH] = max(f[HIGH], price)
    f[LOW] = min(f[LOW], price)
    f[CLOSE] = price
    if not np.isnan(size):
        f[VOLUME] += size
        f[NOTIONAL] += price * size
        k[SIZED] += 1
    k[N] += 1
    k[GAP] += gap


@piece
def _turn(f: Array, k: Array, life: int, scale: float, volume_scale: float) -> None:
    """Drop an open bar of another instrument; bring one of other units into these."""
    if life != k[LIFE]:
        k[LIFE] = life
        k[N] = 0
        k[GAP] = 0
        k[PENDING] = 0
    elif scale != f[SCALE] or volume_scale != f[VOLUME_SCALE]:
        prices = scale / f[SCALE]
        sizes = volume_scale / f[VOLUME_SCALE]
        if k[N] > 0:
            f[OPEN] *= prices
            f[HIGH] *= prices
            f[LOW] *= prices
            f[CLOSE] *= prices
            f[VOLUME] *= sizes
            f[NOTIONAL] *= prices * sizes
        f[EXEC_PRICE] *= prices
        f[EXEC_BID] *= prices
        f[EXEC_ASK] *= prices
    f[SCALE] = scale
    f[VOLUME_SCALE] = volume_scale


@loop
def bars(
    clock: int,
    width: int,
    latency: int,
    marks: tuple[Array, ...],
    ts: Array,
    numbers: tuple[Array, ...],
    float_state: Array,
    int_state: Array,
    floats: Array,
    ints: Array,
    out: Array,
) -> int:
    """Step ticks of shape (n,) in arrival order; returns how many rows of the outputs are filled.

    These are `floats` (FLOAT_OUT, n or more), `ints` (INT_OUT, ...) and, int32, `out`
    (MARK_OUT, ...).

    `clock` TIME closes [kW, (k+1)W) at the symbol's first tick at or after its end, W = `width`
    ns; TICKS closes with each `width`-th tick; ROW takes each tick as a bar. `marks` are
    symbol, flag, session, life, stale, gap; `numbers` are price, size, bid, ask, open, high, low,
    scale, volume_scale. The execution reference is the first tick after the previous
    trigger, by arrival, at or after its time plus `latency` ns; where that comes only after later
    triggers, it is of the earliest decision that waits, in the row that follows it. Of a stale tick
    it has its time and no prices. With ROW it is the open of this row.
    """
    symbol, flag, session, life, stale, gap = marks
    price, size, bid, ask, open_, high, low, scale, volume_scale = numbers
    rows = 0
    for i in range(symbol.shape[0]):
        s = symbol[i]
        if flag[i] != 0:
            # It enters no bar, but what is missing before it is missing in one.
            int_state[s, GAP] += gap[i]
            continue
        f = float_state[s]
        k = int_state[s]
        if clock == ROW:
            _turn(f, k, life[i], scale[i], volume_scale[i])
            k[SESSION] = session[i]
            if k[PENDING] == 1:
                f[EXEC_PRICE] = price[i] if np.isnan(open_[i]) else open_[i]
                k[EXEC_TS] = ts[i]
            _enter(f, k, price[i], size[i], 0, gap[i])
            f[OPEN] = price[i] if np.isnan(open_[i]) else open_[i]
            f[HIGH] = price[i] if np.isnan(high[i]) else high[i]
            f[LOW] = price[i] if np.isnan(low[i]) else low[i]
            _emit(f, k, floats, ints, out, rows, i, s, ts[i], ts[i], 0)
            rows += 1
            continue
        # Another instrument's price is no reference of a decision on this one.
        if k[PENDING] == 1 and life[i] == k[LIFE] and ts[i] >= k[TRIGGER_TS] + latency:
            # In the units of the bar that this reference is for.
            units = f[SCALE] / scale[i] if stale[i] == 0 else np.nan
            f[EXEC_PRICE] = price[i] * units
            f[EXEC_BID] = bid[i] * units
            f[EXEC_ASK] = ask[i] * units
            k[EXEC_TS] = ts[i]
            k[PENDING] = 0
        if clock == TIME:
            bucket = ts[i] // width
            if k[N] > 0 and bucket > k[BUCKET]:
                end = (k[BUCKET] + 1) * width
                _emit(f, k, floats, ints, out, rows, i, s, end, ts[i], stale[i])
                rows += 1
            _turn(f, k, life[i], scale[i], volume_scale[i])
            k[SESSION] = session[i]
            _enter(f, k, price[i], size[i], bucket, gap[i])
        else:
            _turn(f, k, life[i], scale[i], volume_scale[i])
            k[SESSION] = session[i]
            _enter(f, k, price[i], size[i], 0, gap[i])
            if k[N] >= width:
                _emit(f, k, floats, ints, out, rows, i, s, ts[i], ts[i], 0)
                rows += 1
        k[LAST_TS] = ts[i]
    return rows


@loop
def close_all(
    clock: int,
    width: int,
    at: int,
    float_state: Array,
    int_state: Array,
    floats: Array,
    ints: Array,
    out: Array,
    rows: int,
) -> int:
    """Close what is open at the end of a file, in the order of state rows, after so many rows.

    Returns how many rows of the outputs are filled then.
    """
    for s in range(float_state.shape[0]):
        k = int_state[s]
        if k[N] > 0:
            ts = (k[BUCKET] + 1) * width if clock == TIME else k[LAST_TS]
            _emit(float_state[s], k, floats, ints, out, rows, at, s, ts, k[LAST_TS], 0)
            rows += 1
    return rows
