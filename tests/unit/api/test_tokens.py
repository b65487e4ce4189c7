"""Tokens made by hand, by their RFCs: what is taken, and every way to be refused."""

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

from api.principals import InvalidTokenError
from api.tokens import Tokens
from pipeline.clock import now_ns
from pipeline.errors import MisuseError
from pipeline.settings import JwtSettings
from pipeline.store.keys import Role

SECRET = "a secret of at least thirty-two bytes"  # noqa: S105 - for tests only
RSA = rsa.generate_private_key(65537, 2048)
ED = Ed25519PrivateKey.generate()
NOW = now_ns() // 1_000_000_000
CLAIMS = {"sub": "ann", "role": "operator", "exp": NOW + 600}


def pem(key: Any) -> str:
    """The public half as text."""
    form = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return str(form.decode())


def part(value: Any) -> str:
    """Base64url without padding, of bytes or of JSON (RFC 7515, 2)."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_hmac(data: bytes, secret: str = SECRET) -> bytes:
    """HS256 by the standard library (RFC 7518, 3.2)."""
    return hmac.new(secret.encode(), data, hashlib.sha256).digest()


def sign_rsa(data: bytes) -> bytes:
    """RS256 (RFC 7518, 3.3)."""
    return RSA.sign(data, padding.PKCS1v15(), hashes.SHA256())


SIGN: dict[str, Callable[[bytes], bytes]] = {
    "HS256": sign_hmac,
    "RS256": sign_rsa,
    "EdDSA": ED.sign,
}


def token(
    claims: Any = CLAIMS,
    algorithm: str = "HS256",
    sign: Callable[[bytes], bytes] | None = None,
    header: Any = None,
) -> str:
    """A token in the compact form."""
    head = part({"alg": algorithm, "typ": "JWT"} if header is None else header)
    data = f"{head}.{part(claims)}"
    return f"{data}.{part((sign or SIGN[algorithm])(data.encode()))}"


def settings(**values: Any) -> JwtSettings:
    """Settings with a key of each kind."""
    common = {"secrets": (SecretStr(SECRET),), "public_keys": (pem(RSA), pem(ED))}
    return JwtSettings(**{**common, **values})


@pytest.mark.parametrize("algorithm", SIGN)
def test_valid_tokens_are_taken(algorithm: str) -> None:
    """Each algorithm gives subject, role and end; a second look gives the same."""
    tokens = Tokens(settings())
    for _ in range(2):
        found = tokens.verify(token(algorithm=algorithm))
        assert (found.id, found.role, found.key) == ("token:ann", Role.OPERATOR, None)
        assert found.until == NOW + 600


def test_several_keys_are_valid_at_once() -> None:
    """While a secret is being replaced, both are taken."""
    old = "another secret, also of thirty-two bytes"
    tokens = Tokens(settings(secrets=(SecretStr(old), SecretStr(SECRET))))
    assert tokens.verify(token()) == tokens.verify(token(sign=lambda data: sign_hmac(data, old)))


WRONG: dict[str, str] = {
    "nothing": "",
    "dots": "..",
    "no token": "hello",
    "two parts": token().rpartition(".")[0],
    "five parts": token() + ".a.b",
    "no base64": "!!!.!!!.!!!",
    "header of no JSON": f"{part(b'{')}.{part(CLAIMS)}.{part(b'x')}",
    "header no object": token(header=["HS256"]),
    "no algorithm": token(header={"typ": "JWT"}),
    "algorithm no text": token(header={"alg": ["HS256"]}),
    "alg none": token(header={"alg": "none"}, sign=lambda _: b""),
    "alg None": token(header={"alg": "None"}, sign=lambda _: b""),
    "alg none, signed": token(header={"alg": "none"}),
    "alg empty": token(header={"alg": ""}, sign=lambda _: b""),
    "HS384": token(
        header={"alg": "HS384"},
        sign=lambda data: hmac.new(SECRET.encode(), data, hashlib.sha384).digest(),
    ),
    "public key as a secret": token(sign=lambda data: sign_hmac(data, pem(RSA))),
    "HS256 said to be RS256": token(algorithm="RS256", sign=sign_hmac),
    "no signature": token(sign=lambda _: b""),
    "signature of another": token(sign=lambda data: sign_hmac(data, "x" * 40)),
    "changed claims": ".".join(
        (token().split(".")[0], part({**CLAIMS, "role": "admin"}), token().split(".")[2])
    ),
    "deep header": f"{part(b'[' * 5000)}.{part(CLAIMS)}.{part(b'x')}",
    "deep claims": token(b"[" * 4000),
    "critical header": token(header={"alg": "HS256", "crit": ["exp"], "exp": 1}),
    "expired": token({**CLAIMS, "exp": NOW - 1}),
    "no exp": token({"sub": "ann", "role": "admin"}),
    "exp no number": token({**CLAIMS, "exp": "soon"}),
    "exp NaN": token({**CLAIMS, "exp": math.nan}),
    "exp infinite": token({**CLAIMS, "exp": math.inf}),
    "exp beyond floats": token({**CLAIMS, "exp": 10**400}),
    "not yet": token({**CLAIMS, "nbf": NOW + 86_400}),
    "no sub": token({"role": "admin", "exp": NOW + 600}),
    "sub no text": token({**CLAIMS, "sub": 5}),
    "sub empty": token({**CLAIMS, "sub": ""}),
    "sub long": token({**CLAIMS, "sub": "x" * 129}),
    "sub with control": token({**CLAIMS, "sub": "ann\n"}),
    "no role": token({"sub": "ann", "exp": NOW + 600}),
    "unknown role": token({**CLAIMS, "role": "root"}),
    "role no text": token({**CLAIMS, "role": ["admin"]}),
    "claims no object": token([1]),
    "claims no JSON": token(b"{"),
    "huge": token({**CLAIMS, "more": "x" * 9000}),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_tokens_are_refused(case: str) -> None:
    """Nothing else is taken, the first time or later."""
    tokens = Tokens(settings())
    for _ in range(2):
        with pytest.raises(InvalidTokenError):
            tokens.verify(WRONG[case])


def test_issuer_and_audience_are_held_to() -> None:
    """Where they are set, only tokens that name them are taken."""
    tokens = Tokens(settings(issuer="idp", audience="tickstream"))
    good = {**CLAIMS, "iss": "idp", "aud": ["other", "tickstream"]}
    assert tokens.verify(token(good)).role is Role.OPERATOR
    wrong: tuple[dict[str, Any], ...] = (
        {"iss": "else"},
        {"aud": "other"},
        {"aud": []},
        {"iss": None},
        {"aud": None},
    )
    for bad in wrong:
        with pytest.raises(InvalidTokenError):
            tokens.verify(token({**good, **bad}))


def test_algorithms_without_a_key_are_refused() -> None:
    """With public keys alone no secret is taken, not even the empty one."""
    tokens = Tokens(settings(secrets=()))
    assert tokens.verify(token(algorithm="EdDSA")).id == "token:ann"
    for secret in (SECRET, "", pem(RSA), pem(ED)):
        with pytest.raises(InvalidTokenError):
            tokens.verify(token(sign=partial(sign_hmac, secret=secret)))


def test_the_role_may_be_another_claim() -> None:
    """`role_claim` names where the role stands."""
    tokens = Tokens(settings(role_claim="tickstream_role"))
    assert tokens.verify(token({**CLAIMS, "tickstream_role": "admin"})).role is Role.ADMIN
    with pytest.raises(InvalidTokenError):
        tokens.verify(token())


def private(key: Any) -> str:
    """A private key as PEM."""
    form = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return str(form.decode())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"secrets": (SecretStr("short"),)}, "32 bytes or more"),
        ({"public_keys": ("/nowhere.pem",)}, "/nowhere.pem cannot be read"),
        ({"public_keys": (private(ED),)}, "this is a private key"),
        ({"public_keys": ("-----BEGIN PUBLIC KEY-----\nabc\n",)}, "not PEM"),
        ({"public_keys": (pem(ec.generate_private_key(ec.SECP256R1())),)}, "RSA and Ed25519"),
        ({"public_keys": (pem(rsa.generate_private_key(65537, 1024)),)}, "2048 bits or more"),  # noqa: S505 - must be refused
    ],
)
def test_unfit_keys_end_the_start(values: dict[str, Any], words: str) -> None:
    """A key that protects nothing is named at the start, and not shown."""
    with pytest.raises(MisuseError, match=words) as caught:
        Tokens(settings(**values))
    assert "short" not in str(caught.value)


def test_a_public_key_may_be_a_file(tmp_path: Path) -> None:
    """PEM is read from the file that is named."""
    (tmp_path / "idp.pem").write_text(pem(ED))
    tokens = Tokens(settings(public_keys=(str(tmp_path / "idp.pem"),)))
    assert tokens.verify(token(algorithm="EdDSA")).id == "token:ann"


def test_secrets_are_not_shown() -> None:
    """Neither text nor JSON of the settings holds a secret."""
    found = settings()
    assert SECRET not in repr(found) + found.model_dump_json()
