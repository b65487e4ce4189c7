"""Rows of a replay with their labels, as a model of the next moves is trained on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from pipeline.errors import MisuseError
from pipeline.models.purging import purged
from pipeline.models.replayed import read_columns, read_manifest
from pipeline.stages.chain import ChainSettings
from pipeline.stages.custom import load
from schemas.blocks import COLUMNS, IDENTITY, VOL_REGIMES, Array

_BARS: Final = (*(c.name for c in IDENTITY), "symbol", "ts", "life", "scale", "stale", "close")
_WANDERING: Final = frozenset({"tod_sin", "tod_cos"})


@dataclass(frozen=True)
class Samples:
    """Bars of a replay in its order, shape (n,); a book is a symbol of a partition in one life.

    A bar is `known` when it may be predicted (it is not stale) and its close is another one
    `horizon` bars later, as `rose` tells.
    """

    names: tuple[str, ...]  # of the columns of x
    horizon: int
    x: Array  # float64 (n, features)
    ts: Array  # ns
    symbol: Array  # codes into `symbols`
    book: Array  # codes
    known: Array  # bool
    rose: Array  # bool
    vol_regime: Array  # codes, -1 for null
    symbols: tuple[str, ...]
    chain: ChainSettings  # of the replay
    facts: Mapping[str, Any]  # what it comes from: inputs with offsets, hashes

    @property
    def feature_set(self) -> str:
        """A hash of what the features are."""
        return self.chain.feature_set(self.names)

    @cached_property
    def books(self) -> list[Array]:
        """Positions of the bars of each book, in order."""
        order = np.argsort(self.book, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.book[order])) + 1)

    def only(self, symbols: Sequence[str]) -> "Samples":
        """The same with the bars of these symbols known alone; of none: all."""
        if not symbols:
            return self
        codes = [code for code, name in enumerate(self.symbols) if name in symbols]
        return replace(self, known=self.known & np.isin(self.symbol, codes))

    def teaching(self, start: int, end: int | None, embargo: int = 0) -> Array:
        """Which known bars may teach when those with start <= ts < end (ns) are the test: (n,)."""
        found = np.zeros(len(self.ts), bool)
        for at in self.books:
            found[at] = purged(self.ts[at], start, end, self.horizon, embargo)
        return found & self.known

    def between(self, start: int, end: int | None) -> Array:
        """Which known bars have start <= ts < end (ns): (n,)."""
        before_end = self.ts < end if end is not None else True
        return np.asarray(self.known & (self.ts >= start) & before_end)


def default_inputs() -> tuple[str, ...]:
    """All features but prices, which say where and not how, and the time of the day."""
    return tuple(
        column.name
        for column in COLUMNS["features"]
        if column.kind == "float64" and column.unit != "price" and column.name not in _WANDERING
    )


def read_samples(directory: Path, names: Sequence[str] = (), horizon: int | None = None) -> Samples:
    """What a replay wrote, with labels; by default the replay's horizon and `default_inputs`.

    Raises:
        MisuseError: it is no output of a replay, was changed since, comes of another version of
            tickstream, or lacks a column.
    """
    manifest = read_manifest(directory)
    try:
        chain = ChainSettings.model_validate(manifest["settings"])
    except ValidationError as error:
        raise MisuseError(
            f"{directory}: was replayed by another version of tickstream: replay again"
        ) from error
    load(chain.user)  # its columns are features from now on
    chosen = tuple(names) or default_inputs()
    if len(set(chosen)) < len(chosen):
        raise MisuseError("a feature is named twice")
    chain.feature_set(chosen)  # all are known
    of_bars = {column.name for column in COLUMNS["bars"]}
    more = [name for name in chosen if name in of_bars and name not in _BARS]
    bars = read_columns(directory, "bars", (*_BARS, *more), manifest)
    rest = [name for name in chosen if name not in of_bars]
    features = read_columns(directory, "features", (*rest, "offset"), manifest)
    if len(features) != len(bars):
        raise MisuseError(f"{directory}: features and bars have not the same rows: replay again")
    columns = [
        (bars if name in of_bars else features)[name].to_numpy().astype(np.float64)
        for name in chosen
    ]
    told = {name: bars[name].to_numpy() for name in _BARS if name != "symbol"}
    codes = bars["symbol"].combine_chunks().dictionary_encode()
    symbol = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    keys = np.stack([told["partition"], symbol, told["life"]])
    _, book = np.unique(keys, axis=1, return_inverse=True) if len(bars) else (None, symbol)
    ahead = chain.predictions.horizon if horizon is None else horizon
    known, rose = _labels(told["close"] / told["scale"], book, ahead)
    facts = {name: manifest[name] for name in ("tickstream", "inputs", "settings_hash")}
    hashes = {stage: manifest["sha256"][stage] for stage in ("bars", "features")}
    return Samples(
        chosen, ahead, np.stack(columns, axis=1), told["ts"], symbol, book,
        known & (told["stale"] == 0), rose, _vol_regime(directory, manifest, len(bars)),
        tuple(codes.dictionary.to_pylist()), chain,
        {**facts, "bars": chain.bars.clock, "sha256": hashes},
    )  # fmt: skip


def inputs_of(samples: Samples, directory: Path, names: Sequence[str]) -> Array:
    """What a version that looks at other columns is asked of the same rows, (n, columns).

    Raises:
        MisuseError: as `read_samples`.
    """
    if tuple(names) == samples.names:
        return samples.x
    return read_samples(directory, names, samples.horizon).x


def _vol_regime(directory: Path, manifest: Mapping[str, Any], n: int) -> Array:
    """Codes of the volatility regimes of n bars, (n,)."""
    column = read_columns(directory, "regimes", ("vol_regime",), manifest)["vol_regime"]
    if len(column) != n:
        raise MisuseError(f"{directory}: regimes and bars have not the same rows: replay again")
    coded = column.combine_chunks().dictionary_encode()
    codes = [VOL_REGIMES.index(word) for word in coded.dictionary.to_pylist()]
    at = coded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
    return np.asarray(np.array([*codes, -1], np.int32)[at])


def _labels(level: Array, book: Array, horizon: int) -> tuple[Array, Array]:
    """Whether the level of each book has another value so many bars later, and a higher one."""
    later = np.full(len(level), np.nan)
    order = np.argsort(book, kind="stable")
    same = book[order[:-horizon]] == book[order[horizon:]]
    later[order[:-horizon][same]] = level[order[horizon:][same]]
    return ~np.isnan(later) & (later != level), later > level
