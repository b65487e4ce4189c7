"""The ticks of an input, read once and shared by many runs as memory-mapped Arrow files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.disk import digest, unwritable
from pipeline.errors import TickstreamError
from pipeline.replay.books import year_of
from schemas.arrivals import Arrivals
from schemas.blocks import Array
from schemas.times import DAY

BLOCK: Final = 65_536  # ticks of a batch
_YEAR_DAYS: Final = 365.25
_CODED: Final = ("symbol", "was")


@dataclass(frozen=True, slots=True)
class SharedTicks:
    """Where the ticks lie and what they are.

    Attributes:
        folder: holds PARTITION.arrow, the columns of Arrivals in batches.
        symbols: by partition, what the codes of its ticks mean.
        sha256: by partition, of its file; equal ticks in equal blocks have equal ones.
        first: event time (ns) of the earliest tick that could be read.
        last: of the latest one.
        closes: whether the end of the ticks closes what is open, as that of a file does.
        periods_per_year: of the clock of the returns, told from the times of the ticks.
        data: the files themselves where the folder cannot be seen.
    """

    folder: Path
    symbols: Mapping[int, Sequence[str]]
    sha256: Mapping[int, str]
    rows: int
    first: int
    last: int
    closes: bool
    periods_per_year: float
    data: Mapping[int, bytes] = field(default_factory=dict)

    def blocks(self, partition: int) -> Iterator[Arrivals]:
        """The ticks of a partition, in order.

        Raises:
            TickstreamError: they are not there.
        """
        symbols = self.symbols[partition]
        try:
            with self._open(partition) as source:
                file = pa.ipc.open_file(source)
                for place in range(file.num_record_batches):
                    batch = file.get_batch(place)
                    columns = {
                        # Kernels are compiled for arrays that can be written.
                        name: np.require(column.to_numpy(), requirements=("C", "W"))
                        for name, column in zip(file.schema.names, batch.columns, strict=True)
                    }
                    yield Arrivals(partition, columns, symbols)
        except (OSError, pa.ArrowException) as error:
            why = "are not to be seen here" if isinstance(error, FileNotFoundError) else str(error)
            raise TickstreamError(f"{self.folder}: the ticks of the runs {why}") from error

    def _open(self, partition: int) -> Any:
        if partition in self.data:
            return pa.BufferReader(self.data[partition])
        return pa.memory_map(str(path_of(self.folder, partition)))


def path_of(folder: Path, partition: int) -> Path:
    """The file of a partition's ticks."""
    return folder / f"{partition}.arrow"


class TicksWriter:
    """Writes ticks to be shared, block by block; a context manager that closes its files."""

    def __init__(self, folder: Path, period: int) -> None:
        self._folder = folder
        self._period = period
        self._files: dict[int, Any] = {}
        self._codes: dict[int, dict[str, int]] = {}
        self._waiting: dict[int, list[dict[str, Array]]] = {}
        self._counts: dict[int, int] = {}
        self._periods = np.empty(0, np.int64)
        self._rows = 0
        self._first, self._last = 2**63 - 1, -(2**63)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def write(self, came: Arrivals) -> None:
        """Append ticks to their partition.

        Raises:
            TickstreamError: the disk does not take them.
        """
        if not len(came):
            return
        codes = self._codes.setdefault(came.partition, {})
        table = np.array([codes.setdefault(name, len(codes)) for name in came.symbols], np.int32)
        columns = dict(came.columns)
        for name in _CODED:
            columns[name] = np.where(came[name] >= 0, table[came[name]], np.int32(-1))
        self._waiting.setdefault(came.partition, []).append(columns)
        self._counts[came.partition] = self._counts.get(came.partition, 0) + len(came)
        self._see(came)
        if self._counts[came.partition] >= BLOCK:
            self._flush(came.partition, BLOCK)

    def _flush(self, partition: int, block: int) -> None:
        """Write whole blocks of what waits: however it came, the file is the same."""
        parts = self._waiting[partition]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        n = self._counts[partition]
        whole = n - n % block
        try:
            for low in range(0, whole, BLOCK):
                high = min(low + BLOCK, whole)
                batch = pa.RecordBatch.from_pydict({k: v[low:high] for k, v in columns.items()})
                if partition not in self._files:
                    path = str(path_of(self._folder, partition))
                    self._files[partition] = pa.ipc.new_file(path, batch.schema)
                self._files[partition].write_batch(batch)
        except OSError as error:
            raise unwritable(self._folder, error) from error
        self._waiting[partition] = [{name: v[whole:] for name, v in columns.items()}]
        self._counts[partition] = n - whole

    def _see(self, came: Arrivals) -> None:
        self._rows += len(came)
        times = came["ts"][came["fault"] < 0]
        if len(times):
            self._first = min(self._first, int(times.min()))
            self._last = max(self._last, int(times.max()))
            self._periods = np.union1d(self._periods, -(-times // self._period))

    @property
    def periods(self) -> Array:
        """Ends (ns) of the periods of the returns in which a tick came, int64, ascending."""
        found: Array = self._periods * self._period
        return found

    def finish(self, *, closes: bool) -> SharedTicks:
        """Close the files; what they hold.

        Raises:
            TickstreamError: the disk does not take them.
        """
        for partition, count in sorted(self._counts.items()):
            if count:
                self._flush(partition, 1)
        try:
            for file in self._files.values():
                file.close()
            sums = {n: digest(path_of(self._folder, n)) for n in sorted(self._files)}
        except OSError as error:
            raise unwritable(self._folder, error) from error
        return SharedTicks(
            folder=self._folder.resolve(),
            symbols={n: list(self._codes[n]) for n in sums},
            sha256=sums,
            rows=self._rows,
            first=self._first if len(self._periods) else 0,
            last=self._last if len(self._periods) else 0,
            closes=closes,
            periods_per_year=periods_per_year(self._periods, self._period),
        )


def periods_per_year(periods: Array, period: int) -> float:
    """How many periods of so many ns a year has, told from the numbers of those with a tick.

    Days: 365 of a market without weekends, else 252. Shorter ones: so many days, each with as many
    periods as the median day of the input has; so nights without trading count for nothing.
    """
    if period > DAY:
        return _YEAR_DAYS * DAY / period
    days = -(-periods * period // DAY)
    seen, counts = np.unique(days, return_counts=True)
    year = year_of(pd.DataFrame({"ts": seen * DAY}))
    return float(year * np.median(counts)) if len(counts) else float(year)
