"""Paper orders filled at execution references, and the books that they move (QUANT.md 4.3)."""

import numpy as np

from pipeline.kernels.hot import loop, piece
from pipeline.kernels.signals import BUY, SELL
from schemas.blocks import Array
from schemas.times import DAY as DAY_NS

NEXT_QUOTE, NEXT_TRADE, NEXT_OPEN, CLOSE = range(4)
FRACTION, VOLATILITY, FIXED = range(3)
SIGNAL, LOSS_LIMIT, ENDED = range(3)  # why a fill was made

# What a book is at a row; the first floats of the state of a symbol.
POSITION, CASH, FEES, TRADED, PNL, REFUSED, MARK = range(7)
BOOK = 7
COST, SCALE, VOLUME_SCALE, VOLUME, SIGMA, PEAK, EQUITY, DAY_EQUITY = range(7, 15)
FLOAT_STATE = 15
SEEN, LIFE, SESSION, WANT, WORKING, REASON, DECIDED_TS, DAY, STOPPED = range(9)
INT_STATE = 9
FREE, FOR_THE_DAY, FOR_GOOD = range(3)  # STOPPED

# Settings.
MODE, SIZING, LONG_ONLY, FLAT_ON_HOLD, ANY_SESSION, LATENCY = range(6)
INT_SETTINGS = 6
(
    START_CASH, SIZE, FEE, FEE_PER_UNIT, FEE_MINIMUM, SLIPPAGE, HALF_SPREAD, IMPACT,
    PARTICIPATION, MAX_POSITION, MAX_LEVERAGE, MAX_DRAWDOWN, DAILY_LOSS,
) = range(13)  # fmt: skip
FLOAT_SETTINGS = 13

# A fill.
QUANTITY, PRICE, REFERENCE, OUT_FEE, SLIPPED, OUT_PNL, OUT_POSITION, OUT_CASH = range(8)
FLOAT_OUT = 8
OUT_AT, OUT_SIDE, OUT_REASON, OUT_TS, OUT_DECIDED_TS = range(5)
INT_OUT = 5

_DECAY = 0.94  # of the mean volume of a bar, as of the variance of its return


@piece
def _target(x: Array, sizing: int, f: Array, want: int, reference: float) -> float:
    """The position that is wanted, within its limits; NaN when it cannot be told."""
    equity = f[CASH] + f[POSITION] * reference
    if want == 0 or equity <= 0.0:
        return 0.0
    size = x[SIZE]
    if sizing == VOLATILITY:
        if not f[SIGMA] > 0.0:
            return np.nan
        size = x[SIZE] / f[SIGMA]
    if sizing != FIXED:
        size = size * equity / reference
    size = min(size, x[MAX_LEVERAGE] * equity / reference)
    target: float = want * min(size, x[MAX_POSITION])
    return target


@piece
def _fee(x: Array, quantity: float, price: float) -> float:
    """What it costs to trade a quantity, in money."""
    fee: float = max(x[FEE_MINIMUM], quantity * (price * x[FEE] + x[FEE_PER_UNIT]))
    return fee


@piece
def _afforded(x: Array, cash: float, price: float) -> float:
    """The most that can be bought with all of the cash, fees paid: q = cash / (p (1 + fee))."""
    most = cash / (price * (1.0 + x[FEE]) + x[FEE_PER_UNIT])
    afforded: float = max(0.0, min(most, (cash - x[FEE_MINIMUM]) / price))
    return afforded


@piece
def _book(f: Array, change: float, price: float, fee: float) -> float:
    """Change the position; the profit of what it closed, NaN when it closed nothing.

    COST is what the open position has cost, fees included (less than zero for a short one); what
    closes takes its share of it, so the profits of all closed trades add up to the equity gained.
    """
    position = f[POSITION]
    flow = -change * price - fee
    profit = np.nan
    if position * change < 0.0:
        closed = min(abs(change), abs(position))
        cost = f[COST] * (closed / abs(position))
        of_it = flow * (closed / abs(change))
        profit = of_it - cost
        f[PNL] += profit
        f[COST] += -cost - (flow - of_it)
    else:
        f[COST] -= flow
    f[POSITION] = position + change
    if f[POSITION] == 0.0:
        f[COST] = 0.0
    f[CASH] += flow
    f[FEES] += fee
    f[TRADED] += abs(change) * price
    return profit


@piece
def _write(
    f: Array, k: Array, at: int, ts: int, change: float, numbers: tuple[float, ...],
    ints: Array, floats: Array,
) -> None:  # fmt: skip
    price, reference, fee, profit = numbers
    ints[OUT_AT] = at
    ints[OUT_SIDE] = 0 if change > 0.0 else 1
    ints[OUT_REASON] = k[REASON]
    ints[OUT_TS] = ts
    ints[OUT_DECIDED_TS] = k[DECIDED_TS]
    floats[QUANTITY] = abs(change)
    floats[PRICE] = price
    floats[REFERENCE] = reference
    floats[OUT_FEE] = fee
    floats[SLIPPED] = (price - reference) * change + 0.0  # no -0.0 of a sale
    floats[OUT_PNL] = profit
    floats[OUT_POSITION] = f[POSITION]
    floats[OUT_CASH] = f[CASH]


