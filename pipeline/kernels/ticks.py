"""The verdict of the ingest guard over ticks in arrival order (QUANT.md 6)."""

import numpy as np

from pipeline.kernels.hot import loop, piece
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
_MEDIAN_STEP = 1.02
_SHORTEST_GAP = 1e3  # ns
_STALE_AFTER = 10.0  # medians

# Marks of an accepted tick.
OUT_FLAG, OUT_SESSION, OUT_LIFE, OUT_STALE = range(4)
INT_OUT = 4
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
def _identify(k: Array, ids: Array, key: int, consecutive: bool, counts: Array) -> None:
    """Remember a trade id; with consecutive ids, count the ones that are missing before it."""
    if consecutive and k[ID_COUNT] > 0 and key > k[ID_LAST] + 1:
        counts[ID_GAP] += key - k[ID_LAST] - 1
    ids[k[ID_COUNT] % ID_WINDOW] = key
    k[ID_COUNT] += 1
    k[ID_MAX] = max(k[ID_MAX], key)
    k[ID_LAST] = key


@piece
def _live(
    f: Array, k: Array, price: float, gap: int, ints: Array, floats: Array, counts: Array
) -> bool:
    """Sessions, lives and the quarantine of one tick; whether it enters the kernels."""
    stale = 0
    if k[TICKS_SEEN] > 0:
        move = np.nan
        if price > 0.0 and f[PRICE] > 0.0:
            move = abs(np.log(price / f[PRICE]))
        if gap >= ints[SESSION_GAP]:
            k[SESSION] += 1
            counts[SESSION_BREAK] += 1
        if k[TICKS_SEEN] > _STALE_AFTER and gap > max(
            float(ints[STALE_FLOOR]), _STALE_AFTER * f[MEDIAN_GAP]
        ):
            stale = 1
            counts[STALE] += 1
        if gap >= ints[LIFE_GAP] and move > floats[LIFE_JUMP] * f[MEAN_MOVE]:
            # The ticker came back as something else: nothing learnt before speaks of it.
            k[LIFE] += 1
            counts[NEW_INSTRUMENT] += 1
            k[MOVES] = 0
            k[TICKS_SEEN] = 0
            f[MEAN_MOVE] = 0.0
            f[SUSPECT] = np.nan
            stale = 0
        elif move > 0.0:
            limit = max(floats[SPIKE] * f[MEAN_MOVE], floats[SPIKE_FLOOR])
            if k[MOVES] >= ints[WARM_UP] and move > limit:
                known = not np.isnan(f[SUSPECT])
                if not (known and abs(np.log(price / f[SUSPECT])) <= limit):
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
            f[MEDIAN_GAP] = max(float(gap), _SHORTEST_GAP)
        elif float(gap) > f[MEDIAN_GAP]:
            f[MEDIAN_GAP] *= _MEDIAN_STEP
        else:
            f[MEDIAN_GAP] = max(f[MEDIAN_GAP] / _MEDIAN_STEP, _SHORTEST_GAP)
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
    ids: Array,
    counts: Array,
    verdict: Array,
    int_out: Array,
    float_out: Array,
) -> None:
    """Judge ticks of shape (n,) one after another; `verdict` gets ACCEPTED or a reason code.

    `ints` (INT_SETTINGS + 1,) and `floats` (FLOAT_SETTINGS,) are settings, times in ns; the last of
    `ints` is scratch. `symbol` holds state rows, -1 for a bad symbol and -2 for one too many;
    `negative` (s,) tells whose prices may be so. `numbers` are price, size, bid, ask, bid_size,
    ask_size, open, high, low, factor, volume_factor; NaN means missing, but for the price. State by
    symbol: `float_state` (s, FLOAT_STATE), `int_state` (s, INT_STATE), `ids` (s, ID_WINDOW) ring,
    `counts` (s, COUNTED) absolute. `int_out` and `float_out` get the marks of accepted ticks.
    """
    plain = ints[PLAIN] != 0
    price, _, bid, ask, _, _, _, _, _, factor, volume_factor = numbers
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
        counts[s, ALL_ACCEPTED] += 1
        f = float_state[s]
        k = int_state[s]
        if id_key[i] != -1:
            _identify(k, ids[s], id_key[i], ints[GAPS] != 0, counts[s])
        if ask[i] < bid[i]:
            counts[s, CROSSED] += 1
        elif ask[i] == bid[i]:
            counts[s, LOCKED] += 1
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
        if enters:
            f[PRICE] = price[i]
            k[LAST_TS] = ts[i]
        int_out[i, OUT_FLAG] = 0 if enters else 1
        int_out[i, OUT_SESSION] = k[SESSION]
        int_out[i, OUT_LIFE] = k[LIFE]
        int_out[i, OUT_STALE] = ints[-1]
        float_out[i, OUT_SCALE] = f[SCALE]
        float_out[i, OUT_VOLUME_SCALE] = f[VOLUME_SCALE]
