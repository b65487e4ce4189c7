"""What a replay has written, as series that models are fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import MisuseError
from pipeline.models.replayed import read_columns, read_manifest
from schemas.blocks import IDENTITY, Array

_PLACE: Final = (*(column.name for column in IDENTITY), "ts")


@dataclass(frozen=True)
class Series:
    """The log returns of one instrument in the order of its bars; bars without one are left out.

    `first` and `last` say where in `prices` the ends of it come from, and when (ns).
    """

    symbol: str
    returns: Array
    first: Mapping[str, int]
    last: Mapping[str, int]


@dataclass(frozen=True)
class Replayed:
    """A replay's series, and what they come from: inputs with offsets, settings, hashes."""

    series: Sequence[Series]
    facts: Mapping[str, Any]


def read_series(directory: Path, symbols: Sequence[str] = ()) -> Replayed:
    """The column `bar_ret_1` of what `replay` wrote, of all symbols or of those named.

    Where several instruments bore a symbol one after another, that of the last.

    Raises:
        MisuseError: it is no output of a replay, it was changed since, or it lacks a symbol.
    """
    manifest = read_manifest(directory)
    bars = read_columns(directory, "bars", ("symbol", "life"), manifest)
    features = read_columns(directory, "features", (*_PLACE, "bar_ret_1"), manifest)
    codes = bars["symbol"].combine_chunks().dictionary_encode()
    known = codes.dictionary.to_pylist()
    for symbol in symbols:
        if symbol not in known:
            raise MisuseError(f"{directory}: has no bars of {symbol}")
    which = codes.indices.to_numpy(zero_copy_only=False)
    life = bars["life"].to_numpy()
    ret = features["bar_ret_1"].to_numpy()
    places = {name: features[name].to_numpy() for name in _PLACE}
    series = []
    for symbol in symbols or sorted(known):
        rows = np.flatnonzero(which == known.index(symbol))
        rows = rows[(life[rows] == life[rows[-1]]) & ~np.isnan(ret[rows])]
        ends = [{n: int(v[at]) for n, v in places.items()} for at in (*rows[:1], *rows[-1:])]
        series.append(Series(symbol, ret[rows], *(ends or ({}, {}))))
    facts = {name: manifest[name] for name in ("tickstream", "inputs", "settings_hash")}
    hashes = {stage: manifest["sha256"][stage] for stage in ("bars", "features")}
    return Replayed(series, {**facts, "bars": manifest["settings"]["bars"], "sha256": hashes})
