"""Fills and alerts of the topics, each once."""

from collections.abc import Sequence
from typing import Any

import pytest

from api import topics
from api.hub import Hub, Listener
from api.topics import FILLS, QUEUE, Alerts, Fills, alert_row
from schemas.alerts import LARGEST, drift_document, gap_document, read_alert, refusal_document
from schemas.arrivals import Gap, Message
from schemas.codec import block_bytes, json_bytes
from tests.fixtures.rows import rows_of
from tests.unit.api.test_websocket import ACK, INIT, Client, subscribe

GAP = json_bytes(gap_document(Gap(9, 1, "A", 10**18, 3, 4), 2))
REFUSED = json_bytes(refusal_document("m", "m-1", "worse", 10**18))


def fills(offsets: Sequence[int], partition: int = 0) -> bytes:
    """A message of fills of A and B in turn."""
    return block_bytes(rows_of(FILLS, offsets, partition=partition))


def without_symbols() -> bytes:
    """A block whose row has no symbol."""
    rows = rows_of(FILLS, [1])
    rows.columns["symbol"][:] = -1
    return block_bytes(rows)


def taken(hub: Fills | Alerts, value: bytes | None, partition: int = 0) -> int:
    """Give a message; how often others may have the loop meanwhile."""
    return sum(1 for _ in hub.take(partition, Message(0, 5_000_000, value)))


def rows(listener: Listener) -> list[Any]:
    """What waits."""
    found = list(listener._rows)
    listener._rows.clear()
    return found


def test_every_fill_once() -> None:
    """All rows of a symbol come, in order; what is published again does not come again."""
    hub = Fills()
    with hub.subscribed(None) as everything, hub.subscribed(["A"]) as one:
        for offsets in ((1, 2, 3), (1, 2, 3), (2, 3, 4, 5), (3,), (5, 6)):
            taken(hub, fills(offsets))
        assert [row["offset"] for row in rows(everything)] == [1, 2, 3, 4, 5, 6]
        assert [row["offset"] for row in rows(one)] == [1, 3, 4]  # of each block every other row
        taken(hub, fills([3], partition=1), partition=1)
        assert [(row["partition"], row["offset"]) for row in rows(everything)] == [(1, 3)]
        hub.renew()
        taken(hub, fills([2]))
        assert [row["offset"] for row in rows(everything)] == [2]


def test_a_burst_of_fills_leaves_the_loop_to_others() -> None:
    """A large block is given in pieces, and waits whole."""
    hub = Fills()
    with hub.subscribed(None) as listener:
        assert taken(hub, fills(range(1000))) == -(-1000 // 64)
        assert [row["offset"] for row in rows(listener)] == list(range(1000))
        taken(hub, fills(range(1000, 1000 + QUEUE + 3)))
        assert (len(rows(listener)), listener.dropped, hub.dropped) == (QUEUE, 3, 3)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"[]",
        fills([1])[:-9],
        block_bytes(rows_of("bars", [1])),
        fills([1], partition=1),
        without_symbols(),
    ],
)
def test_what_is_no_block_of_fills_is_refused(value: bytes | None) -> None:
    """Nothing of it is given, and what comes behind it is."""
    hub = Fills()
    with hub.subscribed(None) as listener:
        with pytest.raises(ValueError):  # noqa: PT011 -- the feed takes any
            taken(hub, value)
        assert rows(listener) == []
        taken(hub, fills([1]))
        assert len(rows(listener)) == 1


def test_every_alert_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their bytes; one of no symbol goes to those who follow all."""
    monkeypatch.setattr(topics, "_REMEMBERED", 2)
    hub = Alerts()
    with hub.subscribed(None) as everything, hub.subscribed(["A"]) as one:
        for value in (GAP, GAP, REFUSED, GAP):
            taken(hub, value)
        assert [row["kind"] for row in rows(everything)] == ["id_gap", "model_refused"]
        assert [row["kind"] for row in rows(one)] == ["id_gap"]
        for number in range(2):
            taken(hub, json_bytes({"kind": str(number)}))
        taken(hub, GAP)
        assert [row["kind"] for row in rows(one)] == ["id_gap"]
        assert len(hub._told) == 2


def test_what_an_alert_says() -> None:
    """Its place and time where it has them; all of it as text."""
    assert alert_row(read_alert(GAP), GAP, 5) == {
        "kind": "id_gap",
        "symbol": "A",
        "time": read_time(GAP),
        "published": 5,
        "partition": 2,
        "offset": read_alert(GAP)["offset"],
        "index": read_alert(GAP)["index"],
        "document": GAP.decode(),
    }
    nothing = {"symbol": None, "time": None, "partition": None, "offset": None, "index": None}
    odds: tuple[dict[str, Any], ...] = (
        {},
        {"symbol": "", "time": "now", "partition": -1, "offset": 2**63, "index": 1.5},
        {"symbol": 5, "time": 5, "partition": True, "offset": "1", "index": 2**31},
        {"symbol": ["A"], "time": None, "partition": None, "offset": {}, "index": [1]},
    )
    for odd in odds:
        found = alert_row({"kind": "k", **odd}, b"{}", 5)
        assert found == {"kind": "k", "published": 5, "document": "{}", **nothing}
    drift = drift_document(
        kind="engine", name="n", symbol="A", change="c", since=1, ts=2, partition=0, offset=2**62,
        index=0, evidence=1.0, looked=3, stride=1,
    )  # fmt: skip
    assert alert_row(drift, b"{}", 5)["offset"] == 2**62


def read_time(value: bytes) -> int:
    """The time of an alert that has one of 10**18 ns."""
    assert read_alert(value)["time"].startswith("2001-09-09T01:46:40")
    return 10**18


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"{", b"[]", b"5", b"{}", b'{"kind":5}', b"\xff", b"[" * 60_000,
        b'{"kind":"k","a":"\xff"}', b'{"kind":"' + b"k" * LARGEST + b'"}',
    ],
)  # fmt: skip
def test_what_is_no_alert_is_refused(value: bytes | None) -> None:
    """Whatever is on the topic, it is passed over."""
    with pytest.raises(ValueError):  # noqa: PT011 -- the feed takes any
        taken(Alerts(), value)


@pytest.mark.parametrize("field", ["fills { ts }", "alerts { kind }"])
async def test_without_a_broker(endpoint: Any, services: Any, field: str) -> None:
    """A server that has no broker says so, and nothing is left behind."""
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe("1", {"query": f"subscription {{ {field} }}"}))
    answers = [await client.receive() for _ in range(3)]
    assert ACK in answers
    (error,) = answers[-1]["payload"]
    assert error["message"] == "this server has no broker: set TICKSTREAM_KAFKA"
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert (services.topics.clients, services.topics.answers) == (0, None)
    await client.leave()


def test_nobody_is_asked_for_what_nobody_wants() -> None:
    """A symbol that is followed twice by one listener is given once."""
    hub = Hub()
    with hub.subscribed(["A", "A"]) as listener:
        assert hub.wanting("A") == [listener]
        assert hub.wanting("B") == hub.wanting(None) == []
