"""The verdict of the ingest guard over ticks in arrival order (QUANT.md 6)."""

import numpy as np

from pipeline.kernels import sides
from pipeline.kernels.hot import loop, piece
from pipeline.kernels.layout import log_ratio
from schemas.blocks import Array
from schemas.ticks import COUNTED, NOTES, REASONS, Note, Reason
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

_FIRST_NOTE = len(REASONS)
QUARANTINED = _FIRST_NOTE + NOTES.index(Note.QUARANTINED)
LEVEL_SHIFT = _FIRST_NOTE + NOTES.index(Note.LEVEL_SHIFT)
CROSSED = _FIRST_NOTE + NOTES.index(Note.CROSSED)
LOCKED = _FIRST_NOTE + NOTES.index(Note.LOCKED)
SESSION_BREAK = _FIRST_NOTE + NOTES.index(Note.SESSION_BREAK)
NEW_INSTRUMENT = _FIRST_NOTE + NOTES.index(Note.NEW_INSTRUMENT)
RESCALED = _FIRST_NOTE + NOTES.index(Note.RESCALED)
ID_GAP = _FIRST_NOTE + NOTES.index(Note.ID_GAP)
STALE = _FIRST_NOTE + NOTES.index(Note.STALE)
ONE_SIDED = _FIRST_NOTE + NOTES.index(Note.ONE_SIDED)
FROZEN_BID = _FIRST_NOTE + NOTES.index(Note.FROZEN_BID)
FROZEN_ASK = _FIRST_NOTE + NOTES.index(Note.FROZEN_ASK)
ALL_ACCEPTED = len(COUNTED) - 1

# State of a symbol.
PRICE, MEAN_MOVE, SUSPECT, SCALE, VOLUME_SCALE, MEDIAN_GAP = range(6)
FLOAT_STATE = 6
TICKS_SEEN, LAST_TS, MOVES, SESSION, LIFE, ID_COUNT, ID_MAX, ID_LAST = range(8)
INT_STATE = 8

# Settings.
PLAIN, SESSION_GAP, LIFE_GAP, STALE_FLOOR, WARM_UP, GAPS = range(6)
INT_SETTINGS = 6
SPIKE, SPIKE_FLOOR, LIFE_JUMP = range(3)
FLOAT_SETTINGS = 3

_SMOOTHING = 0.05  # of the mean absolute move; one move counts ten means at most
_CLIP = 10.0
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
NO_ID_YET = -(2**63)

# Marks of an accepted tick.
OUT_FLAG, OUT_SESSION, OUT_LIFE, OUT_STALE, OUT_GAP = range(5)
INT_OUT = 5
OUT_SCALE, OUT_VOLUME_SCALE = range(2)
FLOAT_OUT = 2


@piece
def _seen(ids: Array, count: int, key: int) -> bool:
    for i in range(min(count, ids.shape[0])):
        if ids[i] == key:
            return True
    return False


@piece
def _unfit(numbers: tuple[Array, ...], i: int, negative: bool) -> int:
    """The reason in the numbers of a tick, or ACCEPTED; NaN means missing, except for the price."""
    price, size, bid, ask, bid_size, ask_size, open_, high, low, factor, volume_factor = numbers
    if (
        not np.isfinite(price[i])
        or np.isinf(size[i])
        or np.isinf(bid[i])
        or np.isinf(ask[i])
        or np.isinf(bid_size[i])
        or np.isinf(ask_size[i])
        or np.isinf(open_[i])
        or np.isinf(high[i])
        or np.isinf(low[i])
        or np.isinf(factor[i])
        or np.isinf(volume_factor[i])
    ):
        return NON_FINITE
    if factor[i] <= 0.0 or volume_factor[i] <= 0.0:
        return NON_POSITIVE
    if not negative and (
        price[i] <= 0.0
        or bid[i] <= 0.0
        or ask[i] <= 0.0
        or open_[i] <= 0.0
        or high[i] <= 0.0
        or low[i] <= 0.0
    ):
        return NON_POSITIVE
    if size[i] < 0.0 or bid_size[i] < 0.0 or ask_size[i] < 0.0:
        return NEGATIVE_SIZE
    return ACCEPTED


