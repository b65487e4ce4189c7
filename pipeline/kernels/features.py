"""All features of one partition in one loop over its ticks, bars closed in between."""

import math
from typing import Final

import numpy as np

from pipeline.kernels.barwise import bar_update
from pipeline.kernels.hot import loop, once
from pipeline.kernels.layout import (
    BAR_SESSION,
    END,
    LIFE,
    REFERENCE,
    SCALE,
    SESSION,
    VOLUME_SCALE,
    W_BETA,
    WILD,
    place,
)
from pipeline.kernels.prefetch import HEAD_AHEAD, SLOTS_AHEAD, prefetch_head, prefetch_slots
from pipeline.kernels.reference import pair_by_end, pair_by_span, remember
from pipeline.kernels.rescale import rescale
from pipeline.kernels.tickwise import tick_sample, tick_update
from pipeline.kernels.windows import full, pairs_read
from schemas.blocks import Array

BETA: Final = 23  # column of beta, corr follows
FIRST_TICK_COLUMN: Final = 25
MANY: Final = 200  # symbols whose state leaves the second level of cache


@once
def _close(
    i: int,
    s: int,
    floats: Array,
    counters: Array,
    plan: Array,
    periods: Array,
    decay: float,
    ends: Array,
    prices: tuple[Array, ...],
    sessions: Array,
    overnight: bool,
    zone: Array,
    reference: int,
    join: int,
    ring_ends: Array,
    ring_returns: Array,
    ring_count: Array,
    out: Array,
) -> None:
    """One closed bar: row i of the output, for symbol s."""
    f = floats[s]
    k = counters[s]
    tick_sample(f, k, plan, zone, out, i, FIRST_TICK_COLUMN)
    end = ends[i]
    counted = overnight or sessions[i] == k[BAR_SESSION]
    k[BAR_SESSION] = sessions[i]
    ret = bar_update(
        f,
        k,
        plan,
        periods,
        decay,
        counted,
        prices[0][i],
        prices[1][i],
        prices[2][i],
        prices[3][i],
        prices[4][i],
        prices[5][i],
        out,
        i,
    )
    k[END] = end
    if s == reference:
        if not math.isnan(ret):
            remember(ring_ends, ring_returns, ring_count, end, ret)
    elif reference >= 0:
        of = floats[reference]
        ok = counters[reference]
        known = False
        if join < 0:
            known = pair_by_span(f, k, plan, of, ok, ret)
        elif not math.isnan(ret):
            known = pair_by_end(
                f,
                k,
                plan,
                of,
                ok,
                ring_ends,
                ring_returns,
                ring_count,
                join,
                end,
                ret,
            )
        if known and full(k, place(plan, W_BETA)):
            cxx, cxy, cyy = pairs_read(f, k, place(plan, W_BETA))
            if cyy > 0.0:
                out[BETA, i] = cxy / cyy
                if cxx > 0.0:
                    out[BETA + 1, i] = cxy / math.sqrt(cxx * cyy)
    if k[WILD] == 1:
        for j in range(out.shape[0]):
            if math.isinf(out[j, i]):  # an overflow is no value
                out[j, i] = math.nan


@once
def _turn(
    floats: Array,
    counters: Array,
    units: Array,
    s: int,
    reference: int,
    life: int,
    scale: float,
    volume_scale: float,
) -> None:
    """Forget what another instrument left under this symbol; bring other units into these."""
    f = floats[s]
    k = counters[s]
    if k[LIFE] != life:
        for j in range(f.shape[0]):
            f[j] = 0.0
        for j in range(k.shape[0]):
            k[j] = 0
        k[LIFE] = life
    elif f[SCALE] > 0.0 and (f[SCALE] != scale or f[VOLUME_SCALE] != volume_scale):
        rescale(f, units, scale / f[SCALE], volume_scale / f[VOLUME_SCALE])
        if s == reference:
            for j in range(floats.shape[0]):
                floats[j, REFERENCE] *= scale / f[SCALE]
    f[SCALE] = scale
    f[VOLUME_SCALE] = volume_scale


