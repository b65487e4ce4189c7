"""Books on a fixed clock, marked at the last close before each of its beats (QUANT.md 4.1)."""

from pipeline.kernels.fills import BOOK, MARK
from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

# The floats of the state of a symbol and of an output row are those of its book.
BEAT, OPEN, KNOWN_AT = range(3)
INT_STATE = 3
OUT_AT, OUT_SYMBOL, OUT_TS, OUT_KNOWN_AT = range(4)
INT_OUT = 4


@piece
def _emit(
    f: Array, k: Array, period: int, at: int, symbol: int, floats: Array, ints: Array
) -> None:
    for j in range(BOOK):
        floats[j] = f[j]
    ints[OUT_AT] = at
    ints[OUT_SYMBOL] = symbol
    ints[OUT_TS] = k[BEAT] * period
    ints[OUT_KNOWN_AT] = k[KNOWN_AT]


@loop
def equity(
    period: int,
    symbol: Array,
    ts: Array,
    known_at: Array,
    filled_at: Array,
    books: Array,
    float_state: Array,
    int_state: Array,
    floats: Array,
    ints: Array,
) -> int:
    """Step bars of shape (n,); returns how many rows of the outputs are filled.

    The beat k at k `period` ns shows the book after the last fill at or before it, marked at the
    close of the last bar that ends at or before it; it is told by the first bar that ends later.
    A beat without a bar since the one before is not told: nothing is known that was not. `books`
    (n, 2, BOOK) are before and after the fill of a bar, `filled_at` its time, -1 without one.
    """
    rows = 0
    for i in range(symbol.shape[0]):
        f = float_state[symbol[i]]
        k = int_state[symbol[i]]
        beat = -((-ts[i]) // period)
        if k[OPEN] == 1:
            beat = max(beat, k[BEAT])  # late ticks, where the guard lets them pass
        if k[OPEN] == 1 and beat > k[BEAT]:
            if 0 <= filled_at[i] <= k[BEAT] * period:
                # Filled before the beat, told behind it: it has not moved the mark.
                for j in range(BOOK):
                    f[j] = books[i, 1, j]
                f[MARK] = books[i, 0, MARK]
            _emit(f, k, period, i, symbol[i], floats[rows], ints[rows])
            rows += 1
        k[OPEN] = 1
        k[BEAT] = beat
        k[KNOWN_AT] = known_at[i]
        # The tick that closes a bar may be a reference: its fill is later than the bar's end.
        which = 0 if filled_at[i] > beat * period else 1
        for j in range(BOOK):
            f[j] = books[i, which, j]
        f[MARK] = books[i, 1, MARK]
    return rows


@loop
def close_all(
    period: int, at: int, float_state: Array, int_state: Array, floats: Array, ints: Array
) -> int:
    """Tell the open beat of every symbol at the end of a file; returns the rows."""
    rows = 0
    for s in range(int_state.shape[0]):
        if int_state[s, OPEN] == 1:
            _emit(float_state[s], int_state[s], period, at, s, floats[rows], ints[rows])
            int_state[s, OPEN] = 0
            rows += 1
    return rows
