"""What a webhook is sent: one alert, identified and signed as standardwebhooks.com says."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Final

from schemas.codec import json_bytes
from schemas.times import format_rfc3339

PREFIX: Final = "whsec_"
_SHORTEST, _LONGEST = 24, 64


def read_secret(text: str) -> bytes:
    """The key of a secret, `whsec_` and base64 of 24 to 64 bytes.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError("a secret is whsec_ and base64 of 24 to 64 random bytes")
    return key


def alert_id(value: bytes) -> str:
    """The id of an alert by its bytes on the topic: who publishes it twice makes no second one."""
    return hashlib.sha256(value).hexdigest()[:32]


def webhook_body(alert: Mapping[str, Any], published: int, missed: int) -> bytes:
    """The document that is posted; `published` in ns counts where the alert has no time.

    `missed` alerts before it could not be delivered, and will not be.
    """
    time = alert.get("time")
    return json_bytes(
        {
            "type": alert["kind"],
            "timestamp": time if isinstance(time, str) else format_rfc3339(published),
            "missed": missed,
            "data": alert,
        }
    )


def webhook_headers(name: str, body: bytes, sent: int, keys: Iterable[bytes]) -> dict[str, str]:
    """Headers of an attempt at `sent` seconds since 1970: the id, the time, signatures of all.

    Formula: base64 of HMAC-SHA256 over `id.timestamp.body`, one for each key (Standard Webhooks).
    """
    headers = {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(sent),
    }
    signed = f"{name}.{sent}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys
    ]
    return {**headers, "webhook-signature": " ".join(signatures)} if signatures else headers