@piece
def _missing(k: Array, key: int, counts: Array) -> int:
    """How many consecutive ids are missing before this one: counted, and at most what int64 holds.

    The counting goes on from the highest id; one below it by no more than the ids remembered is a
    straggler, one further below starts a new sequence.
    """
    missing = 0
    last = k[ID_LAST]
    if k[ID_COUNT] > 0 and key > last:
        missing = key - 1 - last
        if missing < 0:
            missing = _INT64_MAX
        counts[ID_GAP] = min(counts[ID_GAP], _INT64_MAX - missing) + missing
    if k[ID_COUNT] == 0 or key > last or key < last - ID_WINDOW:
        k[ID_LAST] = key
    return missing


@piece
def _remember(k: Array, ids: Array, key: int) -> None:
    ids[k[ID_COUNT] % ID_WINDOW] = key
    k[ID_COUNT] += 1
    k[ID_MAX] = max(k[ID_MAX], key)


@piece
def _live(
    f: Array, k: Array, price: float, gap: int, ints: Array, floats: Array, counts: Array
) -> bool:
    """Sessions, lives and the quarantine of one tick; whether it enters the kernels."""
    stale = 0
    if k[TICKS_SEEN] > 0:
        move = np.nan
        if price > 0.0 and f[PRICE] > 0.0:
            move = abs(log_ratio(price, f[PRICE]))
        if gap >= ints[SESSION_GAP]:
            k[SESSION] += 1
            counts[SESSION_BREAK] += 1
        if k[TICKS_SEEN] > sides.LONG and gap > max(
            float(ints[STALE_FLOOR]), sides.LONG * f[MEDIAN_GAP]
        ):
            stale = 1
            counts[STALE] += 1
        if gap >= ints[LIFE_GAP] and move > floats[LIFE_JUMP] * f[MEAN_MOVE]:
            # The ticker came back as something else: nothing learnt before speaks of it.
            k[LIFE] += 1
            counts[NEW_INSTRUMENT] += 1
            k[MOVES] = 0
            k[TICKS_SEEN] = 0
            k[ID_COUNT] = 0
            k[ID_MAX] = NO_ID_YET
            f[MEAN_MOVE] = 0.0
            f[SUSPECT] = np.nan
            stale = 0
        elif move > 0.0:
            limit = max(floats[SPIKE] * f[MEAN_MOVE], floats[SPIKE_FLOOR])
            if k[MOVES] >= ints[WARM_UP] and move > limit:
                known = not np.isnan(f[SUSPECT])
                if not (known and abs(log_ratio(price, f[SUSPECT])) <= limit):
                    f[SUSPECT] = price
                    counts[QUARANTINED] += 1
                    return False
                counts[LEVEL_SHIFT] += 1
            if k[MOVES] == 0:
                f[MEAN_MOVE] = move
            else:
                f[MEAN_MOVE] += _SMOOTHING * (min(move, _CLIP * f[MEAN_MOVE]) - f[MEAN_MOVE])
            k[MOVES] += 1
        f[SUSPECT] = np.nan
        if k[TICKS_SEEN] == 1:
            f[MEDIAN_GAP] = sides.first_median(float(gap))
        else:
            f[MEDIAN_GAP] = sides.next_median(f[MEDIAN_GAP], float(gap))
    k[TICKS_SEEN] += 1
    ints[-1] = stale
    return True


