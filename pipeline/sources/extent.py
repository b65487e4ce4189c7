"""About how long a tick file is, told from its beginning: for the time left, not for the ticks."""

import gzip
import zlib
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet

_LOOK: Final = 1024 * 1024  # bytes of text


def estimated_rows(path: Path) -> int | None:
    """About how many rows a file has; None where its beginning does not tell.

    A file that cannot be read is nobody's fault here: the reading itself says what is wrong.
    """
    kind = path.suffix.lower()
    try:
        if kind in {".parquet", ".pq"}:
            return int(pa.parquet.read_metadata(path).num_rows)
        if kind in {".csv", ".gz"}:
            return _lines(path)
        return _arrow_rows(path)
    except (pa.ArrowException, OSError, EOFError, zlib.error, StopIteration):
        return None


def _lines(path: Path) -> int | None:
    """Lines of the first megabyte of text, for each of the bytes that were read for it."""
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as unpacked:
                text = unpacked.read(_LOOK)
        else:
            text = raw.read(_LOOK)
        read = raw.tell()
    return round(max(text.count(b"\n") - 1, 0) * path.stat().st_size / read) if read else None


def _arrow_rows(path: Path) -> int | None:
    """Rows of the first batch, for each batch or for the bytes that it took."""
    with pa.memory_map(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            first = pa.ipc.open_stream(source).read_next_batch()
            return round(int(first.num_rows) * path.stat().st_size / int(source.tell()))
        batches = int(file.num_record_batches)
        return int(file.get_batch(0).num_rows) * batches if batches else 0
