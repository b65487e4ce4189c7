"""Outcomes of runs on disk, each under the hash of what it depends on: none is computed twice."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pipeline.disk import unwritable
from pipeline.errors import MisuseError
from pipeline.replay.output import check_replaceable, put
from pipeline.replay.trial import Told
from pipeline.replay.trial_figures import Outcome

KEPT: Final = "runs"
TICKS: Final = "ticks"
_LOCK: Final = "lock"


class KeptTrials:
    """The outcomes in a folder, one file each, complete or not there.

    `earlier` is a folder of a finished sweep that is looked into as well.
    """

    def __init__(self, folder: Path, earlier: Path | None = None) -> None:
        self._folder = folder
        self._earlier = earlier

    def get(self, key: str) -> Told | None:
        """An outcome, or None. A file that is damaged counts as missing: it is computed anew."""
        path = self._path(key)
        if not path.exists() and self._earlier is not None:
            former = self._earlier / path.name
            if former.exists():
                _linked(former, path)
        try:
            told = json.loads(path.read_text())
            outcomes = [Outcome(**one) for one in told["outcomes"]]
            return Told(str(told["settings_hash"]), outcomes)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, told: Told) -> None:
        """Keep an outcome.

        Raises:
            TickstreamError: the disk does not take it.
        """
        path = self._path(key)
        partial = path.with_suffix(".partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                json.dump(asdict(told), file, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except OSError as error:
            raise unwritable(path, error) from error

    def only(self, keys: Sequence[str]) -> None:
        """Remove all others: outcomes of other code, ticks or settings."""
        wanted = {self._path(key).name for key in keys}
        for path in self._folder.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _linked(source: Path, path: Path) -> None:
    try:
        path.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, path)


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """The folder beside an output where it grows; it stays when the run is interrupted.

    What is in it at the end, but for the shared ticks, is put under the output's name by
    `finished`.

    Raises:
        MisuseError: the output is something else already, or another process works on it.
    """
    out = out.resolve()
    check_replaceable(out)
    folder = out.parent / f".{out.name}.unfinished"
    try:
        (folder / KEPT).mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise unwritable(out, error, MisuseError) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MisuseError(f"{out}: another process works on it") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder / TICKS, ignore_errors=True)
            if (folder / KEPT).is_dir() and not any((folder / KEPT).glob("*.json")):
                shutil.rmtree(folder)  # nothing to go on from


def finished(folder: Path, out: Path) -> None:
    """Put an unfinished output under its name."""
    shutil.rmtree(folder / TICKS, ignore_errors=True)
    (folder / _LOCK).unlink(missing_ok=True)
    put(folder, out.resolve())
