"""A stretch of one partition in a Parquet file: raw messages, complete or not there."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet

from pipeline.bus.ranges import Range
from pipeline.errors import TickstreamError
from pipeline.settings import fresh_id
from schemas.arrivals import Message

_SCHEMA: Final = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("received", pa.int64(), nullable=False),
        pa.field("value", pa.binary()),
    ]
)
_TOLD: Final = b"tickstream.messages"
_NAME: Final = re.compile(r"(\d+)-(\d+)\.parquet")
_PARTIAL: Final = re.compile(r"\.(\d+)-[0-9a-f]+\.partial")
_BYTES: Final = 8 * 1024 * 1024  # of a row group
_MESSAGES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Place:
    """Which messages a file holds: low <= offset < high of a partition of a cluster's topic."""

    cluster: str
    topic: str
    partition: int
    low: int
    high: int

    def folder(self, home: Path) -> Path:
        """Where files of this partition lie below the cache's home."""
        return home / _plain(self.cluster) / _plain(self.topic) / str(self.partition)

    def path(self, home: Path) -> Path:
        """The file."""
        return self.folder(home) / f"{self.low}-{self.high}.parquet"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: f"%{ord(found[0]):02x}", name)


def spans(folder: Path) -> list[Range]:
    """The stretches that files of a folder hold by their names, ascending."""
    names = [_NAME.fullmatch(path.name) for path in folder.glob("*.parquet")]
    return sorted((int(name[1]), int(name[2])) for name in names if name)


def sweep(folder: Path) -> None:
    """Remove what processes left half written that are no more."""
    for path in folder.glob(".*.partial"):
        name = _PARTIAL.fullmatch(path.name)
        if name and not Path(f"/proc/{name[1]}").exists() and Path("/proc/self").exists():
            path.unlink(missing_ok=True)


class SegmentWriter:
    """Writes a file that appears under its name when `finish` was called, as a context manager."""

    def __init__(self, home: Path, place: Place) -> None:
        self._path = place.path(home)
        self._partition = place.partition
        self._partial = self._path.parent / f".{os.getpid()}-{fresh_id()}.partial"
        told = {_TOLD: json.dumps(asdict(place)).encode()}
        self._waiting: list[Message] = []
        self._size = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            sweep(self._path.parent)
            self._file = pa.parquet.ParquetWriter(
                self._partial,
                _SCHEMA.with_metadata(told),
                compression="zstd",
                use_dictionary=False,
                write_statistics=["offset"],
                write_page_checksum=True,
            )
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, messages: list[Message]) -> None:
        """Append messages, in order of their offsets."""
        for message in messages:
            self._waiting.append(message)
            self._size += len(message.value or b"")
            if self._size >= _BYTES or len(self._waiting) >= _MESSAGES:
                self._flush()

    def finish(self) -> None:
        """Put the file under its name."""
        try:
            self._flush()
            self._file.close()
            self._partial.rename(self._path)
        except OSError as error:
            raise self._failed(error) from error

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = [
            pa.array([self._partition] * len(self._waiting), pa.int32()),
            pa.array([message.offset for message in self._waiting], pa.int64()),
            pa.array([message.received for message in self._waiting], pa.int64()),
            pa.array([message.value for message in self._waiting], pa.binary()),
        ]
        self._waiting, self._size = [], 0
        try:
            self._file.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> TickstreamError:
        return TickstreamError(f"{self._path}: messages cannot be kept: {error.strerror or error}")


def read_segment(home: Path, place: Place, span: Range) -> Iterator[list[Message]]:
    """The messages of a file with low <= offset < high of `span`, a row group at a time.

    Raises:
        TickstreamError: it is damaged, or holds something else than its name says.
    """
    path = place.path(home)
    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if _told(file.schema_arrow.metadata) != asdict(place):
                raise _unusable(path, "is not a file of these messages")
            for number in range(file.num_row_groups):
                extent = file.metadata.row_group(number).column(1).statistics
                if extent.max < span[0] or extent.min >= span[1]:
                    continue
                yield _messages(file.read_row_group(number), span)
    except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
        raise _unusable(path, "is damaged") from error


def last_of(home: Path, place: Place) -> Message | None:
    """The last message of a file.

    Raises:
        TickstreamError: as `read_segment`.
    """
    last = None
    for messages in read_segment(home, place, (place.high - 1, place.high)):
        last = messages[-1] if messages else last
    return last


def _told(metadata: Mapping[bytes, bytes] | None) -> Any:
    try:
        return json.loads((metadata or {}).get(_TOLD, b"null"))
    except ValueError:
        return None


def _unusable(path: Path, why: str) -> TickstreamError:
    return TickstreamError(f"{path}: {why}; delete it, it will be fetched anew")


def _messages(table: Any, span: Range) -> list[Message]:
    found = zip(
        table["offset"].to_pylist(),
        table["received"].to_pylist(),
        table["value"].to_pylist(),
        strict=True,
    )
    return [Message(*one) for one in found if span[0] <= one[0] < span[1]]
