"""Training of a version: fitted on a replayed range, judged on the end of it, written with both."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import MisuseError
from pipeline.kernels.hmm import log_norms
from pipeline.models.hmm import SHARPEST, HmmFit, durations, fit, run_filter
from pipeline.models.series import Series, read_series
from schemas.blocks import Array
from schemas.models import HmmParameters, hmm_artifact

FEWEST: Final = 200  # returns of a symbol
_HELD_OUT: Final = 0.25  # of the returns, the last ones
_STEP: Final = 0.01  # share of the moves that are smaller than a step of the price

Progress = Callable[[int], None]  # told how many returns are fitted


def train_hmm(
    directory: Path,
    states: int = 2,
    symbols: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """A hidden Markov model of each symbol's bar returns, as an artifact.

    Each symbol is standardised by its own mean and deviation. The metrics are nats per return: of
    the fit, and of the last quarter by a fit on the quarters before it, each beside one normal
    distribution fitted on the same returns. Symbols with fewer than `FEWEST` returns are left out,
    unless they were named.

    Raises:
        MisuseError: the directory is no replay's, or its returns cannot be fitted.
    """
    replayed = read_series(directory, symbols)
    long_enough = [one for one in replayed.series if len(one.returns) >= FEWEST]
    short = [one for one in replayed.series if len(one.returns) < FEWEST]
    if not long_enough or (symbols and short):
        named = f" of {short[0].symbol}" if short else ""
        raise MisuseError(
            f"{directory}: {len(short[0].returns) if short else 0} returns{named} are too few: "
            f"at least {FEWEST}"
        )
    parameters, metrics, ranges, done = {}, {}, {}, 0
    for series in long_enough:
        try:
            parameters[series.symbol], metrics[series.symbol] = _trained(series.returns, states)
        except MisuseError as error:
            raise MisuseError(f"{series.symbol}: {error}") from error
        ranges[series.symbol] = _range(series)
        done += len(series.returns)
        progress(done)
    left_out = [one.symbol for one in short]
    data = {**replayed.facts, "symbols": ranges, "left_out": left_out}
    return hmm_artifact(parameters, data, metrics)


def _trained(returns: Array, states: int) -> tuple[HmmParameters, Mapping[str, Any]]:
    location, scale = float(returns.mean()), float(returns.std())
    if not scale > 0:
        raise MisuseError("the returns do not move")
    y = (returns - location) / scale
    found = _fitted(y, location / scale, states)
    parameters = found.parameters.model_copy(update={"location": location, "scale": scale})
    filtered = run_filter(parameters, y)
    tags = filtered.filtered.argmax(axis=1)
    n = len(y)
    free = states * (states - 1) + 2 * states  # transitions, means and variances
    return HmmParameters.model_validate(parameters.model_dump()), {
        "returns": n,
        "iterations": len(found.history),
        "hmm": filtered.llf / n,
        "normal": float(_log_normal(y).mean()),
        "bic": free * math.log(n) - 2.0 * filtered.llf,
        "durations": durations(parameters).tolist(),
        "shares": [float((tags == state).mean()) for state in range(states)],
        "held_out": _held_out(returns, states),
    }


def _fitted(y: Array, zero: float, states: int) -> HmmFit:
    """The fit of standardised returns, none of its states narrower than prices are rounded.

    Where a price often stays, one state would shrink to those returns, and its density grow without
    bound: a return of one step of the price has the variance step^2 / 12 of what was rounded off.
    """
    moves = np.abs(y + zero)
    moves = moves[moves > 0]
    step = float(np.quantile(moves, _STEP)) if len(moves) else 0.0
    found = fit(y, states, narrowest=step * step / 12.0)
    if found.parameters.variance[0] <= 2.0 * SHARPEST * y.var():
        raise MisuseError(
            "many returns are all alike, which no normal state can be: "
            "take wider bars, or fewer states"
        )
    return found


def _held_out(returns: Array, states: int) -> Mapping[str, Any]:
    """Nats per return of the last ones, which neither fit has seen; the filter has run up to them.

    Both in units of the deviation of the first ones.
    """
    n = round(len(returns) * (1.0 - _HELD_OUT))
    location, scale = float(returns[:n].mean()), float(returns[:n].std())
    if not scale > 0:
        raise MisuseError("the returns before the held-out ones do not move")
    y = (returns - location) / scale
    parameters = _fitted(y[:n], location / scale, states).parameters
    gain = run_filter(parameters, y).llf - run_filter(parameters, y[:n]).llf
    normal = _log_normal(y[n:])
    return {"returns": len(normal), "hmm": gain / len(normal), "normal": float(normal.mean())}


def _log_normal(y: Array) -> Array:
    """The log density of each under the standard normal distribution."""
    return np.asarray(log_norms(np.ones(1)) - 0.5 * y * y)


def _range(series: Series) -> Mapping[str, Any]:
    return {
        "returns": len(series.returns),
        "first": dict(series.first),
        "last": dict(series.last),
    }
