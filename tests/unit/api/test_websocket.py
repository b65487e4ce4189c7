"""The protocol graphql-transport-ws, message by message, without a socket."""

import asyncio
import json
from typing import Any

import pytest

from api.messages import PROTOCOL
from pipeline.settings import ApiSettings
from tests.unit.api.conftest import HEAD

INIT = {"type": "connection_init"}
ACK = {"type": "connection_ack"}
LIVE = {"query": 'subscription { signals(symbols: ["A"]) { symbol offset } }'}
ASK = {"query": "{ symbols(first: 1) { name } }"}


def subscribe(name: str = "1", payload: Any = LIVE) -> dict[str, Any]:
    """A subscribe message."""
    return {"id": name, "type": "subscribe", "payload": payload}


async def clients_are(services: Any, count: int) -> None:
    """Let the server turn until so many subscriptions are open."""
    for _ in range(1000):
        if services.hubs.clients == count:
            return
        await asyncio.sleep(0.001)
    pytest.fail(f"{services.hubs.clients} subscriptions, not {count}")


class Client:
    """Plays the server between an application and the test."""

    def __init__(self, app: Any, protocols: tuple[str, ...] = (PROTOCOL,), path: str = "/") -> None:
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            "type": "websocket",
            "path": path,
            "headers": [(b"host", b"localhost")],
            "subprotocols": list(protocols),
        }
        self._in.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app(scope, self._in.get, self._take))

    async def _take(self, event: Any) -> None:
        await self._out.put(event)

    def send(self, message: Any) -> None:
        """Send a message; text and bytes as they are."""
        event: dict[str, Any] = {"type": "websocket.receive"}
        if isinstance(message, bytes):
            event["bytes"] = message
        else:
            event["text"] = message if isinstance(message, str) else json.dumps(message)
        self._in.put_nowait(event)

    async def receive(self) -> Any:
        """The next message of the server; its code when it closes."""
        async with asyncio.timeout(5):
            event = await self._out.get()
        if event["type"] == "websocket.close":
            return event["code"]
        if event["type"] == "websocket.accept":
            return event["subprotocol"]
        return json.loads(event["text"])

    async def leave(self) -> None:
        """Break the connection, and see that the server ends."""
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(5):
            await self.task


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (["not JSON"], 4400),
        ([b"\x00"], 4400),
        (["[]"], 4400),
        (["5"], 4400),
        ([{"type": "connection_init", "payload": 5}], 4400),
        ([{"type": "nonsense"}], 4400),
        ([{}], 4400),
        ([INIT, subscribe(payload=None)], 4400),
        ([INIT, subscribe(payload={})], 4400),
        ([INIT, subscribe(payload={"query": 5})], 4400),
        ([INIT, subscribe(payload={**LIVE, "variables": 5})], 4400),
        ([INIT, subscribe(payload={**LIVE, "operationName": 5})], 4400),
        ([INIT, {"type": "subscribe", "payload": LIVE}], 4400),
        ([INIT, subscribe(name="")], 4400),
        ([INIT, {"type": "complete"}], 4400),
        ([subscribe()], 4401),
        ([INIT, subscribe(), subscribe()], 4409),
        ([INIT, INIT], 4429),
    ],
)
async def test_misuse_closes_with_its_code(endpoint: Any, messages: list[Any], code: int) -> None:
    """Each misuse of the protocol ends the connection with the code of the document."""
    client = Client(endpoint)
    assert await client.receive() == PROTOCOL
    for message in messages:
        client.send(message)
    answers = [await client.receive() for _ in range(2 if INIT in messages else 1)]
    assert answers[-1] == code
    async with asyncio.timeout(5):
        await client.task


@pytest.mark.parametrize("protocols", [(), ("graphql-ws",)])
async def test_other_protocols_are_not_acceptable(
    endpoint: Any, protocols: tuple[str, ...]
) -> None:
    """A client that does not offer our protocol is closed with 4406."""
    client = Client(endpoint, protocols)
    assert await client.receive() is None
    assert await client.receive() == 4406