@loop
def run(
    tick_symbols: Array,
    flags: Array,
    ts: Array,
    ticks: tuple[Array, ...],
    sides: Array,
    marks: tuple[Array, ...],
    scales: tuple[Array, ...],
    bar_symbols: Array,
    bar_ends: Array,
    bars: tuple[Array, ...],
    bar_sessions: Array,
    overnight: bool,
    at: Array,
    after: bool,
    floats: Array,
    counters: Array,
    plan: Array,
    units: Array,
    periods: Array,
    decay: float,
    half_lives: Array,
    zone: Array,
    reference: int,
    join: int,
    ring_ends: Array,
    ring_returns: Array,
    ring_count: Array,
    out: Array,
) -> None:
    """Run ticks through the state and close bars where they were triggered.

    Args:
        tick_symbols: int32 (n,), rows of the state.
        flags: int32 (n,), 0 accepted; others never enter.
        ts: int64 (n,), ns.
        ticks: tuple of six float64 (n,): price, size, bid, ask, bid_size, ask_size; NaN missing.
        sides: int32 (n,), 0 buy, 1 sell, -1 unknown.
        marks: tuple of two int32 (n,): life and session of the instrument.
        scales: tuple of two float64 (n,): units of prices and of sizes.
        bar_symbols: int32 (m,).
        bar_ends: int64 (m,), ns.
        bars: tuple of six float64 (m,): open, high, low, close, volume, notional.
        bar_sessions: int32 (m,).
        overnight: whether returns across a session break count.
        at: int64 (m,), ascending: the tick that triggered the bar, n for the end of a file.
        after: whether the trigger belongs to the bar it closes.
        floats: float64 (symbols, F), changed.
        counters: int64 (symbols, I), changed.
        plan: places of the windows.
        units: of each float of a row, see rescale.
        periods: int64, see barwise.
        decay: lambda of bar_ewma_vol.
        half_lives: float64 (2,), s.
        zone: int64 (2, z), ns.
        reference: row of the reference symbol, -1 without.
        join: ns of a time clock, 0 for rows that are bars, -1 to pair by span.
        ring_ends: int64 (R,), changed.
        ring_returns: float64 (R,), changed.
        ring_count: int64 (1,), changed.
        out: float64 (features, m or more), NaN on entry, filled.
    """
    price, size, bid, ask, bid_size, ask_size = ticks
    life, session = marks
    scale, volume_scale = scales
    n = tick_symbols.shape[0]
    m = bar_symbols.shape[0]
    # As int64 from the start: what begins as a literal has all that it is handed to compiled twice.
    j = int(np.int64(0))
    i = int(np.int64(0))  # ticks taken
    many = floats.shape[0] > MANY
    while True:
        if many and i + HEAD_AHEAD < n:
            s = tick_symbols[i + HEAD_AHEAD]
            prefetch_head(floats[s], counters[s], plan)
            s = tick_symbols[i + SLOTS_AHEAD]
            prefetch_slots(floats[s], counters[s], plan)
        # `after`: a bar closes once its trigger is taken; else just before it. All at the end.
        while j < m and (at[j] < i or i == n or (at[j] == i and not after)):
            _close(
                j,
                bar_symbols[j],
                floats,
                counters,
                plan,
                periods,
                decay,
                bar_ends,
                bars,
                bar_sessions,
                overnight,
                zone,
                reference,
                join,
                ring_ends,
                ring_returns,
                ring_count,
                out,
            )
            j += 1
        if i == n:
            return
        if flags[i] == 0:
            s = tick_symbols[i]
            _turn(
                floats,
                counters,
                units,
                s,
                reference,
                life[i],
                scale[i],
                volume_scale[i],
            )
            counted = overnight or session[i] == counters[s, SESSION]
            counters[s, SESSION] = session[i]
            tick_update(
                floats[s],
                counters[s],
                plan,
                half_lives,
                counted,
                ts[i],
                price[i],
                size[i],
                sides[i],
                bid[i],
                ask[i],
                bid_size[i],
                ask_size[i],
            )
        i += 1
