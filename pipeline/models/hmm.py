"""Gaussian hidden Markov models: the filter over a whole series, and the fit by EM."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import ValidationError

from pipeline.errors import MisuseError
from pipeline.kernels import hmm as kernels
from pipeline.kernels.hmm import log_norms, stationary
from schemas.blocks import Array
from schemas.models import HmmParameters

_STAY: Final = 0.98  # first guess of the probability to stay in a state
_SPREAD: Final = 8.0  # of the first guesses of the variances, the largest to the smallest
SHARPEST: Final = 1e-8  # a state's variance is at least this part of that of all observations
_EACH: Final = 20  # observations for each state


@dataclass(frozen=True)
class Filtered:
    """What the filter knows at each t: shape (n, k); `predicted` without y_t, `filtered` with."""

    llf: float
    predicted: Array
    filtered: Array


@dataclass(frozen=True)
class HmmFit:
    """Parameters, states by variance, and the log likelihood before each of the EM iterations.

    `start` is the distribution of the first state that EM found; the filter of the chain begins at
    the stationary one instead. `llf` is the log likelihood of parameters and start.
    """

    parameters: HmmParameters
    start: Array
    llf: float
    history: tuple[float, ...]


def durations(parameters: HmmParameters) -> Array:
    """Expected stay in each state (k,), in observations: 1 / (1 - p_ii)."""
    return np.asarray(1.0 / (1.0 - np.diag(np.array(parameters.transition))))


def run_filter(parameters: HmmParameters, y: Array, start: Array | None = None) -> Filtered:
    """The Hamilton filter over observations y (n,), already standardised.

    It begins at `start` (k,), by default the stationary distribution. No row knows a later y.
    """
    at_first = stationary(parameters.transition) if start is None else start
    sd = np.sqrt(np.array(parameters.variance))
    return _filtered(y, at_first, np.array(parameters.transition), np.array(parameters.mean), sd)


def _filtered(y: Array, start: Array, transition: Array, mean: Array, sd: Array) -> Filtered:
    predicted, filtered = np.empty((2, len(y), len(mean)))
    log_norm = log_norms(sd)
    llf = kernels.run_filter(y, start, transition, mean, sd, log_norm, predicted, filtered)
    return Filtered(llf, predicted, filtered)


def first_guess(y: Array, states: int) -> HmmParameters:
    """Where the fit begins unless told otherwise: equal means, variances in geometric steps."""
    steps = _SPREAD ** (np.arange(states) / (states - 1) - 0.5)
    leave = (1.0 - _STAY) / (states - 1)
    stay = 1.0 - leave * (states - 1)
    rows = [[stay if i == j else leave for j in range(states)] for i in range(states)]
    variance = np.maximum(y.var() * steps, 1e-12)
    return HmmParameters.model_validate(
        {"transition": rows, "mean": [float(y.mean())] * states, "variance": variance.tolist()}
    )


def fit(
    y: Array,
    states: int = 2,
    first: HmmParameters | None = None,
    *,
    tolerance: float = 1e-8,
    most: int = 500,
    narrowest: float = 0.0,
) -> HmmFit:
    """Fit by EM (Baum-Welch) from a fixed start: the same series gives the same parameters.

    Means and variances of all states, all transitions and the first state are free, without
    priors. It ends when an iteration gains less than `tolerance` or after `most` of them. The log
    likelihood never falls. What it finds is a local optimum, the one that `first` leads to; no
    variance is below `narrowest`, or `SHARPEST` of that of all y, where it has no optimum at all.

    Raises:
        MisuseError: y is too short, constant, or not finite.
    """
    y = np.ascontiguousarray(y, np.float64)
    if len(y) < _EACH * states:
        raise MisuseError(
            f"{len(y)} returns are too few for {states} states: at least {_EACH * states}"
        )
    if not np.isfinite(y).all() or not y.var() > 0:
        raise MisuseError("the returns to fit are constant or not finite")
    guess = first if first is not None else first_guess(y, states)
    transition, mean = np.array(guess.transition), np.array(guess.mean)
    variance = np.array(guess.variance)
    start = np.full(states, 1.0 / states)
    floor = max(SHARPEST * y.var(), narrowest, 1e-12)
    history: list[float] = []
    smoothed, pairs = np.empty((len(y), states)), np.empty((states, states))
    while True:
        found = _filtered(y, start, transition, mean, np.sqrt(variance))
        history.append(found.llf)
        if len(history) >= most or (len(history) > 1 and history[-1] - history[-2] < tolerance):
            break
        kernels.run_smoother(transition, found.predicted, found.filtered, smoothed, pairs)
        weight = smoothed.sum(axis=0)
        start = smoothed[0] / smoothed[0].sum()
        transition = pairs / pairs.sum(axis=1, keepdims=True)
        mean = (smoothed * y[:, None]).sum(axis=0) / weight
        variance = (smoothed * (y[:, None] - mean) ** 2).sum(axis=0) / weight
        variance = np.maximum(variance, floor)
    return HmmFit(*_by_variance(transition, mean, variance, start), history[-1], tuple(history))


def _by_variance(
    transition: Array, mean: Array, variance: Array, start: Array
) -> tuple[HmmParameters, Array]:
    """The parameters with states in ascending order of variance.

    Raises:
        MisuseError: no model of so many states came of it.
    """
    order = np.argsort(variance, kind="stable")
    try:
        parameters = HmmParameters.model_validate(
            {
                "transition": transition[np.ix_(order, order)].tolist(),
                "mean": mean[order].tolist(),
                "variance": variance[order].tolist(),
            }
        )
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise MisuseError(
            f"no model of {len(mean)} states fits these returns ({why}): take fewer states"
        ) from error
    return parameters, start[order]