async def test_a_silent_client_is_closed(endpoint: Any) -> None:
    """Without connection_init in time the connection ends with 4408."""
    assert endpoint.websocket_handler.init_seconds == 5
    endpoint.websocket_handler.init_seconds = 0.05
    client = Client(endpoint)
    client.send({"type": "ping"})
    assert [await client.receive() for _ in range(3)] == [PROTOCOL, {"type": "pong"}, 4408]


async def test_a_client_that_was_let_in_may_be_silent(endpoint: Any) -> None:
    """The time for connection_init is for that alone."""
    endpoint.websocket_handler.init_seconds = 0.05
    client = Client(endpoint)
    client.send(INIT)
    assert [await client.receive() for _ in range(2)] == [PROTOCOL, ACK]
    await asyncio.sleep(0.2)
    client.send({"type": "ping"})
    assert await client.receive() == {"type": "pong"}
    await client.leave()


async def test_a_subscription_from_start_to_end(endpoint: Any, services: Any) -> None:
    """Rows flow until complete; the id may then be used again; nothing is left behind."""
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe())
    assert [await client.receive() for _ in range(2)] == [PROTOCOL, ACK]
    for turn in range(2):
        await clients_are(services, 1)
        offsets = [2**60 + 3 * turn + place for place in range(3)]
        for offset, name in zip(offsets, "ABA", strict=True):
            services.push({**HEAD, "symbol": name, "offset": offset})
        for offset in offsets[::2]:
            assert await client.receive() == {
                "id": "1",
                "type": "next",
                "payload": {"data": {"signals": {"symbol": "A", "offset": str(offset)}}},
            }
        client.send({"id": "1", "type": "complete"})
        await clients_are(services, 0)
        client.send(subscribe())
    client.send({"type": "ping", "payload": {"a": 1}})
    assert await client.receive() == {"type": "pong"}
    await client.leave()
    assert services.hubs.clients == 0


async def test_queries_over_websocket(endpoint: Any) -> None:
    """A query gives one result and complete; its mistakes give error and nothing after it."""
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe("q", ASK))
    assert [await client.receive() for _ in range(4)] == [
        PROTOCOL,
        ACK,
        {"id": "q", "type": "next", "payload": {"data": {"symbols": [{"name": "S000"}]}}},
        {"id": "q", "type": "complete"},
    ]
    for text in (
        "{",
        "{ nothing }",
        "subscription { nothing }",
        "subscription { a: signals { ts }",
    ):
        client.send(subscribe("q", {"query": text}))
        answer = await client.receive()
        assert (answer["type"], answer["id"]) == ("error", "q")
        assert answer["payload"][0]["extensions"] == {"code": "BAD_REQUEST"}
    await client.leave()


async def test_wrong_arguments_of_a_subscription(endpoint: Any) -> None:
    """A subscription whose source fails says why and leaves the connection open."""
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe("1", {"query": 'subscription { signals(symbols: [""]) { ts } }'}))
    answer = [await client.receive() for _ in range(3)][-1]
    errors = answer["payload"] if answer["type"] == "error" else answer["payload"]["errors"]
    assert errors[0]["extensions"] == {"code": "BAD_INPUT"}
    await client.leave()


async def test_operations_of_a_client_are_bounded(endpoint: Any) -> None:
    """One more operation than allowed is refused, the others go on."""
    client = Client(endpoint)
    client.send(INIT)
    limit = ApiSettings().subscriptions_max
    for number in range(limit + 1):
        client.send(subscribe(str(number)))
    answer = [await client.receive() for _ in range(3)][-1]
    assert (answer["id"], answer["type"]) == (str(limit), "error")
    assert answer["payload"][0]["extensions"] == {"code": "LIMITED"}
    await client.leave()
