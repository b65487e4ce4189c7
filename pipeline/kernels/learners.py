"""What learns from one outcome at a time: running scaler, logistic models, Platt layer, weights.

All are loops over scalars whose state is the arrays they are given, so the size of a block leaves
no trace in any bit. The loops run one learner over rows with known outcomes, each said before it is
learnt; the stage of the predictions calls the pieces, as its outcomes come later than its rows.
"""

import math
from typing import Final

from pipeline.kernels.hot import loop, piece
from schemas.blocks import Array

COUNT, MEAN, VAR = range(3)  # rows of a scaler's state (SCALER, d)
SCALER: Final = 3
# Rows of a linear model's state (LINEAR, d + 1), the intercept in the last column; ROOT is of N.
W, Z, N, ROOT = range(4)
LINEAR: Final = 4
SLOPE, SHIFT, P_SLOPE, P_BOTH, P_SHIFT = range(5)  # of a Platt layer's state (PLATT,)
PLATT: Final = 5
SGD, FTRL = range(2)
# Rates of a linear model. SGD has the first two only.
RATE, INTERCEPT_RATE, BETA, L1, L2 = range(5)

CLIP: Final = 1e-6  # of probabilities before their logarithm (QUANT.md 3.3)
LEAST: Final = 1e-300  # of a weight: what has lost 690 nats can still come back
_STEEP: Final = 18.0  # beyond it one of 1 + exp is left out, as river does


@piece
def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)); 0 where the exponential overflows to infinity."""
    return 1.0 / (1.0 + math.exp(-x))


@piece
def clipped(p: float) -> float:
    """A probability that has a logarithm, and whose opposite has one."""
    return min(max(p, CLIP), 1.0 - CLIP)


@piece
def scaled(scaler: Array, j: int, x: float, most: float) -> float:
    """Input j in deviations (ddof 0) from the mean learnt, `most` at most; 0 without a variance."""
    variance = scaler[VAR, j]
    if variance <= 0.0:
        return 0.0
    return float(min(max((x - scaler[MEAN, j]) / math.sqrt(variance), -most), most))


@piece
def scaler_learn(scaler: Array, j: int, x: float) -> None:
    """Welford's update of the mean and the variance of input j."""
    n = scaler[COUNT, j] + 1.0
    part = 1.0 / n
    before = scaler[MEAN, j]
    mean = before + (x - before) * part
    scaler[COUNT, j] = n
    scaler[MEAN, j] = mean
    scaler[VAR, j] += ((x - before) * (x - mean) - scaler[VAR, j]) * part


@piece
def linear_say(model: Array, z: Array) -> float:
    """The log odds of scaled inputs z (d or more,)."""
    d = model.shape[1] - 1
    total = 0.0
    for j in range(d):
        total += model[W, j] * z[j]
    return float(total + model[W, d])


@piece
def slope_of_loss(rose: int, log_odds: float) -> float:
    """The derivative of the log loss by the log odds: p - y, in the form of river's losses.Log."""
    sign = 1.0 if rose == 1 else -1.0
    margin = log_odds * sign
    if margin > _STEEP:
        return -sign * math.exp(-margin)
    if margin < -_STEEP:
        return -sign
    return -sign / (math.exp(margin) + 1.0)


@piece
def linear_learn(model: Array, z: Array, rose: int, optimizer: int, rates: Array) -> None:
    """One step of SGD or FTRL-proximal on the log loss; the intercept goes by its own rate.

    FTRL is McMahan et al. (2013) in the order of river: weights are a gradient behind.
    """
    d = model.shape[1] - 1
    slope = slope_of_loss(rose, linear_say(model, z))
    model[W, d] -= rates[INTERCEPT_RATE] * slope
    if optimizer == SGD:
        for j in range(d):
            model[W, j] -= rates[RATE] * (slope * z[j])
        return
    l1, l2, beta = rates[L1], rates[L2], rates[BETA]
    inverse = 1.0 / rates[RATE]
    for j in range(d):
        sum_z = model[Z, j]
        root = model[ROOT, j]
        w = model[W, j]
        if abs(sum_z) > l1:
            w = (math.copysign(l1, sum_z) - sum_z) / ((beta + root) * inverse + l2)
            model[W, j] = w
        g = slope * z[j]
        square = model[N, j] + g * g
        grown = math.sqrt(square)
        model[Z, j] = sum_z + (g - (grown - root) * inverse * w)
        model[N, j] = square
        model[ROOT, j] = grown


@piece
def platt_begin(layer: Array, prior: float) -> None:
    """Nothing is known: slope and shift are 0 with the variance `prior` each."""
    layer[SLOPE] = 0.0
    layer[SHIFT] = 0.0
    layer[P_SLOPE] = prior
    layer[P_BOTH] = 0.0
    layer[P_SHIFT] = prior


@piece
def platt_say(layer: Array, score: float) -> float:
    """The probability that a score stands for: the logistic of slope times score plus shift."""
    return sigmoid(layer[SLOPE] * score + layer[SHIFT])


@piece
def platt_learn(layer: Array, score: float, rose: int) -> None:
    """One Newton step: a normal posterior by Laplace's method, its precision grown by p (1 - p).

    P' = P - v P x x'P / (1 + v x'P x), theta' = theta + P' x (y - p), x = (score, 1), v = p (1 - p)
    (Spiegelhalter and Lauritzen 1990): in the long run the maximum of the likelihood, without rate.
    """
    p = platt_say(layer, score)
    a = layer[P_SLOPE] * score + layer[P_BOTH]
    b = layer[P_BOTH] * score + layer[P_SHIFT]
    spread = p * (1.0 - p)
    gain = 1.0 / (1.0 + spread * (score * a + b))
    error = float(rose) - p
    layer[SLOPE] += a * gain * error
    layer[SHIFT] += b * gain * error
    gain *= spread
    layer[P_SLOPE] -= a * a * gain
    layer[P_BOTH] -= a * b * gain
    layer[P_SHIFT] -= b * b * gain


