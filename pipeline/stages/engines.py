"""A user's own engines: one decorated function in one file, weighed beside the built-in ones.

from pipeline.stages.engines import engine

@engine(inputs=("rsi_14",), periods=1)
def contrarian(rsi):
    \"\"\"Against an RSI that is far from 50.\"\"\"
    return 50.0 - rsi[-1]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import numpy as np

from pipeline.errors import MisuseError
from pipeline.kernels.jit import uncached
from pipeline.stages.base import beside
from pipeline.stages.custom import (
    Function,
    add_windows,
    copies,
    described,
    load,
    plain,
    tried,
    value_of,
    windows,
)
from pipeline.stages.user import ENGINE, UserSettings, declared
from schemas.blocks import ENGINES, Array, Column, Rows, extend, numbers_of

Says = Literal["score", "probability"]
LOOKED_AT: Final = ("bars", "features", "regimes")  # stages whose numbers an engine may look at
_LARGEST: Final = 10_000  # numbers of a state
_RESERVED: Final = frozenset({"up", "combined", "shadow", *ENGINES})


@dataclass(frozen=True, slots=True)
class Engine:
    """A user's engine: what it looks at, what it says, and how it learns if it does."""

    name: str
    meaning: str
    inputs: tuple[str, ...]
    periods: int
    says: Says
    function: Function
    state: int
    learn: Function | None


def engine(
    *,
    inputs: Sequence[str],
    periods: int,
    says: Says = "score",
    state: int = 0,
    learn: Function | None = None,
    name: str | None = None,
    compiled: bool = False,
) -> Callable[[Function], Function]:
    """Declare an engine.

    Args:
        inputs: Columns of numbers of `bars`, `features` (your own too) or `regimes`; each becomes
            an argument.
        periods: How many bars each argument holds, the present one last, oldest first.
        says: What the function returns: a `score`, above zero where it speaks for a rise, of which
            outcomes teach what probability it stands for; or a `probability` of a rise.
        state: How many numbers it remembers of each instrument, zeros at first; with them the
            function's first argument is that array, which only `learn` can change.
        learn: Called with the outcome of what was looked at `horizon` bars before, as
            `learn(state, *inputs, rose)`: the arrays as they were then, `rose` 1.0 or 0.0.
        name: The function's name if not given; the columns are `p_<name>` and `w_<name>`.
        compiled: Compile both functions with numba.

    The function gets float64 arrays of shape (periods,); NaN, infinity, an exception and a
    probability outside 0..1 are null: it says nothing. It is called once `periods` bars are there
    and no input in them is null, on bars that are not stale, with copies: it cannot see a later
    bar. A state that `learn` would leave with NaN or infinity, or by an exception, stays as it was.
    All that is remembered belongs in `state`: it is part of every snapshot, a global is not.
    """

    def declare(function: Function) -> Function:
        called = name or function.__name__
        meaning = described("engine", called, function, inputs, periods)
        if called in _RESERVED:
            raise MisuseError(f"engine {called}: there is one of this name")
        if says not in get_args(Says):
            raise MisuseError(f"engine {called}: says is score or probability")
        if not 0 <= state <= _LARGEST or (state > 0) != (learn is not None):
            raise MisuseError(
                f"engine {called}: an engine that learns has a state of 1 to {_LARGEST} numbers, "
                "and only such a one"
            )
        run, taught = function, learn
        if compiled:
            run = uncached(function)
            taught = uncached(learn) if learn is not None else None
        found = Engine(called, meaning, tuple(inputs), periods, says, run, state, taught)
        setattr(function, ENGINE, found)
        return function

    return declare


def load_engines(settings: UserSettings) -> tuple[Engine, ...]:
    """The engines that the files declare, in their order; their columns join `predictions`.

    Raises:
        MisuseError: a file cannot be run, declares none, or names a taken or unknown column.
    """
    load(settings)  # an engine may look at a user's feature
    found = _checked(settings)
    columns = [
        Column(f"p_{one.name}", "float64", "probability", f"engine {one.name}: {one.meaning}")
        for one in found
    ] + [
        Column(f"w_{one.name}", "float64", "weight", f"weight of {one.name} in p_up")
        for one in found
    ]
    try:
        extend("predictions", columns)
    except ValueError as error:
        raise MisuseError(str(error)) from error
    return found


@lru_cache(maxsize=16)
def _checked(settings: UserSettings) -> tuple[Engine, ...]:
    found: tuple[Engine, ...] = declared(settings)[ENGINE]
    own = {one.column.name for one in load(settings)}
    known = own | numbers_of(*LOOKED_AT).keys()
    names = set[str]()
    for one in found:
        what = f"engine {one.name}"
        if one.name in names:
            raise MisuseError(f"{what}: declared twice")
        names.add(one.name)
        unknown = [name for name in one.inputs if name not in known]
        if unknown:
            raise MisuseError(f"{what}: bars, features and regimes have no column {unknown[0]}")
        arguments: list[Any] = plain(one.inputs, one.periods)
        if one.learn is None:
            tried(what, one.function, *arguments)
            continue
        tried(what, one.function, np.zeros(one.state), *arguments)
        for rose in (1.0, 0.0):
            tried(f"{what}, learn", _taught(one), np.zeros(one.state), *arguments, rose)
    return found


