"""Who may come in: by a key of Postgres or a token; and who must leave when a key was revoked."""

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import structlog
from starlette.requests import HTTPConnection

from api.errors import ApiError, Code
from api.principals import LOCAL, InvalidTokenError, Principal
from pipeline.clock import now_ns
from pipeline.settings import ApiSettings, JwtSettings
from pipeline.store.keys import PREFIX, KeyRecord, digest_of, key_id

READ_EVERY: Final = 2.0  # seconds
_FIRST_EVERY: Final = 0.1  # seconds, until they were read once
_READ_WITHIN: Final = 5.0  # seconds
_log: Final = structlog.get_logger("api")
Verify = Callable[[str], Principal]


class Guest(Protocol):
    """One who stays: an open socket."""

    def expel(self) -> None:
        """End it soon, without waiting."""


class Access:
    """Judges credentials against the keys as they were read last.

    While Postgres is away these stay in force; before they were read once, nobody is let in.
    """

    def __init__(
        self, settings: ApiSettings, read: Callable[[], Awaitable[Mapping[str, KeyRecord]]]
    ) -> None:
        self._open = not settings.auth
        self._read = read
        self._verify = None if self._open else open_verifier(settings.jwt)
        self._keys: Mapping[str, KeyRecord] | None = None
        self._guests: dict[Guest, Principal] = {}
        self._max = settings.sockets_max
        self._counts: Counter[str] = Counter()

    @property
    def ready(self) -> bool:
        """Whether it can judge."""
        return self._open or self._keys is not None

    def admit(self, credential: str | None) -> Principal:
        """Who a credential speaks for: a key or a token, without a word before it.

        Raises:
            ApiError: it is missing or not valid, or the keys could not be read yet.
        """
        if self._open:
            return LOCAL
        if credential is None:
            raise ApiError(Code.UNAUTHENTICATED, "a key or a token is needed: Bearer KEY")
        if credential.startswith(PREFIX):
            found = self._by_key(credential)
        else:
            found = self._by_token(credential)
        if found is None or not _in_time(found):
            raise ApiError(Code.UNAUTHENTICATED, "the key or token is not valid")
        return found

    def holds(self, principal: Principal) -> bool:
        """Whether one who was let in may stay."""
        if not _in_time(principal):
            return False
        if principal.key is None:
            return True
        record = (self._keys or {}).get(principal.key)
        return record is not None and _principal(record) == principal

    def enter(self, guest: Guest, principal: Principal) -> None:
        """Remember one who stays.

        Raises:
            ApiError: it has too many open sockets.
        """
        if self._counts[principal.id] >= self._max and principal is not LOCAL:
            raise ApiError(Code.LIMITED, f"{self._max} sockets of one key or subject are allowed")
        self._counts[principal.id] += 1
        self._guests[guest] = principal

    def leave(self, guest: Guest) -> None:
        """Forget one who stayed."""
        principal = self._guests.pop(guest, None)
        if principal is not None:
            self._counts[principal.id] -= 1
            if not self._counts[principal.id]:
                del self._counts[principal.id]

    async def run(self) -> None:
        """Read the keys again and again, and put out whose time is over; until cancelled."""
        away = False
        while not self._open:
            try:
                async with asyncio.timeout(_READ_WITHIN):
                    self._keys = await self._read()
                away = False
            except (ApiError, TimeoutError) as error:
                if not away:
                    _log.warning("keys_not_read", error=str(error) or "no answer in time")
                away = True
            except Exception:  # noqa: BLE001 - a fault in one reading must not keep revoked keys alive
                _log.exception("keys_failed")
            self.sweep()
            await asyncio.sleep(READ_EVERY if self.ready else _FIRST_EVERY)

    def sweep(self) -> None:
        """Put out those who may not stay."""
        for guest, principal in list(self._guests.items()):
            if not self.holds(principal):
                _log.info("socket_expelled", principal=principal.id)
                self.leave(guest)
                guest.expel()

    def _by_key(self, text: str) -> Principal | None:
        if self._keys is None:
            raise ApiError(Code.UNAVAILABLE, "the keys could not be read yet; try again")
        record = self._keys.get(key_id(text) or "")
        # The digest is made in either case: how long an answer takes tells nothing of the ids.
        digest = digest_of(text)
        if record is None or not hmac.compare_digest(digest, record.digest):
            return None
        return _principal(record)

    def _by_token(self, text: str) -> Principal | None:
        if self._verify is None:
            return None
        try:
            return self._verify(text)
        except InvalidTokenError as error:
            _log.info("token_refused", reason=str(error))
            return None


def open_verifier(settings: JwtSettings) -> Verify | None:
    """What verifies tokens; None when there are no keys for that.

    Raises:
        MisuseError: a key cannot be used.
    """
    if not settings.secrets and not settings.public_keys:
        return None
    from api.tokens import Tokens  # noqa: PLC0415 - the cryptography behind it is slow to load

    return Tokens(settings).verify


def only_header(connection: HTTPConnection) -> str | None:
    """The `Authorization` header; None without one, or with several."""
    found = connection.headers.getlist("authorization")
    return found[0] if len(found) == 1 else None


def bearer(header: str | None) -> str | None:
    """The credential of an `Authorization` header; None without one."""
    if header is None:
        return None
    scheme, _, credential = header.strip().partition(" ")
    return (credential.strip() or None) if scheme.lower() == "bearer" else None


def credential_of(payload: Any, header: str | None) -> str | None:
    """The credential of a `connection_init`, or else of the handshake."""
    if isinstance(payload, dict):
        for name, value in payload.items():
            if name.lower() == "authorization":
                return bearer(value) if isinstance(value, str) else None
    return bearer(header)


def _principal(record: KeyRecord) -> Principal:
    until = None if record.expires_at is None else record.expires_at.timestamp()
    return Principal(f"key:{record.id}", record.role, key=record.id, until=until)


def _in_time(principal: Principal) -> bool:
    return principal.until is None or now_ns() < principal.until * 1e9
