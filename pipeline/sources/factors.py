"""Corporate actions from a factor file, as factors on the first tick that they concern."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import MisuseError
from schemas.blocks import Array
from schemas.times import DAY

_REQUIRED: Final = ("symbol", "date", "price_factor", "split_factor")
_EPOCH: Final = date(1970, 1, 1)


class Factors:
    """Knows, for each symbol, the days up to which its factors hold.

    The row with the smallest date at or after a tick's day applies: raw price x price_factor x
    split_factor is the adjusted price. A tick whose factors differ from those of the tick before it
    carries the ratio, so that what was learnt before can be rescaled.
    """

    def __init__(self, table: Mapping[str, Sequence[tuple[int, float, float]]]) -> None:
        self._days = {s: np.array([row[0] for row in rows]) for s, rows in table.items()}
        self._values = {s: np.array([row[1:] for row in rows]) for s, rows in table.items()}
        self._last: dict[str, int] = {}

    def of(self, symbols: Sequence[str], codes: Array, ts: Array) -> tuple[Array, Array]:
        """Factors of prices and of sizes for ticks in order, shape (n,); NaN where none changes."""
        price = np.full(len(ts), np.nan)
        size = np.full(len(ts), np.nan)
        days = ts // DAY
        for code in np.unique(codes).tolist():
            name = symbols[code]
            if name not in self._days:
                continue
            at = np.flatnonzero(codes == code)
            row = np.searchsorted(self._days[name], days[at])
            row = np.minimum(row, len(self._days[name]) - 1)
            before = np.concatenate([[self._last.get(name, row[0])], row[:-1]])
            self._last[name] = int(row[-1])
            changed = np.flatnonzero(before != row)
            old, new = (self._values[name][which[changed]] for which in (before, row))
            price[at[changed]] = old.prod(axis=1) / new.prod(axis=1)
            size[at[changed]] = new[:, 1] / old[:, 1]
        return price, size

    def one(self, document: Mapping[str, Any], ts: int) -> dict[str, float]:
        """The fields that a single tick carries beside its own."""
        name = str(document.get("symbol", ""))
        found = self.of([name], np.zeros(1, np.int32), np.array([ts], np.int64))
        names = ("factor", "volume_factor")
        return {n: float(v[0]) for n, v in zip(names, found, strict=True) if not np.isnan(v[0])}


def read_factors(path: Path) -> Factors:
    """Read a CSV with symbol, date (YYYYMMDD), price_factor, split_factor.

    Raises:
        MisuseError: it is missing, lacks a column, or a row cannot be read.
    """
    table: dict[str, list[tuple[int, float, float]]] = {}
    try:
        with _opened(path) as file:
            reader = csv.DictReader(file)
            missing = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
            if missing:
                raise MisuseError(f"{path}: column {missing[0]} is missing")
            for row in reader:
                day = datetime.strptime(row["date"], "%Y%m%d").replace(tzinfo=UTC).date()
                factors = float(row["price_factor"]), float(row["split_factor"])
                if not all(0 < factor < float("inf") for factor in factors):
                    raise MisuseError(f"{path}: line {reader.line_num}: a factor must be positive")
                table.setdefault(row["symbol"], []).append(((day - _EPOCH).days, *factors))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise MisuseError(f"{path}: not a readable factor file: {error}") from error
    return Factors({symbol: sorted(rows) for symbol, rows in table.items()})


def _opened(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
