"""What a replay has written, read back: its manifest, and columns that are as it wrote them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pipeline.disk import MANIFEST, digest
from pipeline.errors import MisuseError


def read_manifest(directory: Path) -> Mapping[str, Any]:
    """The manifest of a replay.

    Raises:
        MisuseError: there is none.
    """
    path = directory / MANIFEST
    try:
        found = json.loads(path.read_bytes())
        for name in ("tickstream", "inputs", "settings_hash"):
            found[name]
        found["settings"]["bars"]
        found["sha256"]["bars"], found["sha256"]["features"]
    except OSError as error:
        raise MisuseError(
            f"{directory}: is not the output of a replay: {MANIFEST}: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MisuseError(f"{path}: is not the manifest of a replay") from error
    return dict(found)


def read_columns(
    directory: Path, stage: str, names: Sequence[str], manifest: Mapping[str, Any]
) -> Any:
    """Columns of a stage as an Arrow table, after a look at the hash of its file.

    Raises:
        MisuseError: it was changed since, or cannot be read.
    """
    path = directory / f"{stage}.parquet"
    try:
        if digest(path) != manifest["sha256"][stage]:
            raise MisuseError(f"{path}: was changed since the replay wrote it: replay again")
        return pa.parquet.read_table(path, columns=list(names))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise MisuseError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