@piece
def kept_of(p: float, rose: int, eta: float) -> float:
    """exp(-eta loss) of a probability: what is kept of its weight; null of a sleeper."""
    if math.isnan(p):
        return math.nan
    hit = clipped(p if rose == 1 else 1.0 - p)
    return hit if eta == 1.0 else math.exp(eta * math.log(hit))


@piece
def reweigh(weights: Array, kept: Array, share: float) -> None:
    """Exponential weights (n,) after a round, then a fixed share of all of it evenly to all.

    `kept` (n or more,) is exp(-eta loss) of each, null of one that slept: those that were awake
    keep together what they had, as if a sleeper had lost what their mixture lost (Freund et al.
    1997). The share lets one that was bad for long come back (Herbster and Warmuth 1998).
    """
    n = weights.shape[0]
    before = 0.0
    after = 0.0
    for i in range(n):  # by choices, not jumps: who sleeps nobody can foresee
        awake = not math.isnan(kept[i])
        before += weights[i] if awake else 0.0
        after += weights[i] * kept[i] if awake else 0.0
    ratio = before / after if after > 0.0 else 1.0
    even = share / n
    for i in range(n):
        part = kept[i] * ratio
        w = weights[i] * part if after > 0.0 and not math.isnan(part) else weights[i]
        weights[i] = max((1.0 - share) * w + even, LEAST)


@piece
def mixed(weights: Array, values: Array) -> float:
    """The mean of values (n or more,) that are not null, by weight; null where none is."""
    total = 0.0
    weight = 0.0
    for i in range(weights.shape[0]):
        awake = not math.isnan(values[i])
        total += weights[i] * values[i] if awake else 0.0
        weight += weights[i] if awake else 0.0
    return total / weight if weight > 0.0 else math.nan


@loop
def logistic(
    x: Array,
    rose: Array,
    optimizer: int,
    rates: Array,
    most: float,
    scaler: Array,
    model: Array,
    z: Array,
    p: Array,
) -> None:
    """Rows x (n, d) one after another: said into p (n,), then learnt with their outcomes rose (n,).

    The order of river's pipelines: a row is told by the scaler as it was before the row, then the
    scaler learns it, then the model, from the row as the scaler sees it now. State: `scaler`
    (SCALER, d) and `model` (LINEAR, d + 1); z (d,) is scratch.
    """
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            z[j] = scaled(scaler, j, x[i, j], most)
        p[i] = sigmoid(linear_say(model, z))
        for j in range(x.shape[1]):
            scaler_learn(scaler, j, x[i, j])
            z[j] = scaled(scaler, j, x[i, j], most)
        linear_learn(model, z, rose[i], optimizer, rates)


@loop
def platt(score: Array, rose: Array, layer: Array, p: Array) -> None:
    """Scores (n,) said into p (n,), then learnt with rose (n,); state: `layer` (PLATT,)."""
    for i in range(score.shape[0]):
        p[i] = platt_say(layer, score[i])
        platt_learn(layer, score[i], rose[i])


@loop
def mixture(
    p: Array, rose: Array, eta: float, share: float, weights: Array, kept: Array, out: Array
) -> None:
    """Mix probabilities p (t, n), null of sleepers, into out (t,); losses are log losses.

    State: `weights` (n,), positive; kept (n,) is scratch.
    """
    for i in range(p.shape[0]):
        out[i] = mixed(weights, p[i])
        for j in range(p.shape[1]):
            kept[j] = kept_of(p[i, j], rose[i], eta)
        reweigh(weights, kept, share)


@loop
def hedge(losses: Array, eta: float, share: float, weights: Array, kept: Array, out: Array) -> None:
    """Mean losses (t,) of following experts by weight, for losses (t, n), null of sleepers."""
    for i in range(losses.shape[0]):
        out[i] = mixed(weights, losses[i])
        for j in range(losses.shape[1]):
            kept[j] = math.exp(-eta * losses[i, j])
        reweigh(weights, kept, share)


@loop
def rls(
    x: Array,
    y: Array,
    forget: float,
    prior: float,
    most: float,
    w: Array,
    spread: Array,
    gain: Array,
    errors: Array,
) -> None:
    """Recursive least squares over rows x (n, d); the errors (n,) of what was said before learning.

    k = Px / (forget + x'Px), w += k e, P = (P - k x'P) / forget, kept symmetric. State: w (d,) and
    `spread` P (d, d), at first `prior` times the identity, which it becomes again when its trace is
    above `most`: without excitation forgetting lets it explode. gain (d,) is scratch.
    """
    d = x.shape[1]
    for i in range(x.shape[0]):
        said = 0.0
        total = forget
        for a in range(d):
            said += w[a] * x[i, a]
            gain[a] = 0.0
            for b in range(d):
                gain[a] += spread[a, b] * x[i, b]
            total += gain[a] * x[i, a]
        errors[i] = y[i] - said
        trace = 0.0
        for a in range(d):
            w[a] += gain[a] / total * errors[i]
            for b in range(a + 1):
                value = (spread[a, b] - gain[a] * gain[b] / total) / forget
                spread[a, b] = value
                spread[b, a] = value
            trace += spread[a, a]
        if not trace <= most:  # also a null
            for a in range(d):
                for b in range(d):
                    spread[a, b] = prior if a == b else 0.0