@loop
def judge(
    ints: Array,
    floats: Array,
    symbol: Array,
    negative: Array,
    fault: Array,
    ts: Array,
    known_at: Array,
    received: Array,
    id_key: Array,
    numbers: tuple[Array, ...],
    float_state: Array,
    int_state: Array,
    side_floats: Array,
    side_ints: Array,
    ids: Array,
    counts: Array,
    verdict: Array,
    int_out: Array,
    float_out: Array,
    missing_from: Array,
) -> int:
    """Judge ticks of shape (n,) one after another; returns how many are accepted.

    `verdict` gets ACCEPTED or a reason code. `ints` (INT_SETTINGS + 1,) and `floats`
    (FLOAT_SETTINGS,) are settings, times in ns; the last of
    `ints` is scratch. `symbol` holds state rows, -1 for a bad symbol and -2 for one too many;
    `negative` (s,) tells whose prices may be so. `numbers` are price, size, bid, ask, bid_size,
    ask_size, open, high, low, factor, volume_factor; NaN means missing, but for the price. State by
    symbol: `float_state` (s, FLOAT_STATE), `int_state` (s, INT_STATE), `side_floats` and
    `side_ints` of `sides`, `ids` (s, ID_WINDOW) ring, `counts` (s, COUNTED) absolute. `int_out`
    (INT_OUT, n or more) and `float_out` (FLOAT_OUT, ...) get the marks of accepted ticks;
    `missing_from`, (n,) if ids are consecutive, the first missing id where OUT_GAP is not 0; the
    last one is the tick's own less 1.
    """
    plain = ints[PLAIN] != 0
    consecutive = ints[GAPS] != 0
    floor = ints[STALE_FLOOR]
    price, _, bid, ask, _, _, _, _, _, factor, volume_factor = numbers
    accepted = 0
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
        else:
            reason = _unfit(numbers, i, negative[s] != 0)
        if s >= 0 and reason == ACCEPTED and not plain:
            key = id_key[i]
            k = int_state[s]
            # An id above all seen ones is new: only the others need the ring.
            if key != -1 and key <= k[ID_MAX] and _seen(ids[s], k[ID_COUNT], key):
                reason = DUPLICATE
            elif k[TICKS_SEEN] > 0 and ts[i] < k[LAST_TS]:
                reason = LATE
        verdict[i] = reason
        if s < 0:
            continue
        if reason != ACCEPTED:
            counts[s, reason] += 1
            continue
        accepted += 1
        counts[s, ALL_ACCEPTED] += 1
        f = float_state[s]
        k = int_state[s]
        if ask[i] < bid[i]:
            counts[s, CROSSED] += 1
        elif ask[i] == bid[i]:
            counts[s, LOCKED] += 1
        elif np.isnan(bid[i]) != np.isnan(ask[i]):
            counts[s, ONE_SIDED] += 1
        if factor[i] > 0.0 or volume_factor[i] > 0.0:
            counts[s, RESCALED] += 1
            if factor[i] > 0.0:
                f[SCALE] *= factor[i]
                f[PRICE] *= factor[i]
                f[SUSPECT] *= factor[i]
            if volume_factor[i] > 0.0:
                f[VOLUME_SCALE] *= volume_factor[i]
        ints[-1] = 0
        enters = True
        if not plain:
            enters = _live(f, k, price[i], ts[i] - k[LAST_TS], ints, floats, counts[s])
            silent = ints[-1] != 0
            if enters and (silent or not (np.isnan(bid[i]) and np.isnan(ask[i]))):
                side = sides.froze(
                    side_floats[s], side_ints[s], bid[i], ask[i], ts[i], k[LIFE], silent, floor
                )
                if side != sides.NEITHER:
                    counts[s, FROZEN_BID if side == sides.BID else FROZEN_ASK] += 1
        gap = 0
        if id_key[i] != -1:  # after a new instrument was told: its ids start anew
            if consecutive:
                missing_from[i] = k[ID_LAST] + 1
                gap = _missing(k, id_key[i], counts[s])
            _remember(k, ids[s], id_key[i])
        if enters:
            f[PRICE] = price[i]
            k[LAST_TS] = ts[i]
        int_out[OUT_FLAG, i] = 0 if enters else 1
        int_out[OUT_SESSION, i] = k[SESSION]
        int_out[OUT_LIFE, i] = k[LIFE]
        int_out[OUT_STALE, i] = ints[-1]
        int_out[OUT_GAP, i] = min(gap, _INT32_MAX)
        float_out[OUT_SCALE, i] = f[SCALE]
        float_out[OUT_VOLUME_SCALE, i] = f[VOLUME_SCALE]
    return accepted
