"""What a webhook is sent, held against the published example of Standard Webhooks."""

import json
from typing import Any

import pytest

from schemas.alerts import LARGEST, read_alert
from schemas.webhooks import alert_id, read_secret, webhook_body, webhook_headers

# The example of the libraries of standardwebhooks.com.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_signature_is_that_of_the_standard() -> None:
    """Id, time and body are under it."""
    key = read_secret(SECRET)
    given = ("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330)
    assert webhook_headers(*given, [key]) == {
        "content-type": "application/json",
        "webhook-id": given[0],
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }
    both = webhook_headers(*given, [bytes(32), key])["webhook-signature"].split(" ")
    assert both[1] == SIGNATURE
    assert both[0].startswith("v1,")
    assert both[0] != SIGNATURE
    assert "webhook-signature" not in webhook_headers(*given, [])


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_c2hvcnQ=", SECRET[6:], "whsec_!!!!", f"whsec_{'A' * 90}", "whsec"]
)
def test_a_weak_secret_is_none(text: str) -> None:
    """And the message does not repeat it."""
    with pytest.raises(ValueError, match="24 to 64") as caught:
        read_secret(text)
    assert len(text) < 7 or text not in str(caught.value)


def test_the_body_says_what_and_when() -> None:
    """The alert as it came; its own time, or that of its publication."""
    alert = {"kind": "id_gap", "time": "2026-01-05T09:30:00.000000000Z", "missing": 3}
    assert json.loads(webhook_body(alert, 5, 2)) == {
        "type": "id_gap",
        "timestamp": "2026-01-05T09:30:00.000000000Z",
        "missed": 2,
        "data": alert,
    }
    times: list[Any] = [None, 7, {}]
    for time in times:
        body = json.loads(webhook_body({"kind": "x", "time": time}, 10**9, 0))
        assert body["timestamp"] == "1970-01-01T00:00:01.000000000Z"


def test_the_same_bytes_are_the_same_alert() -> None:
    """Whoever publishes them, whenever."""
    assert alert_id(b"{}") == alert_id(b"{}") != alert_id(b"{} ")
    assert len(alert_id(b"")) == 32


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"kind": 1}',
        b'{"kind": "x"',
        b'{"kind": "x", "a": NaN}',
        b"[" * 60_000,
        b'{"kind": "' + b"x" * LARGEST + b'"}',
    ],
)
def test_what_is_no_alert_is_refused(value: bytes) -> None:
    """With a reason, never by another error."""
    with pytest.raises(ValueError, match=r"JSON|kind|bytes"):
        read_alert(value)
    assert read_alert(b'{"kind": "x", "a": [1.5]}') == {"kind": "x", "a": [1.5]}
