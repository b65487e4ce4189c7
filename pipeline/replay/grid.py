"""The parameters of many runs: every combination of the values that are told, or some by chance."""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import MisuseError

MOST: Final = 100_000  # runs of one sweep
_RANGE: Final = re.compile(r"\s*(-?[0-9.]+(?:e-?[0-9]+)?)\.\.(-?[0-9.]+(?:e-?[0-9]+)?)\s*")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high, whole ones if both are; only to be drawn from."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One of them, all equally likely."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(rng.integers(self.low, self.high, endpoint=True))
        return float(rng.uniform(self.low, self.high))


Values = Sequence[Any] | Range
Grid = Mapping[str, Values]
Parameters = Mapping[str, Any]


def vary_option(texts: Iterable[str]) -> dict[str, Values]:
    """`--vary KEY=A,B,C`, `KEY=[JSON, ...]` or `KEY=LOW..HIGH`, as a grid.

    Raises:
        MisuseError: one is none of these, or names a key again.
    """
    found: dict[str, Values] = {}
    for text in texts:
        key, equals, told = text.partition("=")
        if not equals or not key.strip() or not told.strip():
            raise MisuseError(
                f"--vary takes KEY=VALUE,VALUE, as in signals.cost_bp=0.1,0.2; got {text!r}"
            )
        if key.strip() in found:
            raise MisuseError(f"--vary names {key.strip()} twice")
        found[key.strip()] = _values(key, told)
    return found


def _values(key: str, told: str) -> Values:
    if told.lstrip().startswith("["):
        try:
            values = json.loads(told)
        except ValueError as error:
            raise MisuseError(f"--vary {key}: not a JSON list: {error}") from error
        return _listed(f"--vary {key}", values)
    if (between := _RANGE.fullmatch(told)) is not None:
        return _range(f"--vary {key}", _value(between[1]), _value(between[2]))
    return _listed(f"--vary {key}", [_value(one.strip()) for one in told.split(",")])


def _value(text: str) -> Any:
    """As `--set` reads it: JSON, or else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _range(where: str, low: Any, high: Any) -> Range:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (low, high))
    if not numbers or not low < high:
        raise MisuseError(f"{where}: a range is LOW..HIGH, two numbers, the lower one first")
    return Range(low, high)


def _listed(where: str, values: Any) -> Sequence[Any]:
    seen: list[str] = [json.dumps(one, sort_keys=True) for one in values]
    if not values:
        raise MisuseError(f"{where}: no value")
    for place, one in enumerate(seen):
        if one in seen[:place]:
            raise MisuseError(f"{where}: {one} comes twice")
    return tuple(values)


def read_grid(path: Path) -> dict[str, Values]:
    """A grid from a TOML or JSON file: keys of settings, nested or with dots, lists of values.

    `{low = 1, high = 5}` is a range. A list of lists varies a setting that is a list itself.

    Raises:
        MisuseError: the file cannot be read, or says something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        told = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise MisuseError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # both kinds, and bytes that are no text
        raise MisuseError(f"{path}: not readable as TOML or JSON: {error}") from error
    if not isinstance(told, dict):
        raise MisuseError(f"{path}: a grid is a table of settings, each with a list of values")
    found: dict[str, Values] = {}
    for key, values in _leaves(path, told, ""):
        if key in found:
            raise MisuseError(f"{path}: {key} comes twice")
        found[key] = values
    return found


def _leaves(path: Path, told: Mapping[str, Any], above: str) -> Iterator[tuple[str, Values]]:
    for name, value in told.items():
        key = f"{above}{name}"
        if isinstance(value, list):
            yield key, _listed(f"{path}: {key}", value)
        elif isinstance(value, dict) and value.keys() == {"low", "high"}:
            yield key, _range(f"{path}: {key}", value["low"], value["high"])
        elif isinstance(value, dict):
            yield from _leaves(path, value, f"{key}.")
        else:
            raise MisuseError(f"{path}: {key} is no list of values")


def combinations(grid: Grid, sample: int | None = None, seed: int = 0) -> list[Parameters]:
    """Every combination, the last key varying fastest; or so many different ones by chance.

    The same grid, sample and seed give the same runs in the same order.

    Raises:
        MisuseError: nothing is varied, there are too many, or a range is not drawn from.
    """
    if not grid:
        raise MisuseError("nothing is varied: give --vary KEY=VALUE,VALUE or --grid FILE")
    ranges = [key for key, values in grid.items() if isinstance(values, Range)]
    if sample is None:
        if ranges:
            raise MisuseError(f"{ranges[0]} is a range: say with --sample how many runs to draw")
        lists = [values for values in grid.values() if not isinstance(values, Range)]
        if prod(map(len, lists)) > MOST:
            raise MisuseError(f"that makes more than {MOST:,} runs: draw some with --sample")
        return [dict(zip(grid, chosen, strict=True)) for chosen in product(*lists)]
    rng = np.random.default_rng(seed)
    if not ranges:
        return _drawn_places(grid, sample, rng)
    return [{key: _one(values, rng) for key, values in grid.items()} for _ in range(sample)]


def _one(values: Values, rng: np.random.Generator) -> Any:
    return values.draw(rng) if isinstance(values, Range) else values[int(rng.integers(len(values)))]


def _drawn_places(grid: Grid, sample: int, rng: np.random.Generator) -> list[Parameters]:
    """Different combinations, in the order of the whole grid."""
    lists = [values for values in grid.values() if not isinstance(values, Range)]
    total = prod(map(len, lists))
    if sample >= total:
        return combinations(grid)
    places: set[int] = set()
    while len(places) < sample:
        places.add(int(rng.integers(total)))
    found: list[Parameters] = []
    for place in sorted(places):
        rest, chosen = place, []
        for values in reversed(lists):
            rest, at = divmod(rest, len(values))
            chosen.append(values[at])
        found.append(dict(zip(grid, reversed(chosen), strict=True)))
    return found
