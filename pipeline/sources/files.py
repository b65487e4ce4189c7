"""Tick files, CSV (also gzipped), Parquet or Arrow, read in pieces."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd  # noqa: F401 -- pyarrow would load it amid its work, where a Ctrl-C is lost
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from pipeline.errors import MisuseError
from pipeline.sources.factors import Factors
from pipeline.sources.localtime import LocalTimes
from schemas.arrivals import FACTORS, FLOATS, Arrivals, arrivals, from_table, id_key
from schemas.blocks import Array
from schemas.ticks import REASONS, Reason
from schemas.times import NO_TIME, parse_time

REQUIRED: Final = ("symbol", "ts", "price")
_RENAMED: Final = {"trade_id": "id"}
_USED: Final = (*REQUIRED, *FLOATS, *FACTORS, "side", "id", "recv_ts", "was")
_BOM: Final = b"\xef\xbb\xbf"
# What a text must be to be a number: one row is never judged by its neighbours.
_NUMBER: Final = (
    r"(?i)^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?|nan(\([0-9a-z_]*\))?)$"
)
_INTEGER: Final = r"^-?[0-9]{1,19}$"
_WHOLE: Final = re.compile(_INTEGER, re.ASCII)
_WHOLES: Final = ("ts", "recv_ts", "id")  # integers, or texts that say the same
_NS: Final = pa.timestamp("ns", "UTC")
_ROWS: Final = 65_536
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
        # A symbol as its code: the file has it so, and nobody needs the texts.
        with pa.parquet.ParquetFile(path, read_dictionary=["symbol"]) as file:
            names = _wanted(file.schema_arrow.names)
            for group in range(file.num_row_groups):
                # Asked for all groups at once, the reader would hold the bytes of those before.
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=names):
                    yield pa.Table.from_batches([batch])
    elif kind in {".arrow", ".feather", ".ipc", ".arrows"}:
        yield from _open_arrow(path)
    elif kind == ".csv" or suffixes[-2:] == [".csv", ".gz"]:
        yield from _open_csv(path)
    else:
        raise MisuseError(f"{path}: a tick file ends in .csv, .csv.gz, .parquet or .arrow")


def _wanted(names: list[str]) -> list[str]:
    """The columns to decode: those that are used; all of them where a required one is missing."""
    found = [name for name in names if _RENAMED.get(name, name) in _USED]
    return found if set(REQUIRED) <= set(found) else names


def _open_arrow(path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
            batches: Iterable[Any] = (file.get_batch(i) for i in range(file.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            batches = pa.ipc.open_stream(source)
        for batch in batches:
            # A batch may be the whole file.
            for start in range(0, max(1, batch.num_rows), _ROWS):
                yield pa.Table.from_batches([batch.slice(start, _ROWS)])


def _open_csv(path: Path) -> Iterator[Any]:
    with path.open("rb") as probe:
        if not probe.read(1):
            return
    with pa.input_stream(str(path)) as source:
        first, _, rest = source.read(65_536).removeprefix(_BOM).partition(b"\n")
    header = _header(first)
    if not header:
        return
    if not rest.strip():
        yield pa.table({name: pa.array([], pa.utf8()) for name in header})
        return
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.utf8()), strings_can_be_null=True, null_values=[""]
    )
    with pa.csv.open_csv(
        path, read_options=pa.csv.ReadOptions(block_size=_PIECE), convert_options=options
    ) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _header(first: bytes) -> list[str]:
    """The names of the first line, so that each column can be asked for as text."""
    line = first.decode(errors="replace")
    return [name.strip().strip('"') for name in line.split(",")] if line.strip() else []


def _checked(path: Path, table: Any) -> Any:
    names = [_RENAMED.get(name, name) for name in table.column_names]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise MisuseError(f"{path}: column {missing[0]} is missing; it has {', '.join(names[:12])}")
    table = table.rename_columns(names)
    return table.select([name for name in names if name in _USED])


def _numbers(column: Any) -> tuple[Any, Array]:
    """A text column as numbers, and which rows are none; those become null."""
    try:
        return column.cast(pa.float64()), np.zeros(len(column), np.bool_)
    except pa.ArrowInvalid:
        clean = pc.match_substring_regex(column, _NUMBER)
        wrong = pc.fill_null(pc.invert(clean), fill_value=False)
        return pc.if_else(clean, column, None).cast(pa.float64()), np.asarray(wrong)


def _integers(column: Any) -> Any:
    """A text column as integers where all of it is, else as it stands."""
    if not pc.all(pc.match_substring_regex(column, _INTEGER), min_count=0).as_py():
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bits
        return column


def _whole(text: str) -> int | str:
    """The integer that a text is, else the text: a column may hold both."""
    if _WHOLE.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return text


def _is_text(column: Any) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def typed(table: Any) -> tuple[Any, Array]:
    """A table of texts with its columns in their types, and which rows are partly unreadable."""
    bad = np.zeros(table.num_rows, np.bool_)
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        if not _is_text(column):
            continue
        if name in FLOATS or name in FACTORS:
            column, wrong = _numbers(column)
            bad |= wrong
        elif name in _WHOLES:
            column = _integers(column)
        table = table.set_column(place, name, column)
    return table, bad


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read beyond its columns: corporate actions, and local times without a zone."""

    factors: Factors | None = None
    local: LocalTimes | None = None


AS_IT_IS: Final = Reading()


def _keyed(table: Any) -> Any:
    """A typed table whose remaining texts of times and ids are read row by row."""
    for place, name in enumerate(table.column_names):
        if name not in _WHOLES or not _is_text(table.column(name)):
            continue
        read, kind = (id_key, pa.int64()) if name == "id" else (parse_time, _NS)
        values = [None if t is None else read(_whole(t)) for t in table.column(name).to_pylist()]
        table = table.set_column(place, name, pa.array(values, kind))
    return table


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
            parts = from_table(_keyed(columns), index)
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
    integers = _integers(column)
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
            document = {n: _plain(n, value) for n, value in source.items() if value is not None}
            if reading.factors is not None:
                document |= reading.factors.one(document, parse_time(document.get("ts")))
            yield document


def _plain(name: str, value: Any) -> Any:
    if hasattr(value, "isoformat"):
        value = value.isoformat()
    if name not in _WHOLES or not isinstance(value, str):
        return value
    whole = _whole(value)
    if name == "recv_ts" and (ns := parse_time(whole)) != NO_TIME:
        return ns  # on the wire it is an integer
    return whole
