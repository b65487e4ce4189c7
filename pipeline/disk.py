"""Files as commands leave them: under their name when they are whole, and told by their digest."""

import hashlib
import os
from pathlib import Path
from typing import Final

from pipeline.errors import TickstreamError

MANIFEST: Final = "manifest.json"
"""What a replay, a backtest or many runs say of their output, beside it."""


def unwritable(
    path: Path, error: OSError, kind: type[TickstreamError] = TickstreamError
) -> TickstreamError:
    """What to tell when the disk does not take a file; `kind` says whose fault it is."""
    return kind(f"{path}: cannot be written: {error.strerror or error}")


def write_whole(path: Path, text: str, kind: type[TickstreamError] = TickstreamError) -> None:
    """Write a file in the place of an older one; whatever happens meanwhile, no half of it is seen.

    Raises:
        TickstreamError: of the given kind; the disk does not take it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error, kind) from error
    finally:
        partial.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
