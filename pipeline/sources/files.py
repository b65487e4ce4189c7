"""Tick files, CSV (also gzipped), Parquet or Arrow, read in pieces."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.errors import MisuseError
from pipeline.sources.factors import Factors
from pipeline.sources.localtime import LocalTimes
from schemas.arrivals import FACTORS, FLOATS, Arrivals, arrivals, from_table
from schemas.blocks import Array
from schemas.ticks import REASONS, Reason
from schemas.times import parse_time

REQUIRED: Final = ("symbol", "ts", "price")
_RENAMED: Final = {"trade_id": "id"}
_USED: Final = (*REQUIRED, *FLOATS, *FACTORS, "side", "id", "recv_ts", "was")
_PIECE: Final = 4 * 1024 * 1024
_MALFORMED: Final = REASONS.index(Reason.MALFORMED)
_BAD: Final = "malformed"  # a column of ours: which rows hold something unreadable


def read_tables(path: Path) -> Iterator[Any]:
    """The file in Arrow tables of some thousand rows, in order, columns as they are.

    A CSV comes as text; `trade_id` is read as `id`. An empty file gives none.

    Raises:
        MisuseError: there is no such file, it cannot be read, or a required column is missing.
    """
    if not path.is_file():
        raise MisuseError(f"{path}: no such file")
    try:
        for table in _open(path):
            yield _checked(path, table)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MisuseError(f"{path}: not a readable tick file: {_line(error)}") from error


def _line(error: Exception) -> str:
    """An error that may quote the file, as one line that a terminal can bear."""
    text = " ".join(str(error).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in text)


def _open(path: Path) -> Iterator[Any]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-1] if suffixes else ""
    if kind in {".parquet", ".pq"}:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(65_536):
                yield pa.Table.from_batches([batch])
    elif kind in {".arrow", ".feather", ".ipc", ".arrows"}:
        yield from _open_arrow(path)
    elif kind == ".csv" or suffixes[-2:] == [".csv", ".gz"]:
        yield from _open_csv(path)
    else:
        raise MisuseError(f"{path}: a tick file ends in .csv, .csv.gz, .parquet or .arrow")


def _open_arrow(path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
            batches: Iterable[Any] = (file.get_batch(i) for i in range(file.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            batches = pa.ipc.open_stream(source)
        for batch in batches:
            yield pa.Table.from_batches([batch])


def _open_csv(path: Path) -> Iterator[Any]:
    with path.open("rb") as probe:
        if not probe.read(1):
            return
    with pa.input_stream(str(path)) as source:
        header = _header(source)
    if not header:
        return
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.utf8()), strings_can_be_null=True, null_values=[""]
    )
    with pa.csv.open_csv(
        path, read_options=pa.csv.ReadOptions(block_size=_PIECE), convert_options=options
    ) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _header(source: Any) -> list[str]:
    """The names of the first line, so that each column can be asked for as text."""
    line = source.read(65_536).split(b"\n", 1)[0].decode(errors="replace")
    return [name.strip().strip('"') for name in line.split(",")] if line.strip() else []


def _checked(path: Path, table: Any) -> Any:
    names = [_RENAMED.get(name, name) for name in table.column_names]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise MisuseError(f"{path}: column {missing[0]} is missing; it has {', '.join(names[:12])}")
    table = table.rename_columns(names)
    return table.select([name for name in names if name in _USED])


def _numbers(column: Any, kind: Any) -> tuple[Any, Array]:
    """A text column as numbers, and which rows are none; those become null."""
    try:
        return column.cast(kind), np.zeros(len(column), np.bool_)
    except pa.ArrowInvalid:
        read = int if pa.types.is_integer(kind) else float
        values: list[float | None] = []
        bad = np.zeros(len(column), np.bool_)
        for place, text in enumerate(column.to_pylist()):
            try:
                values.append(None if text is None else read(text))
            except ValueError:
                values.append(None)
                bad[place] = True
        return pa.chunked_array([pa.array(values, kind)]), bad


def _times(column: Any) -> Any:
    """A text column of times as integers where all are, else left as text."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def typed(table: Any) -> tuple[Any, Array]:
    """A table of texts with its columns in their types, and which rows are partly unreadable."""
    bad = np.zeros(table.num_rows, np.bool_)
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        if name in FLOATS or name in FACTORS:
            column, wrong = _numbers(column, pa.float64())
            bad |= wrong
        elif name in {"ts", "recv_ts", "id"}:
            column = _times(column)
        table = table.set_column(place, name, column)
    return table, bad


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read beyond its columns: corporate actions, and local times without a zone."""

    factors: Factors | None = None
    local: LocalTimes | None = None


AS_IT_IS: Final = Reading()


def read_arrivals(path: Path, block: int, reading: Reading = AS_IT_IS) -> Iterator[Arrivals]:
    """The ticks of a file in blocks: partition 0, the row number is the offset.

    Raises:
        MisuseError: the file cannot be read.
    """
    index: dict[str, int] = {}
    row = 0
    for table in read_tables(path):
        try:
            columns, bad = typed(_localised(table, reading.local))
            parts = from_table(columns, index)
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise MisuseError(f"{path}: {_line(error)}") from error
        n = len(parts["ts"])
        if reading.factors is not None:
            found = reading.factors.of(list(index), parts["symbol"], parts["ts"])
            parts["factor"], parts["volume_factor"] = found
        parts["offset"] = np.arange(row, row + n, dtype=np.int64)
        parts["index"] = np.zeros(n, np.int32)
        came = arrivals(0, parts, list(index))
        came["fault"][bad] = _MALFORMED
        for start in range(0, n, block):
            yield came.slice(start, min(start + block, n))
        row += n


def _localised(table: Any, local: LocalTimes | None) -> Any:
    if local is None:
        return table
    place = table.column_names.index("ts")
    column = table.column(place)
    if not pa.types.is_string(column.type):
        return table
    integers = _times(column)
    if pa.types.is_integer(integers.type):
        return table
    times = [local.to_ns(text) for text in column.to_pylist()]
    return table.set_column(place, "ts", pa.array(times, pa.int64()))


def read_documents(path: Path, reading: Reading = AS_IT_IS) -> Iterator[dict[str, Any]]:
    """The ticks of a file as JSON documents for `prices`, fields that are missing left out.

    What cannot be read as a number is sent as it stands: the guard will name it.
    """
    for table in read_tables(path):
        columns, bad = typed(_localised(table, reading.local))
        texts = table.to_pylist() if bad.any() else []
        for place, row in enumerate(columns.to_pylist()):
            source = texts[place] if bad[place] else row
            document = {n: _plain(value) for n, value in source.items() if value is not None}
            if reading.factors is not None:
                document |= reading.factors.one(document, parse_time(document.get("ts")))
            yield document


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