@piece
def _fill(
    c: Array, x: Array, f: Array, k: Array, at: int, ts: int, quote: tuple[float, ...],
    ints: Array, floats: Array,
) -> int:  # fmt: skip
    """Trade towards what is wanted at a reference; 1 if that made a fill.

    A reference that cannot be traded at is counted and the order goes on waiting, as does the rest
    of one that is cut by the participation.
    """
    reference, bid, ask = quote
    if not (reference > 0.0 and np.isfinite(reference)) or ask < bid:
        f[REFUSED] += 1.0
        return 0
    target = _target(x, c[SIZING], f, k[WANT], reference)
    change = target - f[POSITION]
    if change == 0.0:
        k[WORKING] = 0
        return 0
    whole = True
    most = x[PARTICIPATION] * f[VOLUME]
    if x[PARTICIPATION] < np.inf and not abs(change) <= most:
        change = most if change > 0.0 else -most
        whole = False
    up = 1.0 if change > 0.0 else -1.0
    if c[MODE] == NEXT_QUOTE:
        price = ask if change > 0.0 else bid
    elif c[MODE] == NEXT_TRADE and ask >= bid:
        price = reference + up * 0.5 * (ask - bid)
    else:
        price = reference * (1.0 + up * x[HALF_SPREAD])
    slip = x[SLIPPAGE]
    if x[IMPACT] > 0.0:
        slip += x[IMPACT] * f[SIGMA] * np.sqrt(abs(change) / f[VOLUME])
    price *= 1.0 + up * slip
    if not (price > 0.0 and np.isfinite(price) and abs(change) > 0.0):
        f[REFUSED] += 1.0
        return 0
    if change > 0.0 and x[MAX_LEVERAGE] <= 1.0 and f[POSITION] + change > 0.0:
        # Nothing is borrowed; what covers a short position is always bought.
        change = max(min(change, _afforded(x, f[CASH], price)), -min(f[POSITION], 0.0))
    k[WORKING] = 0 if whole else 1
    if change == 0.0:
        return 0
    fee = _fee(x, abs(change), price)
    profit = _book(f, change, price, fee)
    _write(f, k, at, ts, change, (price, reference, fee, profit), ints, floats)
    return 1


@piece
def _turn(f: Array, scale: float, volume_scale: float) -> None:
    """A corporate action: the position in new units; a dividend is paid in cash, or owed."""
    prices = scale / f[SCALE]
    sizes = volume_scale / f[VOLUME_SCALE]
    if f[POSITION] != 0.0:
        paid = f[POSITION] * f[MARK] * (1.0 - prices * sizes)
        f[CASH] += paid
        f[COST] -= paid
        f[POSITION] *= sizes
    f[MARK] *= prices
    f[VOLUME] *= sizes


@piece
def _end(f: Array, k: Array, at: int, ts: int, ints: Array, floats: Array) -> int:
    """The instrument is gone: its position is settled at its last close; 1 if there was one."""
    change = -f[POSITION]
    k[WORKING] = 0
    k[WANT] = 0
    if change == 0.0:
        return 0
    k[REASON] = ENDED
    k[DECIDED_TS] = ts
    profit = change * -f[MARK] - f[COST]
    f[PNL] += profit
    f[COST] = 0.0
    f[POSITION] = 0.0
    f[CASH] -= change * f[MARK]
    f[TRADED] += abs(change * f[MARK])
    _write(f, k, at, ts, change, (f[MARK], f[MARK], 0.0, profit), ints, floats)
    return 1


@piece
def _limit(x: Array, f: Array, k: Array, equity: float, ts: int, decided: int) -> None:
    """Stop a book that lost too much: all of it is sold, signals are not heard."""
    day = (ts - 1) // DAY_NS  # a bar stamped with midnight ends the day before
    if day != k[DAY]:
        k[DAY] = day
        f[DAY_EQUITY] = f[EQUITY]
        if k[STOPPED] == FOR_THE_DAY:
            k[STOPPED] = FREE
    f[PEAK] = max(f[PEAK], equity)
    if k[STOPPED] != FREE:
        return
    if equity < f[PEAK] * (1.0 - x[MAX_DRAWDOWN]):
        k[STOPPED] = FOR_GOOD
    elif equity < f[DAY_EQUITY] * (1.0 - x[DAILY_LOSS]):
        k[STOPPED] = FOR_THE_DAY
    if k[STOPPED] != FREE:
        k[WANT] = 0
        k[WORKING] = 1
        k[REASON] = LOSS_LIMIT
        k[DECIDED_TS] = decided


