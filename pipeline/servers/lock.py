"""One owner for a data directory, for as long as its process lives."""

import contextlib
import fcntl
import os
from pathlib import Path

from pipeline.errors import MisuseError, TickstreamError

NAME = "lock"

_held: set[int] = set()


class DirectoryLock:
    """Owns a data directory from construction to release, or to any death of this process.

    Args:
        directory: Made if missing, for our user alone.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MisuseError(
                f"data directory {directory} cannot be used: {error.strerror}"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 20, 0).decode(errors="replace").strip() or "another"
            os.close(fd)
            raise TickstreamError(
                f"data directory {directory} is in use by process {owner}"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd: int | None = fd
        _held.add(fd)

    def release(self) -> None:
        """Let others have it; nothing if that is done."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _held.discard(fd)
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def is_locked(directory: Path) -> bool:
    """Whether a living process owns the directory."""
    try:
        fd = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _let_go() -> None:
    """Close the locks in a forked child, which would hold them after our death."""
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
