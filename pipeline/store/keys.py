"""Keys of the API: made, listed, replaced and revoked; Postgres holds only their digests."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pipeline.errors import MisuseError
from pipeline.store.pool import Pool
from pipeline.store.statements import statement

PREFIX: Final = "tsk_"
_KEY: Final = re.compile(r"tsk_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_NAME_LENGTH: Final = 64


class Role(StrEnum):
    """What its bearer may do; each role may do all that the ones before it may."""

    READER = "reader"
    """Queries and subscriptions."""
    OPERATOR = "operator"
    """Mutations."""
    ADMIN = "admin"
    """What tells of the system itself."""

    def covers(self, needed: "Role") -> bool:
        """Whether it includes another role."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only time that its text is known."""

    id: str
    name: str
    role: Role
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A valid key as it is stored."""

    id: str
    name: str
    role: Role
    digest: bytes
    expires_at: datetime | None


def key_id(text: str) -> str | None:
    """The id in the text of a key; None when it has not the form of one."""
    found = _KEY.fullmatch(text)
    return found and found[1]


def digest_of(text: str) -> bytes:
    """SHA-256 of a key's text: as the secret in it is random and long, no salt or stretching."""
    return hashlib.sha256(text.encode()).digest()


def _fresh_text() -> tuple[str, str]:
    own = secrets.token_hex(_ID_BYTES)
    return own, f"{PREFIX}{own}_{secrets.token_hex(_SECRET_BYTES)}"


async def create_key(pool: Pool, name: str, role: Role, lifetime: timedelta | None) -> NewKey:
    """Make a key; it is valid for its lifetime, or until it is revoked.

    Raises:
        MisuseError: the name is empty, too long or not printable.
    """
    if not 0 < len(name) <= _NAME_LENGTH or not name.isprintable():
        raise MisuseError(f"the name of a key is 1 to {_NAME_LENGTH} printable characters")
    own, text = _fresh_text()
    await pool.execute(statement("create_key"), own, name, role.value, digest_of(text), lifetime)
    return NewKey(own, name, role, text)


async def rotate_key(pool: Pool, old: str, overlap: timedelta) -> NewKey:
    """A new key with name, role and lifetime of a valid one, which ends after the overlap.

    Raises:
        MisuseError: there is no such key, or it is not valid any more.
    """
    own, text = _fresh_text()
    row = await pool.fetchrow(statement("rotate_key"), old, own, digest_of(text), overlap)
    if row is None:
        raise MisuseError(f"no valid key has the id {old!r}: see `tickstream keys list`")
    return NewKey(own, row["name"], Role(row["role"]), text)


async def revoke_key(pool: Pool, old: str) -> None:
    """End a key at once; running servers notice within seconds.

    Raises:
        MisuseError: there is no such key.
    """
    if await pool.fetchval(statement("revoke_key"), old) is None:
        raise MisuseError(f"no key has the id {old!r}: see `tickstream keys list`")


async def list_keys(pool: Pool) -> list[dict[str, Any]]:
    """All keys ever made, oldest first, with their `state`: valid, expired or revoked."""
    return [dict(row) for row in await pool.fetch(statement("list_keys"))]


async def valid_keys(pool: Pool) -> Mapping[str, KeyRecord]:
    """The valid keys by id."""
    rows = await pool.fetch(statement("valid_keys"))
    return {row["id"]: KeyRecord(**{**row, "role": Role(row["role"])}) for row in rows}
