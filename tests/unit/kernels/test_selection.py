"""The regime that a symbol is held to be in: another one only after it has lasted."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.kernels.selection import INT_STATE, held
from schemas.blocks import VOL_REGIMES, Array

SYMBOLS = 3


def run(
    hold: int, regime: Array, symbol: Array | None = None, life: Array | None = None, block: int = 0
) -> list[int]:
    """What bars are held to be in, of one symbol and one instrument if none are given."""
    n = len(regime)
    zeros, state = np.zeros(n, np.int32), np.zeros((SYMBOLS, INT_STATE), np.int64)
    of, lives = (zeros if one is None else one for one in (symbol, life))
    found: list[int] = []
    for start, stop in pairwise([*range(0, n, block or n), n]):
        part, out = slice(start, stop), np.empty(stop - start, np.int32)
        held(hold, of[part], lives[part], regime[part], state, out)
        found += out.tolist()
    return found


def codes(*regimes: int) -> Array:
    """As the stage of the regimes gives them."""
    return np.array(regimes, np.int32)


@pytest.mark.parametrize(
    ("hold", "regimes", "wanted"),
    [
        (1, (0, 1, -1, 2, 2), [0, 1, 1, 2, 2]),
        (2, (0, 0, 1, 0, 1, 1, 1, 0), [-1, 0, 0, 0, 0, 1, 1, 1]),
        (2, (-1, -1, 3, 3, 3), [-1, -1, -1, 3, 3]),  # nothing is held before the first has lasted
        (3, (0, 0, 0, 1, 1, 2, 2, 2, 1), [-1, -1, 0, 0, 0, 0, 0, 2, 2]),  # a third begins anew
        (2, (0, 0, 1, -1, 1, 1), [-1, 0, 0, 0, 0, 1]),  # a null ends the row, and changes nothing
        (3, (0, 0, 0, 1, 1, 0, 1, 1, 1), [-1, -1, 0, 0, 0, 0, 0, 0, 1]),  # and so does what is held
    ],
)
def test_a_regime_must_last(hold: int, regimes: tuple[int, ...], wanted: list[int]) -> None:
    """The bar that makes so many in a row is the first of the new regime."""
    assert run(hold, codes(*regimes)) == wanted


def test_another_instrument_begins_with_none() -> None:
    """Also in the middle of a row."""
    life = codes(0, 0, 0, 1, 1, 1)
    assert run(2, codes(3, 3, 1, 1, 1, 1), life=life) == [-1, 3, 3, -1, 1, 1]


def told(hold: int, regimes: list[int]) -> list[int]:
    """The rule in words: the last regime that stood at `hold` bars in a row."""
    found, now = [], -1
    for i in range(len(regimes)):
        last = regimes[max(0, i + 1 - hold) : i + 1]
        if len(last) == hold and len(set(last)) == 1 and last[0] >= 0:
            now = last[0]
        found.append(now)
    return found


@pytest.mark.parametrize("hold", [1, 2, 5])
@pytest.mark.parametrize("block", [0, 1, 7])
def test_it_is_the_last_regime_that_lasted(hold: int, block: int) -> None:
    """Of each symbol and each of its instruments by itself, whatever the blocks."""
    rng = np.random.default_rng(hold)
    n = 3000
    regime = np.repeat(rng.integers(-1, len(VOL_REGIMES), n // 30), 30).astype(np.int32)
    regime[rng.random(n) < 0.1] = 2
    symbol = rng.integers(0, SYMBOLS, n).astype(np.int32)
    life = np.zeros(n, np.int32)
    wanted = np.empty(n, np.int32)
    for s in range(SYMBOLS):
        mine = np.flatnonzero(symbol == s)
        life[mine] = np.cumsum(rng.random(len(mine)) < 0.01)
        for one in np.unique(life[mine]):
            at = mine[life[mine] == one]
            wanted[at] = told(hold, regime[at].tolist())
    found = run(hold, regime, symbol, life, block)
    assert found == wanted.tolist()
    assert set(found) == {-1, *range(len(VOL_REGIMES))}
