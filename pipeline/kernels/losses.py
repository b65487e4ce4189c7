"""A test that goes on for ever: has the loss of an engine become worse than it was?

Nothing is asked of a loss but its mean: while none is expected, at its prediction, to be above a
bound b, the factors 1 + r (x - b) / b of the losses x >= 0 have a mean of 1 at the most, whatever
their distribution and however it changes (Waudby-Smith and Ramdas 2024, J. Royal Statistical
Society B 86, 1). They multiply an evidence M = max(M, 1) (1 + r (x - b) / b) for each rate r: a
CUSUM e-detector (Shin, Ramdas and Rinaldo 2024, New England J. Statistics in Data Science 2, 229).

Losses of a horizon of h bars overlap, and one is not known when the next h - 1 are predicted. So
there are h turns, each of every h-th prediction, with an evidence of their own. The mean of all
evidence expects, in n predictions, n / h at the most: an alarm at c comes, while nothing becomes
worse, after h c predictions at the least in expectation (Theorem 2.4 there).
"""

import math
from typing import Final

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

RATES: Final = 5
SEEN, LOOKED = range(2)  # ints of an engine: losses it is measured over, losses since then
COUNTS: Final = 2
MEAN, SQUARES, BOUND, TOTAL = range(4)  # what is summed of it: losses, squares; bound, evidence
SUMS: Final = 4


@piece
def rate(kind: int) -> float:
    """The part of its unit that a bet of this kind risks."""
    if kind == 0:
        return 0.02
    if kind == 1:
        return 0.06
    if kind == 2:
        return 0.2
    if kind == 3:
        return 0.5
    return 0.9


@loop
def worse(
    losses: Array,
    ts: Array,
    begin: int,
    first: int,
    margin: float,
    limit: float,
    counts: Array,
    sums: Array,
    evidence: Array,
    since: Array,
    out: Array,
    looked: Array,
    began: Array,
) -> None:
    """Look at losses (d, m) of engines on the predictions begin, begin + 1, ... of a symbol.

    An engine is measured over `first` losses: its bound is their mean, three of its standard
    errors and a margin. Where the mean evidence is `limit` or more it is written into out (d, m),
    with the losses looked at and since when there was evidence; then the engine is measured anew.
    Nulls are no losses. State: counts (d, COUNTS), sums (d, SUMS), evidence and since (d, turns,
    RATES).
    """
    turns = evidence.shape[1]
    for j in range(losses.shape[0]):
        count, told, bets, start = counts[j], sums[j], evidence[j], since[j]
        for i in range(losses.shape[1]):
            x = losses[j, i]
            if math.isnan(x):
                continue
            if count[SEEN] < first:
                count[SEEN] += 1
                told[MEAN] += x
                told[SQUARES] += x * x
                if count[SEEN] == first:
                    mean = told[MEAN] / first
                    variance = max(told[SQUARES] / first - mean * mean, 0.0)
                    # Those that overlap count once.
                    told[BOUND] = mean + 3.0 * math.sqrt(variance * turns / first) + margin
                continue
            count[LOOKED] += 1
            turn = (begin + i) % turns
            for kind in range(RATES):
                before = bets[turn, kind]
                if before <= 1.0:
                    start[turn, kind] = ts[i]
                after = max(before, 1.0) * (1.0 + rate(kind) * (x / told[BOUND] - 1.0))
                bets[turn, kind] = after
                told[TOTAL] += after - before
            mean = told[TOTAL] / (turns * RATES)
            if mean >= limit:
                loudest = 0.0
                for turn in range(turns):
                    for kind in range(RATES):
                        if bets[turn, kind] > loudest:
                            loudest = bets[turn, kind]
                            began[j, i] = start[turn, kind]
                        bets[turn, kind] = 0.0
                out[j, i] = mean
                looked[j, i] = count[LOOKED]
                count[:] = 0
                told[:] = 0.0