def _taught(one: Engine) -> Function:
    """The learning of an engine as a function with a number."""

    def learn(*arguments: Any) -> float:
        if one.learn is not None:
            one.learn(*arguments)
        return 0.0

    return learn


class Own:
    """The user's engines of a stage, which keeps their state among its own."""

    def __init__(self, engines: Sequence[Engine], horizon: int) -> None:
        self._engines, self._horizon = tuple(engines), horizon

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines, in the order of their columns."""
        return self._engines

    def arrays(self) -> dict[str, Array]:
        """State with a row for each symbol, none yet."""
        if not self._engines:
            return {}
        arrays: dict[str, Array] = {
            "own life": np.empty(0, np.int64),
            "own scale": np.empty(0),
            "own bars": np.empty(0, np.int64),
            "own closes": np.empty((0, self._horizon)),
        }
        for one in self._engines:
            add_windows(arrays, one.name, one.periods, one.inputs)
            if one.learn is not None:
                shape = (0, self._horizon, one.periods, len(one.inputs))
                arrays[f"{one.name} waiting"] = np.empty(shape)
                arrays[f"{one.name} state"] = np.empty((0, one.state))
        return arrays

    def say(self, arrays: Mapping[str, Array], rows: Mapping[str, Rows], out: Array) -> None:
        """Teach and ask each engine bar by bar; what they say into out (engines, n or more)."""
        if not self._engines:
            return
        bars = rows["bars"]
        n = len(bars)
        bar_symbols, stale = bars["symbol"].tolist(), bars["stale"].tolist()
        fresh, begun, places, rises = self._matured(arrays, bars)
        for row, one in zip(out, self._engines, strict=False):
            columns = [beside(_column(rows, name), n) for name in one.inputs]
            ring, count = arrays[f"{one.name} ring"], arrays[f"{one.name} count"]
            values = np.column_stack(columns)
            found = windows(ring, count, bar_symbols, fresh, values)
            states, queue = arrays.get(f"{one.name} state"), arrays.get(f"{one.name} waiting")
            for i, window in enumerate(found):
                seen = None if stale[i] else window
                if states is None or queue is None:
                    row[i] = _said(one, seen)
                    continue
                s = bar_symbols[i]
                state, waiting = states[s], queue[s, places[i]]
                if begun[i]:
                    state[:] = 0.0
                if rises[i] is not None and waiting[0, 0] == waiting[0, 0]:  # not NaN
                    _teach(one, state, waiting, rises[i])
                waiting[:] = np.nan if seen is None else seen
                row[i] = _said(one, seen, state.copy())

    def _matured(
        self, arrays: Mapping[str, Array], bars: Rows
    ) -> tuple[list[bool], list[bool], list[int], list[float | None]]:
        """What the closes tell of each bar.

        Returns:
            Whether windows begin anew, whether the instrument does, the place of what waits, and
            the outcome of what has waited there; None without one, as of an unchanged close.
        """
        lives, scales = arrays["own life"], arrays["own scale"]
        counts, closes = arrays["own bars"], arrays["own closes"]
        fresh, begun = list[bool](), list[bool]()
        places, rises = list[int](), list[float | None]()
        columns = [bars[name].tolist() for name in ("symbol", "life", "scale", "close")]
        for s, life, scale, close in zip(*columns, strict=True):
            new = bool(life + 1 != lives[s])  # of none it is 0
            other = not new and bool(scale != scales[s])
            if new:
                lives[s] = life + 1
                counts[s] = 0
            elif other:
                closes[s] *= scale / scales[s]
            scales[s] = scale
            k = int(counts[s])
            place = k % self._horizon
            before = float(closes[s, place])
            known = k >= self._horizon and close != before
            fresh.append(new or other)
            begun.append(new)
            places.append(place)
            rises.append(float(close > before) if known else None)
            closes[s, place] = close
            counts[s] = k + 1
        return fresh, begun, places, rises


def _column(rows: Mapping[str, Rows], name: str) -> Array:
    """The first stage's that has it: no two share a name but those of identity."""
    return next(rows[stage][name] for stage in LOOKED_AT if name in rows[stage].columns)


def _said(one: Engine, window: Array | None, *state: Array) -> float:
    if window is None:
        return np.nan
    value = value_of(one.function, *state, *copies(window))
    return value if one.says == "score" or 0.0 <= value <= 1.0 else np.nan


def _teach(one: Engine, state: Array, window: Array, rose: Any) -> None:
    """A slip of the user leaves the state as it was."""
    after = state.copy()
    try:
        if one.learn is not None:
            one.learn(after, *copies(window), rose)
    except Exception:  # noqa: BLE001 -- whatever the user's code raises
        return
    if np.isfinite(after).all():
        state[:] = after
