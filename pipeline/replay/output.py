"""What a replay writes: one Parquet file per stage and a manifest, complete or not at all."""

import contextlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from threading import Semaphore
from types import TracebackType
from typing import Any, Final, Self

import pandas as pd  # noqa: F401 -- pyarrow would load it amid its work, where a Ctrl-C is lost
import pyarrow as pa
import pyarrow.parquet

from pipeline.disk import MANIFEST, digest, unwritable, write_whole
from pipeline.errors import MisuseError, TickstreamError
from schemas.arrivals import Reject
from schemas.blocks import STAGES, Rows, arrow_schema, to_arrow

REJECTED: Final = "rejected"
_SCATTERED: Final = 64  # batches that wait for a row group
_AT_ONCE: Final = 2  # row groups that are written or wait for that, of all stages
_REJECTED: Final = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("index", pa.int32()),
        ("symbol", pa.utf8()),
        ("reason", pa.utf8()),
        ("detail", pa.utf8()),
    ]
)


class _Writer:
    """Rows into one Parquet file in groups of a fixed size, so that blocks leave no trace.

    A group is written in another thread while the next one is filled.
    """

    def __init__(
        self, path: Path, schema: Any, row_group: int, threads: Executor, turns: Semaphore
    ) -> None:
        # A dictionary of doubles is given up half way: three times the work, and a larger file.
        words = [field.name for field in schema if pa.types.is_string(field.type)]
        self._file = pa.parquet.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=words
        )
        self._path = path
        self._row_group = row_group
        self._threads = threads
        self._turns = turns
        self._writing: Future[None] | None = None
        self._waiting: list[Any] = []
        self._rows = 0
        self.total = 0

    def write(self, batch: Any) -> None:
        if batch.num_rows == 0:
            return
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self.total += batch.num_rows
        if len(self._waiting) >= _SCATTERED:
            # A batch of a few rows takes a hundred times their bytes.
            self._waiting = pa.Table.from_batches(self._waiting).combine_chunks().to_batches()
        if self._rows >= self._row_group:
            table = pa.Table.from_batches(self._waiting)
            whole = self._rows - self._rows % self._row_group
            for start in range(0, whole, self._row_group):
                self._group(table.slice(start, self._row_group))
            self._waiting = table.slice(whole).to_batches()
            self._rows -= whole

    def _group(self, table: Any) -> None:
        self._wait()
        self._turns.acquire()
        self._writing = self._threads.submit(self._write, table)

    def _write(self, table: Any) -> None:
        try:
            # One chunk a column: chunk borders would move the pages of the file.
            self._file.write_table(table.combine_chunks(), row_group_size=self._row_group)
        finally:
            self._turns.release()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        """Write what is left.

        Raises:
            TickstreamError: the disk does not take it.
        """
        if self._rows:
            self._group(pa.Table.from_batches(self._waiting))
            self._waiting, self._rows = [], 0
        self._wait()
        self._file.close()

    def abandon(self) -> None:
        """Let go of the file, whatever state it is in."""
        with contextlib.suppress(TickstreamError):
            self._wait()
        with contextlib.suppress(OSError):
            self._file.close()


class ReplayOutput:
    """A directory of Parquet files that appears under its name when it is complete."""

    def __init__(self, directory: Path, row_group: int) -> None:
        self._directory = directory.resolve()
        self._partial = self._directory.parent / f".{self._directory.name}.partial"
        self._row_group = row_group
        self._writers: dict[str, _Writer] = {}
        self._threads = ThreadPoolExecutor(1, "parquet")
        # With a row a tick the groups of all stages are full at once: few of them may wait.
        self._turns = Semaphore(_AT_ONCE)
        self._reasons: dict[str, int] = {}

    def __enter__(self) -> Self:
        check_replaceable(self._directory)
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            self._make()
            for stage in STAGES:
                self._writers[stage] = self._writer(stage, arrow_schema(stage))
            self._writers[REJECTED] = self._writer(REJECTED, _REJECTED)
        except BaseException:  # Ctrl-C may come here, too, at once after the directory is made
            shutil.rmtree(self._partial, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.abandon()
        self._threads.shutdown()
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _make(self) -> None:
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise unwritable(self._directory, error, MisuseError) from error

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows so far, by stage."""
        return {name: writer.total for name, writer in self._writers.items()}

    @property
    def reasons(self) -> Mapping[str, int]:
        """Rejects so far, by reason."""
        return dict(sorted(self._reasons.items()))

    def write(self, rows: Mapping[str, Rows]) -> None:
        """Append the rows of a block."""
        for stage, block in rows.items():
            if len(block):
                self._writers[stage].write(to_arrow(block))

    def reject(self, partition: int, rejects: Sequence[Reject]) -> None:
        """Append what was turned away."""
        if not rejects:
            return
        columns = [
            [partition] * len(rejects),
            [reject.offset for reject in rejects],
            [reject.index for reject in rejects],
            [reject.symbol for reject in rejects],
            [reject.reason.value for reject in rejects],
            [reject.detail for reject in rejects],
        ]
        for reject in rejects:
            name = reject.reason.value
            self._reasons[name] = self._reasons.get(name, 0) + 1
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _REJECTED, strict=True)]
        self._writers[REJECTED].write(pa.RecordBatch.from_arrays(arrays, schema=_REJECTED))

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Close the files, write the manifest with their hashes, and put all under the name."""
        counts = dict(self.counts)
        for writer in self._writers.values():
            writer.close()
        files = {name: digest(self._partial / f"{name}.parquet") for name in self._writers}
        self._writers = {}
        manifest = {
            "tickstream": version("tickstream"),
            **facts,
            "rows": counts,
            "rejected": self.reasons,
            "sha256": files,
            "machine": machine(),
        }
        write_whole(self._partial / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        put(self._partial, self._directory)
        return manifest

    def _writer(self, name: str, schema: Any) -> _Writer:
        path = self._partial / f"{name}.parquet"
        return _Writer(path, schema, self._row_group, self._threads, self._turns)


def check_replaceable(directory: Path) -> None:
    """Whether an output may stand here.

    Raises:
        MisuseError: there is something that no replay has made.
    """
    if not directory.exists():
        return
    ours = directory.is_dir() and ((directory / MANIFEST).exists() or not any(directory.iterdir()))
    if not ours:
        raise MisuseError(f"{directory}: exists and is not the output of a replay")


def put(made: Path, directory: Path) -> None:
    """Give a complete output its name, in the place of an older one."""
    former = directory.parent / f".{directory.name}.former"
    shutil.rmtree(former, ignore_errors=True)
    if directory.exists():
        # Aside at once: to be killed while deleting must not leave half of it under the name.
        directory.rename(former)
    made.rename(directory)
    shutil.rmtree(former, ignore_errors=True)


def machine() -> dict[str, str]:
    """What the last bit of a logarithm depends on."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "libm": " ".join(platform.libc_ver()),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "python": platform.python_version(),
    }
