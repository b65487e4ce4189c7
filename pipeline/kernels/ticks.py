"""The verdict of the ingest guard over ticks in arrival order (QUANT.md 6)."""

import numpy as np

from pipeline.kernels.jit import kernel
from schemas.blocks import Array
from schemas.ticks import REASONS, Reason
from schemas.times import DAY, EARLIEST

ID_WINDOW = 256  # trade ids remembered per symbol

BAD_SYMBOL = REASONS.index(Reason.BAD_SYMBOL)
BAD_TIME = REASONS.index(Reason.BAD_TIME)
NON_FINITE = REASONS.index(Reason.NON_FINITE)
NON_POSITIVE = REASONS.index(Reason.NON_POSITIVE)
NEGATIVE_SIZE = REASONS.index(Reason.NEGATIVE_SIZE)
DUPLICATE = REASONS.index(Reason.DUPLICATE)
LATE = REASONS.index(Reason.LATE)
TOO_MANY = REASONS.index(Reason.TOO_MANY_SYMBOLS)
ACCEPTED = -1


@kernel
def _seen(ids: Array, count: int, key: int) -> bool:
    for i in range(min(count, ids.shape[0])):
        if ids[i] == key:
            return True
    return False


@kernel
def judge(
    plain: bool,
    symbol: Array,
    fault: Array,
    ts: Array,
    known_at: Array,
    received: Array,
    id_key: Array,
    numbers: tuple[Array, ...],
    last_ts: Array,
    ids: Array,
    id_count: Array,
    id_max: Array,
    counts: Array,
    verdict: Array,
) -> None:
    """Judge ticks of shape (n,) one after another; `verdict` gets ACCEPTED or a reason code.

    `symbol` holds state rows, -1 for a bad symbol and -2 for one too many. `numbers` are price,
    size, bid, ask, bid_size, ask_size, open, high, low; NaN means missing, but for the price.
    State: `last_ts` (s,) ns, `ids` (s, ID_WINDOW) ring, `id_count` and `id_max` (s,), `counts`
    (s, reasons + 1) absolute, the last column counts the accepted.
    """
    price, size, bid, ask, bid_size, ask_size, open_, high, low = numbers
    for i in range(symbol.shape[0]):
        s = symbol[i]
        reason = ACCEPTED
        if fault[i] >= 0:
            reason = fault[i]
        elif s < 0:
            reason = TOO_MANY if s == -2 else BAD_SYMBOL
        elif (
            ts[i] < EARLIEST
            or known_at[i] < EARLIEST
            or ts[i] - DAY > received[i]
            or known_at[i] - DAY > received[i]
        ):
            reason = BAD_TIME
        elif (
            not np.isfinite(price[i])
            or np.isinf(size[i])
            or np.isinf(bid[i])
            or np.isinf(ask[i])
            or np.isinf(bid_size[i])
            or np.isinf(ask_size[i])
            or np.isinf(open_[i])
            or np.isinf(high[i])
            or np.isinf(low[i])
        ):
            reason = NON_FINITE
        elif (
            price[i] <= 0.0
            or bid[i] <= 0.0
            or ask[i] <= 0.0
            or open_[i] <= 0.0
            or high[i] <= 0.0
            or low[i] <= 0.0
        ):
            reason = NON_POSITIVE
        elif size[i] < 0.0 or bid_size[i] < 0.0 or ask_size[i] < 0.0:
            reason = NEGATIVE_SIZE
        elif not plain:
            key = id_key[i]
            # An id above all seen ones is new: only the others need the ring.
            if key != -1 and key <= id_max[s] and _seen(ids[s], id_count[s], key):
                reason = DUPLICATE
            elif ts[i] < last_ts[s]:
                reason = LATE
            elif key != -1:
                ids[s, id_count[s] % ID_WINDOW] = key
                id_count[s] += 1
                id_max[s] = max(id_max[s], key)
        verdict[i] = reason
        if s >= 0:
            counts[s, reason if reason >= 0 else counts.shape[1] - 1] += 1
            if reason == ACCEPTED:
                last_ts[s] = ts[i]
