"""The lock of a data directory."""

import os
from pathlib import Path

import pytest

from pipeline.errors import MisuseError, TickstreamError
from pipeline.servers.lock import DirectoryLock, _held, is_locked


def test_second_owner_is_refused_with_the_first_ones_id(tmp_path: Path) -> None:
    """A taken directory names the process that holds it, with exit code 1."""
    lock = DirectoryLock(tmp_path / "d")
    with pytest.raises(TickstreamError) as caught:
        DirectoryLock(tmp_path / "d")
    assert (
        str(caught.value) == f"data directory {tmp_path / 'd'} is in use by process {os.getpid()}"
    )
    assert caught.value.exit_code == 1
    assert is_locked(tmp_path / "d")
    lock.release()
    assert not is_locked(tmp_path / "d")
    DirectoryLock(tmp_path / "d").release()


def test_a_fork_does_not_keep_the_lock(tmp_path: Path) -> None:
    """The death of the owner frees the directory although a forked child of it still lives."""
    lock = DirectoryLock(tmp_path)
    hold_read, hold_write = os.pipe()
    there_read, there_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hold_write)
        os.write(there_write, b"!")
        os.read(hold_read, 1)
        os._exit(0)
    os.read(there_read, 1)
    for fd in (hold_read, there_read, there_write):
        os.close(fd)
    assert lock._fd is not None
    os.close(lock._fd)  # as death does it, without a release
    _held.discard(lock._fd)
    try:
        DirectoryLock(tmp_path).release()
    finally:
        os.close(hold_write)
        os.waitpid(child, 0)


def test_a_file_in_the_place_of_the_directory_is_misuse(tmp_path: Path) -> None:
    """A data directory that is a file is refused in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MisuseError, match="cannot be used"):
        DirectoryLock(tmp_path / "file")
