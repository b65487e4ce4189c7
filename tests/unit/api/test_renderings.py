"""One rendering for those who ask the same: who shares it, and what each of them gets."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from graphql import ExecutionResult, GraphQLError
from websockets.frames import Opcode

from api import renderings as module
from api.encoding import encode
from api.errors import format_error
from api.hub import QUEUE, Listener
from api.renderings import Batch, Outbox, Rendering, Renderings, Tally
from pipeline.store.keys import Role
from tests.unit.api.conftest import HEAD, create
from tests.unit.api.test_rules import As
from tests.unit.api.test_websocket import ACK, INIT, LIVE, Client, clients_are, subscribe


class Wire:
    """A socket that takes what a test lets it take."""

    def __init__(self) -> None:
        self.open = True
        self.texts: list[bytes] = []

    def write(self, frames: bytes) -> bool:
        """Take frames apart."""
        if not self.open:
            return False
        while frames:
            assert frames[0] == 0x80 | Opcode.TEXT
            size, at = (frames[1], 2) if frames[1] < 126 else (int.from_bytes(frames[2:4]), 4)
            self.texts.append(frames[at : at + size])
            frames = frames[at + size :]
        return True


def next_of(name: str, number: int, dropped: int = 0) -> dict[str, Any]:
    """The message of a result."""
    payload: dict[str, Any] = {"data": {"n": number}}
    if dropped:
        payload["extensions"] = {"dropped": dropped}
    return {"id": name, "type": "next", "payload": payload}


def batch(*numbers: int) -> Batch:
    """Results of a turn."""
    return Batch([b'{"data":{"n":%d}}' % number for number in numbers])


async def taken(outbox: Outbox) -> list[dict[str, Any]]:
    """What waits."""
    outbox.end(None)
    return [json.loads(text) async for text in outbox.messages()]


async def test_what_a_socket_takes_does_not_wait() -> None:
    """It is written at once, in one call, with the id of each operation."""
    wires = [Wire(), Wire(), Wire()]
    names = ["1", '"é\n', "x" * 300]
    tally = Tally()
    boxes = [Outbox(name, wire, tally) for name, wire in zip(names, wires, strict=True)]
    two = batch(1, 2)
    for box in boxes:
        box.offer(two, QUEUE)
    for name, wire, box in zip(names, wires, boxes, strict=True):
        assert [json.loads(text) for text in wire.texts] == [next_of(name, 1), next_of(name, 2)]
        assert await taken(box) == []


async def test_what_waits_keeps_its_order() -> None:
    """Nothing is written past what waits, or past what is being sent."""
    wire = Wire()
    box = Outbox("1", wire, Tally())
    wire.open = False
    box.offer(batch(1, 2), QUEUE)
    wire.open = True
    box.offer(batch(3), QUEUE)
    sending = box.messages()
    for number in (1, 2, 3):
        assert json.loads(await anext(sending)) == next_of("1", number)
    box.offer(batch(4), QUEUE)  # the third one is not known to be sent
    assert json.loads(await anext(sending)) == next_of("1", 4)
    coming = asyncio.ensure_future(anext(sending))
    await asyncio.sleep(0)
    assert wire.texts == []
    box.offer(batch(5), QUEUE)
    assert [json.loads(text) for text in wire.texts] == [next_of("1", 5)]
    box.end(None)
    with pytest.raises(StopAsyncIteration):
        await coming


async def test_the_oldest_gives_way() -> None:
    """What is lost is counted, here or before, and told by the next message, once."""
    wire, tally = Wire(), Tally()
    box = Outbox("1", wire, tally)
    wire.open = False
    for number in range(5):
        box.offer(batch(number), 3)
    wire.open = True
    box.lose(4)
    box.offer(batch(5), 3)
    assert await taken(box) == [next_of("1", 3, 7), next_of("1", 4), next_of("1", 5)]
    assert box.dropped == tally.dropped == 7
    box = Outbox("1", wire, tally)
    box.lose(2)
    box.offer(batch(6), 3)  # it has to be told, so it is not as that of others
    assert wire.texts == []
    assert await taken(box) == [next_of("1", 6, 2)]
    box = Outbox("1", None, tally)
    box.offer(batch(*range(9)), 3)
    assert await taken(box) == [next_of("1", 6, 6), next_of("1", 7), next_of("1", 8)]
    assert tally.dropped == 15


async def numbers(fault: Exception | None, count: int) -> AsyncGenerator[ExecutionResult, None]:
    """Results, all of them at once, then a fault or the end."""
    for number in range(count):
        errors = None if number else [GraphQLError("first")]
        yield ExecutionResult({"n": number}, errors)
    if fault is not None:
        raise fault


def described(error: Exception) -> dict[str, Any]:
    """An error."""
    return {"message": str(error)}


@pytest.mark.parametrize("fault", [None, ValueError("why")])
async def test_all_get_all(fault: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result, made once, by as few calls as turns; then the same end."""
    made: list[Any] = []

    def counted(value: Any) -> bytes:
        made.append(value)
        return encode(value)

    monkeypatch.setattr(module, "encode", counted)
    wires, tally = [Wire(), Wire()], Tally()
    rendering = Rendering(numbers(fault, 200), [], described)
    async with (
        rendering.joined("1", wires[0], tally) as one,
        rendering.joined("1", wires[1], tally) as two,
    ):
        assert tally == Tally(2)
        for box in (one, two):
            async with asyncio.timeout(5):
                assert await anext(box.messages(), None) is None
            assert box.errors == (None if fault is None else [{"message": "why"}])
    assert tally == Tally(0)
    assert len(made) == 202  # and two ids
    for wire in wires:
        first, *rest = [json.loads(text) for text in wire.texts]
        assert first.pop("payload") == {"data": {"n": 0}, "errors": [{"message": "first"}]}
        assert rest == [next_of("1", number) for number in range(1, 200)]


