"""A user's own features: one decorated function in one file, run like the built-in ones.

from pipeline.stages.custom import feature

@feature(inputs=("close",), periods=20, unit="0..1")
def close_place(close):
    \"\"\"Where the close lies in the range of the last 20 closes.\"\"\"
    low, high = close.min(), close.max()
    return (close[-1] - low) / (high - low) if high > low else 0.5
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from pipeline.errors import MisuseError
from pipeline.kernels.jit import uncached
from pipeline.stages.base import Block, PerSymbol, grown
from schemas.blocks import COLUMNS, Array, Column, Rows, extend

USER_MODULE: Final = "tickstream_user_features"
_TARGET: Final = "_feature"
_LONGEST: Final = 10_000
Parameter = bool | int | float | str
P = TypeVar("P", bool, int, float, str)
_BUILTIN: Final = frozenset(
    c.name for stage in ("bars", "features") for c in COLUMNS[stage] if c.kind == "float64"
)


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
        meaning = (function.__doc__ or "").strip().splitlines()
        if not called.isidentifier() or not called.islower():
            raise MisuseError(f"feature {called!r}: a name is a lower-case identifier")
        if not meaning:
            raise MisuseError(f"feature {called}: a docstring says what it means")
        if not 1 <= periods <= _LONGEST:
            raise MisuseError(f"feature {called}: periods lies between 1 and {_LONGEST}")
        if not inputs:
            raise MisuseError(f"feature {called}: inputs names at least one column")
        column = Column(called, "float64", unit, meaning[0])
        run = uncached(function) if compiled else function
        setattr(function, _TARGET, Feature(column, tuple(inputs), periods, run))
        return function

    return declare


class _Parameters:
    """What is given to the files that are being run, and what they asked for."""

    def __init__(self, given: Mapping[str, Parameter]) -> None:
        self.given = given
        self.asked: set[str] = set()


_PARAMETERS: ContextVar[_Parameters] = ContextVar("parameters")


def parameter(name: str, default: P) -> P:
    """A number or word of the user's file that `user.parameters.NAME` replaces.

    Ask for it once, at the top of the file, as in `FAST = parameter("fast", 20)`.

    Raises:
        MisuseError: what was given is of another type than the default.
    """
    known = _PARAMETERS.get(None)
    if known is None:
        return default
    known.asked.add(name)
    value = known.given.get(name, default)
    if type(default) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        kind = type(default).__name__
        raise MisuseError(f"user.parameters.{name}: {value!r} is no {kind}, as {default!r} is")
    return value


class UserFile(BaseModel):
    """A file of features with its text, so that a manifest holds what was run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    source: str


class CustomSettings(BaseModel):
    """The user's own features, given as paths and kept as sources, and what their files ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[UserFile, ...] = ()
    parameters: tuple[tuple[str, Parameter], ...] = ()

    @field_validator("parameters", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A mapping as pairs in the order of names."""
        return tuple(sorted(value.items())) if isinstance(value, dict) else value


def load(settings: CustomSettings) -> tuple[Feature, ...]:
    """The features that the files declare, in their order; their columns join `features`.

    Raises:
        MisuseError: a file cannot be run, declares none, or names a taken or unknown column.
    """
    found = _declared(settings)
    try:
        extend("features", [one.column for one in found])
    except ValueError as error:
        raise MisuseError(str(error)) from error
    return found


@lru_cache(maxsize=16)
def _declared(settings: CustomSettings) -> tuple[Feature, ...]:
    """Run the files and try what they declare; once, for every partition has a chain."""
    parameters = _Parameters(dict(settings.parameters))
    before = _PARAMETERS.set(parameters)
    try:
        found = _run(settings.features)
    finally:
        _PARAMETERS.reset(before)
    for name in parameters.given:
        if name not in parameters.asked:
            raise MisuseError(f"user.parameters.{name}: no file of user.features asks for it")
    for one in found:
        unknown = [name for name in one.inputs if name not in _BUILTIN]
        if unknown:
            raise MisuseError(f"feature {one.column.name}: no bar or feature column {unknown[0]}")
        _try(one)
    return tuple(found)


def _run(files: Sequence[UserFile]) -> list[Feature]:
    """What the files declare, in their order."""
    found: list[Feature] = []
    for file in files:
        namespace: dict[str, Any] = {"__name__": USER_MODULE}
        try:
            exec(compile(file.source, file.path, "exec"), namespace)  # noqa: S102 -- the user's own code, named by the user
        except MisuseError as error:
            raise MisuseError(f"{file.path}: {error}") from error
        except Exception as error:
            raise MisuseError(f"{file.path}: {type(error).__name__}: {error}") from error
        own = [getattr(value, _TARGET) for value in namespace.values() if hasattr(value, _TARGET)]
        if not own:
            raise MisuseError(f"{file.path}: declares no feature with @feature")
        found += own
    return found


def _value(one: Feature, window: Array) -> float:
    """One call; what went wrong in it is null, for a user's slip must not stop the stream."""
    try:
        value = float(one.function(*(np.array(column) for column in window.T)))
    except Exception:  # noqa: BLE001 -- whatever the user's code raises
        return np.nan
    return value if np.isfinite(value) else np.nan


def _try(one: Feature) -> None:
    """Call it once with plain numbers.

    Raises:
        MisuseError: it fails, or returns no number.
    """
    try:
        float(one.function(*(np.arange(1.0, one.periods + 1.0) for _ in one.inputs)))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise MisuseError(
            f"feature {one.column.name}: {type(error).__name__}: {reason[0] if reason else ''}"
        ) from error


class Custom(PerSymbol):
    """Fills the user's columns of `features`; without any it passes the block on."""

    name: ClassVar[str] = "custom"

    def __init__(self, settings: CustomSettings) -> None:
        self._features = load(settings)
        self._arrays: dict[str, Array] = {"life": np.empty(0, np.int64), "scale": np.empty(0)}
        for one in self._features:
            shape = (0, one.periods, len(one.inputs))
            self._arrays[f"{one.column.name} ring"] = np.empty(shape)
            self._arrays[f"{one.column.name} count"] = np.empty(0, np.int64)

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
        fresh = self._fresh(symbols, bars["life"].tolist(), bars["scale"].tolist())
        for one in self._features:
            values = np.column_stack([inputs[name] for name in one.inputs])
            columns[one.column.name] = self._values(one, symbols, fresh, values)
        return block.plus(Rows(rows.stage, columns, rows.symbols))

    def _fresh(self, symbols: list[int], lives: list[int], scales: list[float]) -> list[bool]:
        """Bars of another instrument or other units than the one before: windows start empty."""
        life, scale = self._arrays["life"], self._arrays["scale"]
        found = []
        for symbol, now, units in zip(symbols, lives, scales, strict=True):
            found.append(bool(life[symbol] != now or scale[symbol] != units))
            life[symbol] = now
            scale[symbol] = units
        return found

    def _values(self, one: Feature, symbols: list[int], fresh: list[bool], values: Array) -> Array:
        ring = self._arrays[f"{one.column.name} ring"]
        count = self._arrays[f"{one.column.name} count"]
        out = np.full(len(symbols), np.nan)
        for i, symbol in enumerate(symbols):
            n = 0 if fresh[i] else count[symbol]
            ring[symbol, n % one.periods] = values[i]
            count[symbol] = n + 1
            if n + 1 < one.periods:
                continue
            window = np.roll(ring[symbol], -((n + 1) % one.periods), axis=0)
            if np.isnan(window).any():
                continue
            out[i] = _value(one, window)
        return out
