"""JSON Web Tokens: verified with the keys of the settings, and with nothing that a token says."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from api.principals import InvalidTokenError, Principal
from pipeline.errors import MisuseError
from pipeline.settings import JwtSettings
from pipeline.store.keys import Role

PublicKey: TypeAlias = RSAPublicKey | Ed25519PublicKey
MAX_TOKEN: Final = 8192  # characters
_SECRET_BYTES: Final = 32  # RFC 7518, 3.2
_RSA_BITS: Final = 2048  # RFC 7518, 3.3
_SUBJECT: Final = 128  # characters
_KEPT: Final = 1024  # verified tokens


class Tokens:
    """Verifies; a token that was verified is known until it ends.

    Raises:
        MisuseError: a key of the settings cannot be used.
    """

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        # Each algorithm has keys of its own kind, so that no public key can serve as a secret.
        self._keys: dict[str, list[bytes | PublicKey]] = {}
        for secret in settings.secrets:
            value = secret.get_secret_value().encode()
            if len(value) < _SECRET_BYTES:
                raise MisuseError(f"api.jwt.secrets: each takes {_SECRET_BYTES} bytes or more")
            self._keys.setdefault("HS256", []).append(value)
        for text in settings.public_keys:
            key = read_public_key(text)
            kind = "RS256" if isinstance(key, RSAPublicKey) else "EdDSA"
            self._keys.setdefault(kind, []).append(key)
        self._verified: OrderedDict[str, Principal] = OrderedDict()

    def verify(self, text: str) -> Principal:
        """Who a token speaks for; that its time is over is for the caller to see.

        Raises:
            InvalidTokenError: form, algorithm, signature, times or claims are not right.
        """
        known = self._verified.get(text)
        if known is not None:
            self._verified.move_to_end(text)
            return known
        if len(text) > MAX_TOKEN:
            raise InvalidTokenError("too long")
        found = self._principal(self._claims(text))
        self._verified[text] = found
        if len(self._verified) > _KEPT:
            self._verified.popitem(last=False)
        return found

    def _claims(self, text: str) -> dict[str, Any]:
        try:
            algorithm = jwt.get_unverified_header(text).get("alg")
        except jwt.PyJWTError as error:
            raise InvalidTokenError("no header") from error
        keys = self._keys.get(algorithm, []) if isinstance(algorithm, str) else []
        for key in keys:
            try:
                return jwt.decode(
                    text,
                    key,
                    algorithms=[str(algorithm)],
                    audience=self._settings.audience,
                    issuer=self._settings.issuer,
                    leeway=self._settings.leeway,
                    options={"require": ["exp", "sub"]},
                )
            except jwt.InvalidSignatureError:
                continue  # another key of the same kind may have signed it
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
                raise InvalidTokenError(str(error)) from error
        raise InvalidTokenError("no key of ours has signed it")

    def _principal(self, claims: dict[str, Any]) -> Principal:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT:
            raise InvalidTokenError("the subject is no text of a reasonable length")
        if not subject.isprintable():
            raise InvalidTokenError("the subject is not printable")
        try:
            role = Role(str(claims.get(self._settings.role_claim)))
            until = float(claims["exp"]) + self._settings.leeway
        except (ValueError, OverflowError) as error:
            raise InvalidTokenError("no role of ours, or an end beyond all times") from error
        return Principal(f"token:{subject}", role, until=until)


def read_public_key(text: str) -> PublicKey:
    """A public key from PEM, or from the file of that name.

    Raises:
        MisuseError: it cannot be read, is of another kind, or too short.
    """
    shown = "api.jwt.public_keys"
    if not text.lstrip().startswith("-----BEGIN "):
        shown = f"{shown}: {text}"
        try:
            text = Path(text).read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise MisuseError(f"{shown} cannot be read") from error
    if "PRIVATE KEY" in text:
        raise MisuseError(f"{shown}: this is a private key, which belongs to who issues tokens")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MisuseError(f"{shown}: not PEM of a public key") from error
    if isinstance(key, RSAPublicKey):
        if key.key_size < _RSA_BITS:
            raise MisuseError(f"{shown}: RSA keys take {_RSA_BITS} bits or more")
        return key
    if isinstance(key, Ed25519PublicKey):
        return key
    raise MisuseError(f"{shown}: takes RSA and Ed25519 keys")
