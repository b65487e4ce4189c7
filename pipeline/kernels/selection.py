"""Which regime a symbol is held to be in: another one only after it has lasted."""

from typing import Final

from pipeline.kernels.hot import loop
from schemas.blocks import Array

# Integers of a symbol: its instrument, the regime that it is held to be in, the one that it was in
# at the last bar if that is another, and for how many bars in a row. Regimes are one more than
# their codes, so that zeros know nothing.
LIFE, HELD, NEXT, RUN = range(4)
INT_STATE: Final = RUN + 1


@loop
def held(hold: int, symbol: Array, life: Array, regime: Array, state: Array, out: Array) -> None:
    """The regimes that bars (n,) are held to be in, into `out` (n,): codes, -1 before the first.

    The regime of a symbol changes at the bar that makes `hold` in a row of the same other one. A
    bar whose `regime` is null (-1), or the one that is held, ends the row. Another instrument
    begins with none. `state` (s, INT_STATE) has a row for each symbol.
    """
    for i in range(symbol.shape[0]):
        k = state[symbol[i]]
        if k[LIFE] != life[i] + 1:
            k[LIFE] = life[i] + 1
            k[HELD] = 0
            k[RUN] = 0
        now = regime[i] + 1
        if now in (0, k[HELD]):
            k[RUN] = 0
        else:
            k[RUN] = k[RUN] + 1 if k[RUN] > 0 and now == k[NEXT] else 1
            k[NEXT] = now
            if k[RUN] >= hold:
                k[HELD] = now
                k[RUN] = 0
        out[i] = k[HELD] - 1
