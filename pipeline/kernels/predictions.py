"""What the engines say of each bar, what their outcomes teach them, and how they are combined."""

import math
from typing import Final

from pipeline.kernels.hot import loop, once
from pipeline.kernels.learners import (
    clipped,
    kept_of,
    linear_learn,
    linear_say,
    mixed,
    platt_begin,
    platt_learn,
    platt_say,
    reweigh,
    scaled,
    scaler_learn,
    sigmoid,
)
from schemas.blocks import TREND_TAGS, VOL_TAGS, Array

# How an engine speaks: not at all, by a score that a Platt layer turns into a probability, by a
# probability, as the linear model, as the share of rises.
OFF, SCORE, PROBABILITY, LOGIT, BASE = range(5)

# Outputs: what is said together, sigma; then each engine's probability, then each one's weight.
P_UP, SIGMA, OWN = range(3)
REGIMES: Final = len(VOL_TAGS) * len(TREND_TAGS)

# Integers of a symbol: outcomes by regime stand behind those of all, in the last places.
LIFE, BARS, PLACE, RISES, OUTCOMES = range(5)
INT_STATE: Final = OUTCOMES + 1 + REGIMES

# A row that waits for its outcome: the probabilities that were said follow, then the scores, then
# the scaled inputs, all as they were.
CLOSE, REGIME, TOLD, SAID = range(4)  # TOLD: 1 if the linear model had inputs

FAR: Final = 1e150  # beyond it a square overflows: such an input counts as null
# The rates behind those of the linear model.
ETA, SHARE, PRIOR, MOST = range(4)


def outputs(engines: int) -> int:
    """Columns that the kernel fills."""
    return OWN + 2 * engines


def waiting(engines: int, inputs: int) -> int:
    """Numbers of a row that waits."""
    return SAID + 2 * engines + inputs


@once
def _begin(
    k: Array,
    life: int,
    prior: float,
    scaler: Array,
    model: Array,
    layers: Array,
    weights: Array,
) -> None:
    """Nothing is known of an instrument."""
    for j in range(INT_STATE):
        k[j] = 0
    k[LIFE] = life + 1  # of none it is 0
    for a in range(scaler.shape[0]):
        for b in range(scaler.shape[1]):
            scaler[a, b] = 0.0
    for a in range(model.shape[0]):
        for b in range(model.shape[1]):
            model[a, b] = 0.0
    for e in range(layers.shape[0]):
        platt_begin(layers[e], prior)
    for r in range(weights.shape[0]):
        for e in range(weights.shape[1]):
            weights[r, e] = 1.0 / weights.shape[1]


@once
def _learn(
    rose: int,
    row: Array,
    kinds: Array,
    optimizer: int,
    rates: Array,
    blend: Array,
    k: Array,
    model: Array,
    layers: Array,
    weights: Array,
    kept: Array,
) -> None:
    """The outcome of a row that waited: to whom spoke, to the weights of all and of its regime."""
    n = kinds.shape[0]
    for e in range(n):
        kept[e] = kept_of(row[SAID + e], rose, blend[ETA])
        score = row[SAID + n + e]
        if not math.isnan(score):
            platt_learn(layers[e], score, rose)
    reweigh(weights[0], kept, blend[SHARE])
    regime = int(row[REGIME])
    if regime >= 0:
        reweigh(weights[1 + regime], kept, blend[SHARE])
        k[OUTCOMES + 1 + regime] += 1
    if row[TOLD] == 1.0:
        linear_learn(model, row[SAID + 2 * n :], rose, optimizer, rates)
    k[RISES] += rose
    k[OUTCOMES] += 1