async def test_what_was_not_rendered_in_time_is_told() -> None:
    """Rows that the rendering itself lost count for all who were there, not for who comes later."""
    listener = Listener(2)

    async def rows() -> AsyncGenerator[ExecutionResult, None]:
        while True:
            yield ExecutionResult((await listener.take()), None)

    wire, tally = Wire(), Tally()
    rendering = Rendering(rows(), [listener], described)
    async with rendering.joined("1", None, tally) as early:
        for number in range(5):
            listener.offer({"n": number})
        reading = early.messages()
        assert json.loads(await anext(reading)) == next_of("1", 3, 3)
        async with rendering.joined("1", wire, tally):
            listener.offer({"n": 5})
            assert json.loads(await anext(reading)) == next_of("1", 4)
            assert json.loads(await anext(reading)) == next_of("1", 5)
            assert [json.loads(text) for text in wire.texts] == [next_of("1", 5)]
            # At most as much waits as the source itself would have wait.
            for number in range(6, 12):
                listener.offer({"n": number})
                for _ in range(5):
                    await asyncio.sleep(0)
            assert json.loads(await anext(reading)) == next_of("1", 10, 7)
    assert tally == Tally(0, 7)


async def test_two_that_begin_at_once() -> None:
    """The later one is joined by who comes next; the end of the other does not end that."""
    found = Renderings()
    gate = asyncio.Event()

    async def begin() -> Rendering | list[Any]:
        await gate.wait()
        return Rendering(numbers(None, 10**9), [], described)

    both = asyncio.gather(found.get("key", begin), found.get("key", begin))
    await asyncio.sleep(0)
    gate.set()
    first, second = await both
    assert isinstance(first, Rendering)
    assert isinstance(second, Rendering)
    async with second.joined("1", Wire(), Tally()):
        async with first.joined("1", Wire(), Tally()):
            pass
        assert await found.get("key", begin) is second
    assert await found.get("key", begin) not in {first, second}


async def test_who_shares(services: Any) -> None:
    """The same document, variables, operation and role; each message has the id of its client."""
    text = "query Q { __typename }" + "".join(
        f" subscription {name}($s: [String!]) {{ signals(symbols: $s) {{ offset }} }}"
        for name in "AB"
    )
    same = {"query": text, "operationName": "A", "variables": {"s": ["A"]}}
    reader, admin = As(Role.READER), As(Role.ADMIN)
    endpoint = create(services, reader)
    clients = []
    for number, payload in enumerate(
        (same, same, {**same, "operationName": "B"}, {**same, "variables": {"s": None}}, same), 1
    ):
        endpoint.websocket_handler.access = admin if number == 5 else reader
        client = Client(endpoint)
        client.send(INIT)
        client.send(subscribe(f"n{number}", payload))
        assert [await client.receive() for _ in range(2)][-1] == ACK
        await clients_are(services, max(1, number - 1))
        await asyncio.sleep(0.01)
        clients.append(client)
    services.push({**HEAD, "symbol": "A", "offset": 1})
    for number, client in enumerate(clients, 1):
        payload = {"data": {"signals": {"offset": "1"}}}
        assert await client.receive() == {"id": f"n{number}", "type": "next", "payload": payload}
    assert services.renderings.tally == Tally(5)
    await clients[0].leave()
    assert (services.hubs.clients, services.renderings.tally) == (4, Tally(4))
    services.push({**HEAD, "symbol": "A", "offset": 2})
    assert (await clients[1].receive())["payload"]["data"]["signals"]["offset"] == "2"
    for left, client in enumerate(clients[1:]):
        await client.leave()
        assert services.hubs.clients == 3 - left
    assert not services.renderings._found
    assert services.renderings.tally == Tally(0)


async def test_a_client_may_ask_the_same_twice(endpoint: Any, services: Any) -> None:
    """Two operations of a connection are two members; one of them may end."""
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe("a", LIVE))
    client.send(subscribe("b", LIVE))
    assert [await client.receive() for _ in range(2)][-1] == ACK
    client.send({"type": "ping"})
    assert await client.receive() == {"type": "pong"}
    await clients_are(services, 1)
    services.push({**HEAD, "symbol": "A", "offset": 1})
    assert {(await client.receive())["id"] for _ in range(2)} == {"a", "b"}
    client.send({"id": "a", "type": "complete"})
    client.send({"type": "ping"})
    assert await client.receive() == {"type": "pong"}
    services.push({**HEAD, "symbol": "A", "offset": 2})
    assert (await client.receive())["id"] == "b"
    await client.leave()
    assert services.hubs.clients == 0


async def test_a_fault_is_one_in_the_log(endpoint: Any, services: Any) -> None:
    """What a row lacks is told to all under the same id of the log."""
    clients = [Client(endpoint), Client(endpoint)]
    for client in clients:
        client.send(INIT)
        client.send(subscribe("1", {"query": "subscription { signals { horizon } }"}))
        assert [await client.receive() for _ in range(2)][-1] == ACK
    await clients_are(services, 1)
    await asyncio.sleep(0.01)
    services.push({**HEAD, "symbol": "A", "offset": 1})
    first, second = [(await client.receive())["payload"]["errors"] for client in clients]
    assert first == second
    assert first[0]["extensions"]["code"] == "INTERNAL"
    for client in clients:
        await client.leave()
    assert format_error(GraphQLError("x"))["message"] == "x"
