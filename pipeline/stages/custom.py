"""A user's own features: one decorated function in one file, run like the built-in ones.

from pipeline.stages.custom import feature

@feature(inputs=("close",), periods=20, unit="0..1")
def close_place(close):
    \"\"\"Where the close lies in the range of the last 20 closes.\"\"\"
    low, high = close.min(), close.max()
    return (close[-1] - low) / (high - low) if high > low else 0.5
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.errors import MisuseError
from pipeline.kernels.jit import uncached
from pipeline.stages.base import Block, PerSymbol, grown
from pipeline.stages.user import FEATURE, UserSettings, declared, parameter
from schemas.blocks import Array, Column, Rows, extend, numbers_of

__all__ = ["feature", "parameter"]  # what a user's file imports
_LONGEST: Final = 10_000
_BUILTIN: Final = frozenset(numbers_of("bars", "features"))
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Feature:
    """A user's feature: its column and how to compute it from trailing windows of its inputs."""

    column: Column
    inputs: tuple[str, ...]
    periods: int
    function: Callable[..., float]


def feature(
    *,
    inputs: Sequence[str],
    periods: int,
    unit: str,
    name: str | None = None,
    compiled: bool = False,
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Declare a feature over bars.

    Args:
        inputs: Columns of `bars` or of the built-in `features`; each becomes an argument.
        periods: How many bars each argument holds, the present one last, oldest first.
        unit: Of the value, for the schema.
        name: Of the column; the function's name if not given.
        compiled: Compile it with numba.

    The function gets float64 arrays of shape (periods,) and returns a number; NaN, infinity and an
    exception are stored as null. It is called once `periods` bars are there and no input in them is
    null, with copies: it cannot see a later bar, nor leave a trace. Its docstring is the column's
    meaning. It is tried once at the start, so that a slip is told before the first tick.
    """

    def declare(function: Callable[..., float]) -> Callable[..., float]:
        called = name or function.__name__
        meaning = described("feature", called, function, inputs, periods)
        column = Column(called, "float64", unit, meaning)
        run = uncached(function) if compiled else function
        setattr(function, FEATURE, Feature(column, tuple(inputs), periods, run))
        return function

    return declare


def described(
    what: str, called: str, function: Function, inputs: Sequence[str], periods: int
) -> str:
    """The meaning of what a user declares, the first line of its docstring.

    Raises:
        MisuseError: it has none, or another part of the declaration is of no use.
    """
    meaning = (function.__doc__ or "").strip().splitlines()
    if not called.isidentifier() or not called.islower():
        raise MisuseError(f"{what} {called!r}: a name is a lower-case identifier")
    if not meaning:
        raise MisuseError(f"{what} {called}: a docstring says what it means")
    if not 1 <= periods <= _LONGEST:
        raise MisuseError(f"{what} {called}: periods lies between 1 and {_LONGEST}")
    if not inputs:
        raise MisuseError(f"{what} {called}: inputs names at least one column")
    return meaning[0]


def load(settings: UserSettings) -> tuple[Feature, ...]:
    """The features that the files declare, in their order; their columns join `features`.

    Raises:
        MisuseError: a file cannot be run, declares none, or names a taken or unknown column.
    """
    found = _checked(settings)
    try:
        extend("features", [one.column for one in found])
    except ValueError as error:
        raise MisuseError(str(error)) from error
    return found


@lru_cache(maxsize=16)
def _checked(settings: UserSettings) -> tuple[Feature, ...]:
    found: tuple[Feature, ...] = declared(settings)[FEATURE]
    for one in found:
        unknown = [name for name in one.inputs if name not in _BUILTIN]
        if unknown:
            raise MisuseError(f"feature {one.column.name}: no bar or feature column {unknown[0]}")
        tried(f"feature {one.column.name}", one.function, *plain(one.inputs, one.periods))
    return found


def plain(inputs: Sequence[str], periods: int) -> list[Array]:
    """Plain numbers to try a function with."""
    return [np.arange(1.0, periods + 1.0) for _ in inputs]


def tried(what: str, function: Function, *arguments: Any) -> None:
    """Call a user's function once.

    Raises:
        MisuseError: it fails, or returns no number.
    """
    try:
        float(function(*arguments))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise MisuseError(
            f"{what}: {type(error).__name__}: {reason[0] if reason else ''}"
        ) from error


def value_of(function: Function, *arguments: Any) -> float:
    """One call; what went wrong in it is null, for a user's slip must not stop the stream."""
    try:
        value = float(function(*arguments))
    except Exception:  # noqa: BLE001 -- whatever the user's code raises
        return np.nan
    return value if np.isfinite(value) else np.nan


def copies(window: Array) -> list[Array]:
    """The columns of a window (periods, inputs), each an array of its own."""
    return [column.copy() for column in window.T]


def windows(
    ring: Array, count: Array, symbols: Sequence[int], fresh: Sequence[bool], values: Array
) -> Iterator[Array | None]:
    """For each bar the last values of its symbol, oldest first; None unless all are there.

    Args:
        ring: (s, 2 periods, inputs), changed: each value stands twice, so that any window is whole.
        count: int64 (s,), bars since the last null, changed.
        symbols: of each bar.
        fresh: whether the window of a bar starts empty.
        values: (n, inputs).

    Yields:
        (periods, inputs), to be looked at before the next one.
    """
    periods = ring.shape[1] // 2
    null = np.asarray(np.isnan(values).any(axis=1)).tolist()
    for i, symbol in enumerate(symbols):
        if null[i]:
            count[symbol] = 0
            yield None
            continue
        n = 0 if fresh[i] else int(count[symbol])
        count[symbol] = n + 1
        place = n % periods
        mine = ring[symbol]
        mine[place] = mine[place + periods] = values[i]
        yield mine[place + 1 : place + 1 + periods] if n + 1 >= periods else None


def renewed(arrays: Mapping[str, Array], bars: Rows) -> list[bool]:
    """Bars of another instrument or other units than the one before: windows start empty.

    `arrays` are `life` and `scale` by symbol, changed.
    """
    life, scale = arrays["life"], arrays["scale"]
    found = []
    columns = [bars[name].tolist() for name in ("symbol", "life", "scale")]
    for symbol, now, units in zip(*columns, strict=True):
        found.append(bool(life[symbol] != now or scale[symbol] != units))
        life[symbol] = now
        scale[symbol] = units
    return found


def add_windows(
    arrays: MutableMapping[str, Array], name: str, periods: int, inputs: Sequence[str]
) -> None:
    """State for the `windows` of one function."""
    arrays[f"{name} ring"] = np.empty((0, 2 * periods, len(inputs)))
    arrays[f"{name} count"] = np.empty(0, np.int64)


class Custom(PerSymbol):
    """Fills the user's columns of `features`; without any it passes the block on."""

    name: ClassVar[str] = "custom"

    def __init__(self, settings: UserSettings) -> None:
        self._features = load(settings)
        self._arrays: dict[str, Array] = {"life": np.empty(0, np.int64), "scale": np.empty(0)}
        for one in self._features:
            add_windows(self._arrays, one.column.name, one.periods, one.inputs)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, in the order of their columns."""
        return self._features

    def step(self, block: Block) -> Block:
        """Call each feature for each bar."""
        if not self._features:
            return block
        bars, rows = block.rows["bars"], block.rows["features"]
        for name, array in self._arrays.items():
            self._arrays[name] = grown(array, len(bars.symbols), 0)
        columns = dict(rows.columns)
        if len(rows) != len(bars):  # whose rows they are nobody can tell
            columns.update({one.column.name: np.full(len(rows), np.nan) for one in self._features})
            return block.plus(Rows(rows.stage, columns, rows.symbols))
        inputs: Mapping[str, Array] = {**rows.columns, **bars.columns}
        symbols = bars["symbol"].tolist()
        fresh = renewed(self._arrays, bars)
        for one in self._features:
            values = np.column_stack([inputs[name] for name in one.inputs])
            columns[one.column.name] = self._values(one, symbols, fresh, values)
        return block.plus(Rows(rows.stage, columns, rows.symbols))

    def _values(self, one: Feature, symbols: list[int], fresh: list[bool], values: Array) -> Array:
        name, arrays = one.column.name, self._arrays
        ring, count = arrays[f"{name} ring"], arrays[f"{name} count"]
        found = [
            np.nan if window is None else value_of(one.function, *copies(window))
            for window in windows(ring, count, symbols, fresh, values)
        ]
        return np.array(found, np.float64)