@loop
def predictions(
    horizon: int,
    fallback: int,
    kinds: Array,
    optimizer: int,
    rates: Array,
    blend: Array,
    symbol: Array,
    life: Array,
    scale: Array,
    stale: Array,
    close: Array,
    vol: Array,
    vol_tag: Array,
    trend_tag: Array,
    given: Array,
    inputs: Array,
    ints: Array,
    scales: Array,
    scalers: Array,
    models: Array,
    platts: Array,
    weight_state: Array,
    queue: Array,
    kept: Array,
    out: Array,
) -> None:
    """Predict bars of shape (n,) one after another into `out` (outputs(e), n or more).

    Each bar first teaches: the row that was said `horizon` bars before has its outcome now, unless
    the close is unchanged. What it said stands as it was said; learners go on from what they are
    now (QUANT.md 3.3). Then each of e engines speaks by its `kinds` (e,): from its score or its
    probability in `given` (e, n or more), from `inputs` (d, n or more), or from the share of rises,
    (rises + 1) / (outcomes + 2). A null input counts as its mean. An input is told by the scaler
    as it was before the bar, and then learnt by it; the scaled ones wait with the row. What learns
    says nothing before the first outcome. A stale bar says nothing and is not learnt, but what
    waited learns from it.

    p_up is the mean by the weights of those who speak: weights of the regime (`vol_tag` and
    `trend_tag`) from `fallback` outcomes in it on, those of all regimes before.

    `rates` are those of the linear model, `blend` ETA, SHARE, PRIOR and MOST. State, a row per
    symbol: `ints`, `scales`, `scalers` (s, SCALER, d), `models` (s, LINEAR, d + 1), `platts`
    (s, e, PLATT), `weight_state` (s, 1 + REGIMES, e), `queue` (s, horizon, waiting(e, d)).
    `kept` (e,) is scratch.
    """
    n = kinds.shape[0]
    d = inputs.shape[0]
    root = math.sqrt(float(horizon))
    for i in range(symbol.shape[0]):
        s = symbol[i]
        k = ints[s]
        scaler = scalers[s]
        model = models[s]
        layers = platts[s]
        if life[i] + 1 != k[LIFE]:
            _begin(k, life[i], blend[PRIOR], scaler, model, layers, weight_state[s])
        elif scale[i] != scales[s]:
            for j in range(horizon):
                queue[s, j, CLOSE] *= scale[i] / scales[s]
        scales[s] = scale[i]
        row = queue[s, k[PLACE]]
        if k[BARS] >= horizon and close[i] != row[CLOSE]:
            rose = 1 if close[i] > row[CLOSE] else 0
            _learn(
                rose, row, kinds, optimizer, rates, blend, k, model, layers, weight_state[s], kept
            )
        k[BARS] += 1
        k[PLACE] = k[PLACE] + 1 if k[PLACE] + 1 < horizon else 0

        fresh = stale[i] == 0
        told = False
        for j in range(d):
            x = inputs[j, i]
            z = 0.0
            if fresh and abs(x) < FAR:
                told = True
                z = scaled(scaler, j, x, blend[MOST])
                scaler_learn(scaler, j, x)
            row[SAID + 2 * n + j] = z
        row[CLOSE] = close[i]
        row[TOLD] = 1.0 if told else 0.0
        regime = -1
        if 0 <= vol_tag[i] < len(VOL_TAGS) and 0 <= trend_tag[i] < len(TREND_TAGS):
            regime = vol_tag[i] * len(TREND_TAGS) + trend_tag[i]
        row[REGIME] = float(regime)

        learnt = k[OUTCOMES] > 0
        for e in range(n):
            kind = kinds[e]
            p = math.nan
            score = math.nan
            if fresh and kind != OFF:
                if kind == SCORE:
                    score = given[e, i]
                    if learnt and not math.isnan(score):
                        p = platt_say(layers[e], score)
                elif kind == PROBABILITY:
                    p = given[e, i]
                elif kind == LOGIT:
                    if learnt and told:
                        p = sigmoid(linear_say(model, row[SAID + 2 * n :]))
                elif learnt:
                    p = (k[RISES] + 1.0) / (k[OUTCOMES] + 2.0)
                if not math.isnan(p):
                    p = clipped(p)
            row[SAID + e] = p
            row[SAID + n + e] = score
            out[OWN + e, i] = p

        which = 0
        if regime >= 0 and k[OUTCOMES + 1 + regime] >= fallback:
            which = 1 + regime
        weights = weight_state[s, which]
        said = row[SAID : SAID + n]
        out[P_UP, i] = mixed(weights, said)
        total = 0.0
        for e in range(n):
            total += weights[e] if not math.isnan(said[e]) else 0.0
        for e in range(n):
            out[OWN + n + e, i] = weights[e] / total if not math.isnan(said[e]) else 0.0
        out[SIGMA, i] = vol[i] * root