@piece
def _decide(c: Array, k: Array, action: int, decided: int) -> None:
    """What the signal wants; an order is made when that is not wanted already."""
    want = k[WANT]
    if action == BUY:
        want = 1
    elif action == SELL:
        want = 0 if c[LONG_ONLY] != 0 else -1
    elif c[FLAT_ON_HOLD] != 0:
        want = 0
    if want != k[WANT]:
        k[WANT] = want
        k[WORKING] = 1
        k[REASON] = SIGNAL
        k[DECIDED_TS] = decided


@loop
def fills(
    c: Array,
    x: Array,
    marks: tuple[Array, ...],
    numbers: tuple[Array, ...],
    signals: tuple[Array, ...],
    float_state: Array,
    int_state: Array,
    ints: Array,
    floats: Array,
    books: Array,
) -> int:
    """Trade through bars of shape (n,); returns how many rows of the outputs are filled.

    `c` (INT_SETTINGS,) and `x` (FLOAT_SETTINGS,) are settings, rates as fractions. `marks` are
    symbol, offset, index, ts, trigger_ts, exec_ts, session, life, stale; `numbers` are close,
    volume, exec_price, exec_bid, exec_ask, scale, volume_scale and the volatility of bar returns;
    `signals` (m,) are offset, index, action of some of the bars, in their order. State by symbol:
    `float_state` (s, FLOAT_STATE), `int_state` (s, INT_STATE). `books` (n, 2, BOOK) gets the book
    before and after the fill of each bar.

    A bar fills what was decided before it, at its reference, and then decides; with CLOSE it does
    so at its own close, which nobody can. It knows the volume and volatility of earlier bars only.
    """
    symbol, offset, index, ts, trigger_ts, exec_ts, session, life, stale = marks
    close, volume, price, bid, ask, scale, volume_scale, sigma = numbers
    signal_offset, signal_index, action = signals
    made = 0
    heard = 0
    for i in range(symbol.shape[0]):
        f = float_state[symbol[i]]
        k = int_state[symbol[i]]
        if k[SEEN] == 0:
            k[SEEN] = 1
            k[LIFE] = life[i]
            k[SESSION] = session[i]
            k[DAY] = -1
            f[CASH] = x[START_CASH]
            f[PEAK] = x[START_CASH]
            f[EQUITY] = x[START_CASH]
            f[VOLUME] = np.nan
            f[SIGMA] = np.nan
            f[MARK] = close[i]
            f[SCALE] = scale[i]
            f[VOLUME_SCALE] = volume_scale[i]
        filled = 0
        ended = life[i] != k[LIFE]
        if not ended and (scale[i] != f[SCALE] or volume_scale[i] != f[VOLUME_SCALE]):
            _turn(f, scale[i], volume_scale[i])
        f[SCALE] = scale[i]
        f[VOLUME_SCALE] = volume_scale[i]
        for j in range(BOOK):
            books[i, 0, j] = f[j]
        if ended:
            filled = _end(f, k, i, ts[i], ints[made], floats[made])
            k[LIFE] = life[i]
            f[VOLUME] = np.nan
            f[SIGMA] = np.nan
        elif k[WORKING] == 1 and c[MODE] != CLOSE and exec_ts[i] >= k[DECIDED_TS] + c[LATENCY]:
            if session[i] != k[SESSION] and c[ANY_SESSION] == 0:
                f[REFUSED] += 1.0  # the first price after a halt
            else:
                quote = (price[i], bid[i], ask[i])
                filled = _fill(c, x, f, k, i, exec_ts[i], quote, ints[made], floats[made])
        k[SESSION] = session[i]
        if volume[i] > 0.0:
            known = f[VOLUME] > 0.0
            f[VOLUME] = _DECAY * f[VOLUME] + (1.0 - _DECAY) * volume[i] if known else volume[i]
        f[SIGMA] = sigma[i]
        _limit(x, f, k, f[CASH] + f[POSITION] * close[i], ts[i], trigger_ts[i])
        f[MARK] = close[i]
        if (
            heard < signal_offset.shape[0]
            and signal_offset[heard] == offset[i]
            and signal_index[heard] == index[i]
        ):
            if k[STOPPED] == FREE:
                _decide(c, k, action[heard], trigger_ts[i])
            heard += 1
        if k[WORKING] == 1 and c[MODE] == CLOSE and filled == 0:
            if stale[i] != 0:
                f[REFUSED] += 1.0
            else:
                quote = (close[i], np.nan, np.nan)
                filled = _fill(c, x, f, k, i, ts[i], quote, ints[made], floats[made])
        f[EQUITY] = f[CASH] + f[POSITION] * close[i]
        for j in range(BOOK):
            books[i, 1, j] = f[j]
        made += filled
    return made
