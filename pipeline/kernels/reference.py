"""Pairs of bar returns of a symbol and of its reference, joined without looking ahead.

A pair belongs to one bar end T and enters the window once both returns are known. On a time clock
the reference's bar of the same end may close after ours; but our trigger came at or after T, so the
last price of the reference is its close already, and the pair enters at once. Where rows are bars
(no `width`), a reference row that arrives later in the stream is not known yet: our return waits,
and our row shows the pairs known by then.
"""

from pipeline.kernels.hot import piece
from pipeline.kernels.layout import (
    BARS,
    CLOSE,
    CURSOR,
    HEAD,
    PRICE,
    REFERENCE,
    TAIL,
    TICKS,
    TS,
    W_BETA,
    W_WAITING,
    WAITING,
    log_ratio,
    place,
)
from pipeline.kernels.windows import pairs_push
from schemas.blocks import Array


@piece
def remember(ends: Array, returns: Array, count: Array, end: int, ret: float) -> None:
    """Append a closed bar of the reference to the ring of ends (ns) and returns."""
    at = count[0] % ends.shape[0]
    ends[at] = end
    returns[at] = ret
    count[0] += 1


@piece
def pair_by_end(
    f: Array,
    k: Array,
    plan: Array,
    of: Array,
    ok: Array,
    ends: Array,
    returns: Array,
    count: Array,
    width: int,
    end: int,
    ret: float,
) -> bool:
    """Join our bar (end, ret) on equal ends; the oldest waiting return first.

    Args:
        f: floats of the symbol.
        k: counters of the symbol.
        plan: places of the windows.
        of: floats of the reference.
        ok: counters of the reference.
        ends: ring of the ends of the reference's closed bars, ns.
        returns: ring of their returns.
        count: int64 (1,), how many were ever remembered.
        width: of a time clock in ns; 0 where rows are bars.
        end: of our bar, ns.
        ret: our return.

    Returns:
        False when the reference is known to have no bar with this end.
    """
    w = place(plan, W_WAITING)
    if k[TAIL] - k[HEAD] == WAITING:
        k[HEAD] += 1
    at = k[TAIL] % WAITING
    f[w[3] + at] = ret
    k[w[2] + at] = end
    k[TAIL] += 1
    size = ends.shape[0]
    total = count[0]
    cursor = max(k[CURSOR], total - size)
    known = False
    while k[HEAD] < k[TAIL]:
        at = k[HEAD] % WAITING
        wanted = k[w[2] + at]
        while cursor < total and ends[cursor % size] < wanted:
            cursor += 1
        known = False
        if cursor < total:
            if ends[cursor % size] == wanted:
                pairs_push(f, k, place(plan, W_BETA), f[w[3] + at], returns[cursor % size])
                cursor += 1
                known = True
        elif width > 0:
            covers = ok[BARS] > 0 and ok[TS] // width * width + width == wanted
            if covers and of[PRICE] > 0.0 and of[CLOSE] > 0.0:
                ahead = log_ratio(of[PRICE], of[CLOSE])
                pairs_push(f, k, place(plan, W_BETA), f[w[3] + at], ahead)
                known = True
        else:
            known = True  # as far as we know it may still come
            break
        k[HEAD] += 1
    k[CURSOR] = cursor
    return known


@piece
def pair_by_span(f: Array, k: Array, plan: Array, of: Array, ok: Array, ret: float) -> bool:
    """Pair our return with the reference's between our two closes, as known then.

    For clocks whose bars of two symbols never share an end. Returns whether there was a pair.
    """
    now = of[PRICE] if ok[TICKS] > 0 else 0.0
    before = f[REFERENCE]
    f[REFERENCE] = now
    if ret != ret or not (now > 0.0 and before > 0.0):  # noqa: PLR0124 -- NaN: no return
        return False
    pairs_push(f, k, place(plan, W_BETA), ret, log_ratio(now, before))
    return True
