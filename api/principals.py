"""Who a request comes from."""

from dataclasses import dataclass
from typing import Final

from pipeline.store.keys import Role


@dataclass(frozen=True, slots=True)
class Principal:
    """The one that a key or a token speaks for, the same on HTTP and WebSocket."""

    id: str
    """`key:` with the id of the key, `token:` with the subject of the token, or `local`."""
    role: Role
    key: str | None = None
    """The id of the key."""
    until: float | None = None
    """When it ends: seconds since 1970 UTC; None: no time is set."""


class InvalidTokenError(Exception):
    """A token is not to be trusted; why is not for its bearer."""


LOCAL: Final = Principal("local", Role.ADMIN)
"""Whoever uses this machine, where nobody is asked for a key."""
