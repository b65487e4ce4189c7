"""A test that goes on for ever: has the loss of an engine become worse than it was?

Two kinds of bets gain, in the mean, only when it has.

One asks nothing of a loss but its mean: while none is expected, at its prediction, to be above a
bound b, the factors 1 + r (x - b) / b of the losses x >= 0 have a mean of 1 at the most, whatever
their distribution and however it changes (Waudby-Smith and Ramdas 2024, J. Royal Statistical
Society B 86, 1).

The other asks what the predictions are worth, and needs a seventh of the losses when they say
little: a prediction with log odds of a rise of c or -c claims that it is right with log odds c.
They were right with log odds s c (the slope of Cox 1958, Biometrika 45, 562), so from then on it
expects a loss more than a margin m above its own past, or its own claim, only if it is right with
less than the probability q = sigmoid(min(s, 1) c) - m / c. While it is not, the likelihood ratios
of right and wrong under log odds lower by r c have a mean of 1 at the most, whatever c and however
it changes. An engine that knows nothing may say it with more confidence than before, or with less.

The factors of each bet make an evidence M = (M + 1) factor: a Shiryaev-Roberts e-detector (Shin,
Ramdas and Rinaldo 2024, New England J. Statistics in Data Science 2, 229), whose mean after n
losses is n at the most.

Losses of a horizon of h bars overlap, and one is not known when the next h - 1 are predicted. So
there are h turns, each of every h-th prediction, with an evidence of their own. The mean of all
evidence expects, in n predictions, n / h at the most: an alarm at c comes, while nothing becomes
worse, after h c predictions at the least in expectation (Theorem 2.4 there).
"""

import math
from typing import Final

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

MEANS: Final = 5  # bets on the mean of the losses
CLAIMS: Final = 5  # bets on what the predictions are worth
BETS: Final = MEANS + CLAIMS
SEEN, LOOKED = range(2)  # ints of an engine: losses it is measured over, losses since then
COUNTS: Final = 2
# What is summed of it: losses, squares; bound and slope; evidence.
MEAN, SQUARES, BOUND, SLOPE, TOTAL = range(5)
SUMS: Final = 5
BINS: Final = 32  # of claims, each sqrt(2) times as wide as the one below, from 1/256 on
OFTEN, CLAIMED, RIGHT = range(3)  # of a bin: predictions, sum of their claims, how many were right
FIELDS: Final = 3
_SURE: Final = 0.02  # below it a probability of being right leaves nothing to bet on
_LEAST: Final = 1e-9  # information
_STEPS: Final = 30  # of Newton's method
_STEEPEST: Final = 20.0  # slope


@piece
def rate(kind: int) -> float:
    """The part of its unit that a bet on the mean of this kind risks."""
    if kind == 0:
        return 0.02
    if kind == 1:
        return 0.06
    if kind == 2:
        return 0.2
    if kind == 3:
        return 0.5
    return 0.9


@piece
def worth(kind: int) -> float:
    """What a bet on claims of this kind thinks is lost of the slope; 1 is all that it knew."""
    return 0.25 * 2.0**kind


@piece
def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + math.exp(-x))


@piece
def claim(loss: float) -> float:
    """Log odds of the outcome that came, of its log loss; above 0 when the prediction was right."""
    return -math.log(math.expm1(loss))


@piece
def bin_of(size: float) -> int:
    """The bin of a claim above 0."""
    return int(min(max(math.floor(2.0 * math.log2(256.0 * size)), 0.0), BINS - 1.0))


@piece
def slope(table: Array, overlap: int, errors: float) -> float:
    """The part of the claimed log odds that was true, less so many standard errors; 1 at most.

    By maximum likelihood, of a table (BINS, FIELDS) of claims; of `overlap` losses one counts.
    """
    found = 0.0
    information = 0.0
    for _ in range(_STEPS):
        score = 0.0
        information = 0.0
        for b in range(BINS):
            if table[b, OFTEN] > 0.0:
                size = table[b, CLAIMED] / table[b, OFTEN]
                p = sigmoid(found * size)
                score += size * (table[b, RIGHT] - table[b, OFTEN] * p)
                information += table[b, OFTEN] * size * size * p * (1.0 - p)
        information = max(information, _LEAST)
        step = min(max(score / information, -1.0), 1.0)
        found = min(max(found + step, -_STEEPEST), _STEEPEST)
    return min(found - errors * math.sqrt(overlap / information), 1.0)


