"""Clients that mean harm, and secrets that no answer may hold."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from api import limits, transport
from api.access import Access
from api.hub import QUEUE
from pipeline.settings import ApiSettings
from pipeline.store.keys import Role
from tests.unit.api.conftest import HEAD, create
from tests.unit.api.test_rules import As
from tests.unit.api.test_websocket import ACK, ASK, INIT, LIVE, Client, clients_are, subscribe

SECRET = "postgresql://tickstream:geheim@10.0.0.5/tickstream"  # noqa: S105 - must not be seen


async def post(endpoint: Any, body: Any) -> httpx.Response:
    """The answer to a body."""
    transport_ = httpx.ASGITransport(endpoint)
    headers = {"content-type": "application/json", "accept": transport.GRAPHQL}
    async with httpx.AsyncClient(transport=transport_, base_url="http://localhost") as client:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return await client.post("/", content=content, headers=headers)


def code_of(answer: httpx.Response) -> str:
    """The code of its first error."""
    return str(answer.json()["errors"][0]["extensions"]["code"])


HISTORY = 'bars(symbol: "A", last: 500) { edges { node { open high low close volume vwap n } } }'
BOMBS = {
    "aliases of a history": "{" + " ".join(f"a{i}: {HISTORY}" for i in range(50)) + "}",
    "aliases of all symbols": "{" + " ".join(f"a{i}: symbols {{ name }}" for i in range(300)) + "}",
    "aliases of a leaf": "{ symbols {" + " ".join(f"a{i}: name" for i in range(600)) + "} }",
    "fragments that double": "{ ...F0 } "
    + " ".join(f"fragment F{i} on Query {{ ...F{i + 1} ...F{i + 1} }}" for i in range(100))
    + " fragment F100 on Query { engines { name } }",
    "fragments at every symbol": "{ symbols { ...F0 } } "
    + " ".join(f"fragment F{i} on Symbol {{ ...F{i + 1} ...F{i + 1} }}" for i in range(20))
    + " fragment F20 on Symbol { name }",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_bombs_are_not_run(endpoint: Any, services: Any, name: str) -> None:
    """What would multiply beyond the limit is refused before anything is read."""
    answer = await post(endpoint, {"query": BOMBS[name]})
    assert (answer.status_code, code_of(answer)) == (400, "LIMITED")
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe("1", {"query": BOMBS[name]}))
    refused = [await client.receive() for _ in range(3)][-1]
    assert refused["payload"][0]["extensions"] == {"code": "LIMITED"}
    await client.leave()
    assert services.calls == []


NESTED = {
    "fields": "{ a" * 900 + "}" * 900,
    "lists": "{ symbols(names: " + "[" * 900 + "]" * 900 + ") { name } }",
    "objects": '{ bars(symbol: "A", asOf: ' + "{a: " * 500 + "1" + "}" * 500 + ") { x } }",
    "inline fragments": "{" + " ... {" * 900 + "x" + "}" * 901,
    "fragments": "{ ...F0 } "
    + "".join(f"fragment F{i} on Query {{ ...F{i + 1} }}" for i in range(300)),
    "types": "query ($a: " + "[" * 900 + "Int" + "]" * 900 + ") { x }",
    "tokens": "{" + " a" * 100_000 + "}",
    "strings": '{ symbol(name: "' + "x" * 900_000 + '") { name } }',
    "comments": "{ x }" + "\n# nothing" * 90_000,
}


@pytest.mark.parametrize("name", NESTED)
async def test_deep_and_long_documents_are_a_clients_mistake(endpoint: Any, name: str) -> None:
    """No nesting and no length becomes a fault of ours."""
    answer = await post(endpoint, {"query": NESTED[name]})
    assert answer.json()["errors"]
    assert answer.status_code in {200, 400}
    assert code_of(answer) in {"BAD_REQUEST", "BAD_INPUT"}


@pytest.mark.parametrize(
    "variables", [b"[" * 500 + b"]" * 500, b'{"s": ' + b"[" * 1200 + b"]" * 1200 + b"}"]
)
async def test_deep_variables(endpoint: Any, variables: bytes) -> None:
    """Nor does the nesting of variables."""
    query = b'{"query": "query ($s: [String!]) { symbols(names: $s) { name } }", "variables": '
    assert (await post(endpoint, query + variables + b"}")).status_code == 400


async def test_a_batch_is_no_request(endpoint: Any, services: Any) -> None:
    """A thousand operations in one body are refused as one."""
    answer = await post(endpoint, [ASK] * 1000)
    assert (answer.status_code, code_of(answer)) == (400, "BAD_REQUEST")
    assert len(answer.json()["errors"]) == 1
    assert services.calls == []


async def test_a_slow_body_is_given_up(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends a byte now and then gets 408."""
    monkeypatch.setattr(transport, "BODY_SECONDS", 0.05)
    assert limits.BODY_SECONDS == 10

    async def drip() -> AsyncIterator[dict[str, Any]]:
        while True:
            await asyncio.sleep(0.01)
            yield {"type": "http.request", "body": b" ", "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(event: Any) -> None:
        await asyncio.sleep(0)
        sent.append(event)

    body = drip()
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    async with asyncio.timeout(5):
        await endpoint(scope, lambda: anext(body), send)
    assert sent[0]["status"] == 408


@pytest.fixture
def hurried(services: Any) -> Any:
    """An endpoint whose queries may take a moment only, over a store that takes longer."""
    api = services.settings.api.model_copy(update={"query_seconds": 0.05})
    services.settings = services.settings.model_copy(update={"api": api})

    async def hang(*_: Any) -> Any:
        await asyncio.sleep(3600)

    services.cached = hang
    return create(services)


async def test_a_query_that_takes_too_long_is_ended(hurried: Any) -> None:
    """The client is told, over HTTP and over WebSocket, and the connection goes on."""
    query = {"query": '{ symbol(name: "S000") { price { ts } } }'}
    answer = await post(hurried, query)
    assert (answer.status_code, code_of(answer)) == (503, "LIMITED")
    client = Client(hurried)
    client.send(INIT)
    client.send(subscribe("1", query))
    ended = [await client.receive() for _ in range(3)][-1]
    assert (ended["type"], ended["payload"][0]["extensions"]) == ("error", {"code": "LIMITED"})
    client.send(subscribe("1", {"query": "{ __typename }"}))
    assert (await client.receive())["type"] == "next"
    await client.leave()


@pytest.mark.parametrize(
    "fault",
    [
        OSError(SECRET),
        ValueError(SECRET),
        KeyError(SECRET),
        ExceptionGroup(SECRET, [OSError(SECRET)]),
        RecursionError(SECRET),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_secrets_in_faults_stay_here(endpoint: Any, services: Any, fault: Exception) -> None:
    """Whatever a fault of ours says, clients get its number, by every way."""
    services.postgres_fails = fault
    query = {"query": "{ symbols { name } }"}
    answer = await post(endpoint, query)
    assert code_of(answer) == "INTERNAL"
    assert answer.json()["errors"][0]["message"] == "Internal error"
    assert set(answer.json()["errors"][0]) <= {"message", "path", "locations", "extensions"}
    assert "geheim" not in answer.text
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe("1", query))
    answers = [await client.receive() for _ in range(3)]
    assert answers[-1]["payload"]["errors"][0]["message"] == "Internal error"
    assert "geheim" not in str(answers)

    def fail(*_: Any) -> Any:
        raise fault

    services.hubs.subscribed = fail
    client.send(subscribe("2", LIVE))
    answers = [await client.receive() for _ in range(2)]
    assert "Internal error" in str(answers)
    assert "geheim" not in str(answers)
    await client.leave()


async def test_a_subscriber_learns_what_it_lost(endpoint: Any, services: Any) -> None:
    """Rows that gave way for newer ones are told by their number, once."""
    client = Client(endpoint)
    client.send(INIT)
    client.send(subscribe())
    assert [await client.receive() for _ in range(2)][-1] == ACK
    await clients_are(services, 1)
    for offset in range(QUEUE + 7):
        services.push({**HEAD, "symbol": "A", "offset": offset})
    for place in range(QUEUE):
        payload = (await client.receive())["payload"]
        assert payload["data"]["signals"]["offset"] == str(place + 7)
        assert payload.get("extensions") == ({"dropped": 7} if place == 0 else None)
    await client.leave()


class Deaf(Client):
    """A client whose socket takes nothing any more, once told so."""

    deaf = False

    async def _take(self, event: Any) -> None:
        if self.deaf:
            await asyncio.sleep(3600)
        await self._out.put(event)


async def test_a_client_that_does_not_read_is_given_up(endpoint: Any, services: Any) -> None:
    """Its subscription ends and its connection with it, though not even the close is taken."""
    endpoint.websocket_handler.send_seconds = 0.05
    client = Deaf(endpoint)
    client.send(INIT)
    client.send(subscribe())
    assert [await client.receive() for _ in range(2)][-1] == ACK
    await clients_are(services, 1)
    client.deaf = True
    services.push({**HEAD, "symbol": "A", "offset": 1})
    async with asyncio.timeout(5):
        await client.task
    assert services.hubs.clients == 0


async def test_a_flood_of_subscribes_is_not_kept(endpoint: Any) -> None:
    """A client that asks on without reading is not read from, so that nothing piles up here."""
    client = Deaf(endpoint)
    client.send(INIT)
    assert [await client.receive() for _ in range(2)][-1] == ACK
    client.deaf = True
    for number in range(5000):
        client.send(subscribe(str(number)))
    for _ in range(200):
        await asyncio.sleep(0)
    assert client._in.qsize() > 4900
    client.task.cancel()
    await asyncio.gather(client.task, return_exceptions=True)


async def test_sockets_of_a_principal_are_bounded(services: Any) -> None:
    """One more than allowed is told to come later; when one leaves there is room."""
    access = As(Role.READER)
    access._max = 3
    endpoint = create(services, access)
    clients = [Client(endpoint) for _ in range(4)]
    last = []
    for client in clients:
        client.send(INIT)
        last.append([await client.receive() for _ in range(2)][-1])
    assert last == [ACK, ACK, ACK, 1013]
    await clients[0].leave()
    again = Client(endpoint)
    again.send(INIT)
    assert [await again.receive() for _ in range(2)][-1] == ACK
    for client in (*clients[1:3], again):
        await client.leave()
    assert not access._counts


async def test_who_is_at_home_is_not_counted(services: Any) -> None:
    """Without auth all are one: no limit of one binds them together."""

    async def none() -> Any:
        await asyncio.sleep(0)

    access = Access(ApiSettings(sockets_max=1), none)
    clients = [Client(create(services, access)) for _ in range(3)]
    for client in clients:
        client.send(INIT)
        assert [await client.receive() for _ in range(2)][-1] == ACK
    for client in clients:
        await client.leave()


@pytest.mark.parametrize(
    ("host", "said", "shown"),
    [
        ("127.0.0.1", None, True),
        ("0.0.0.0", None, False),  # noqa: S104 - nothing is bound
        ("0.0.0.0", True, True),  # noqa: S104 - the same
        ("127.0.0.1", False, False),
    ],
)
async def test_introspection_is_off_beyond_loopback(
    services: Any, host: str, said: bool | None, shown: bool
) -> None:
    """Unless it is said otherwise, only loopback shows the schema."""
    api = services.settings.api.model_copy(update={"host": host, "development": said})
    services.settings = services.settings.model_copy(update={"api": api})
    endpoint = create(services)
    for query in ("{ __schema { types { name } } }", '{ __type(name: "Query") { name } }'):
        answer = await post(endpoint, {"query": query})
        assert ("data" in answer.json()) is shown
    assert (await post(endpoint, {"query": "{ __typename }"})).json() == {
        "data": {"__typename": "Query"}
    }