@piece
def ratio(size: float, right: bool, slope: float, margin: float, lost: float) -> float:
    """The factor of a bet that `lost` of the slope is lost, of a claim and whether it was right."""
    q = sigmoid(slope * size) - margin / size
    if q < _SURE:
        return 1.0
    worse = sigmoid(math.log(q / (1.0 - q)) - lost * size)
    return worse / q if right else (1.0 - worse) / (1.0 - q)


@loop
def worse(
    losses: Array,
    ts: Array,
    begin: int,
    first: int,
    margins: tuple[float, float],
    limit: float,
    counts: Array,
    sums: Array,
    tables: Array,
    evidence: Array,
    runs: Array,
    since: Array,
    out: Array,
    looked: Array,
    began: Array,
) -> None:
    """Look at losses (d, m) of engines on the predictions begin, begin + 1, ... of a symbol.

    An engine is measured over `first` losses: its bound is their mean, three of its standard
    errors and the first margin; the slope is two standard errors below that of its claims, and the
    second margin is theirs. Where the mean evidence is `limit` or more it is written into out
    (d, m), with the losses looked at and since when there was evidence; then the engine is measured
    anew. Nulls are no losses. State: counts (d, COUNTS), sums (d, SUMS), tables (d, BINS, FIELDS),
    evidence, runs (the same since it was last below 1) and since (d, turns, BETS).
    """
    turns = evidence.shape[1]
    for j in range(losses.shape[0]):
        count, told, table = counts[j], sums[j], tables[j]
        bets, run, start = evidence[j], runs[j], since[j]
        for i in range(losses.shape[1]):
            x = losses[j, i]
            if math.isnan(x):
                continue
            odds = claim(x)
            size = abs(odds)
            if count[SEEN] < first:
                count[SEEN] += 1
                told[MEAN] += x
                told[SQUARES] += x * x
                if size > 0.0:
                    row = table[bin_of(size)]
                    row[OFTEN] += 1.0
                    row[CLAIMED] += size
                    row[RIGHT] += 1.0 if odds > 0.0 else 0.0
                if count[SEEN] == first:
                    mean = told[MEAN] / first
                    variance = max(told[SQUARES] / first - mean * mean, 0.0)
                    # Those that overlap count once.
                    told[BOUND] = mean + 3.0 * math.sqrt(variance * turns / first) + margins[0]
                    told[SLOPE] = slope(table, turns, 2.0)
                continue
            count[LOOKED] += 1
            turn = (begin + i) % turns
            for kind in range(BETS):
                factor = 1.0
                if kind < MEANS:
                    factor = 1.0 + rate(kind) * (x / told[BOUND] - 1.0)
                elif size > 0.0:
                    lost = worth(kind - MEANS)
                    factor = ratio(size, odds > 0.0, told[SLOPE], margins[1], lost)
                before = bets[turn, kind]
                bets[turn, kind] = (before + 1.0) * factor
                told[TOTAL] += bets[turn, kind] - before
                if run[turn, kind] <= 1.0:
                    run[turn, kind] = 1.0
                    start[turn, kind] = ts[i]
                run[turn, kind] *= factor
            mean = told[TOTAL] / (turns * BETS)
            if mean >= limit:
                loudest = 0.0
                for turn in range(turns):
                    for kind in range(BETS):
                        if bets[turn, kind] > loudest:
                            loudest = bets[turn, kind]
                            began[j, i] = start[turn, kind]
                        bets[turn, kind] = 0.0
                        run[turn, kind] = 0.0
                out[j, i] = mean
                looked[j, i] = count[LOOKED]
                count[:] = 0
                told[:] = 0.0
                table[:] = 0.0
