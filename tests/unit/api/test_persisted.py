"""Documents that are named: over HTTP and WebSocket, alone, and manifests that are none."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.messages import PROTOCOL
from pipeline.errors import MisuseError
from tests.unit.api.conftest import FakeServices, create
from tests.unit.api.test_transport import ANSWER, ASK, client_of
from tests.unit.api.test_websocket import ACK, INIT, Client, subscribe

QUERY: str = ASK["query"]
HASHED = f"sha256:{hashlib.sha256(QUERY.encode()).hexdigest()}"
LIVE = 'subscription { signals(symbols: ["A"]) { symbol } }'
DOCUMENTS = {"first": QUERY, HASHED: QUERY, "live": LIVE}
Make = Callable[..., Any]


@pytest.fixture
def make(services: FakeServices, tmp_path: Path) -> Make:
    """The application with a manifest."""

    def made(documents: Any = DOCUMENTS, *, only: bool = False) -> Any:
        path = tmp_path / "documents.json"
        text = documents if isinstance(documents, str) else json.dumps(documents)
        path.write_text(text)
        told = {"documents": path, "documents_only": only}
        api = services.settings.api.model_copy(update=told)
        services.settings = services.settings.model_copy(update={"api": api})
        return create(services)

    return made


APOLLO = {
    "format": "apollo-persisted-query-manifest",
    "version": 1,
    "operations": [{"id": "first", "name": "First", "type": "query", "body": QUERY}],
}
NAMED = [
    {"documentId": "first"},
    {"documentId": HASHED},
    {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "first"}}},
]


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("asked", NAMED)
async def test_a_named_document_is_answered(make: Make, asked: dict[str, Any], only: bool) -> None:
    """By POST and by GET, again and again, with or without the text of others allowed."""
    address = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in asked.items()
    }
    async with client_of(make(only=only)) as client:
        for _ in range(3):  # the third time it is planned
            assert (await client.post("/", json=asked)).json() == ANSWER
        assert (await client.get("/", params=address)).json() == ANSWER
        page = {"accept": "text/html, application/json;q=0.5"}
        assert (await client.get("/", params=address, headers=page)).json() == ANSWER


async def test_apollos_manifest_is_read(make: Make) -> None:
    """Its operations by their ids."""
    async with client_of(make(APOLLO)) as client:
        assert (await client.post("/", json={"documentId": "first"})).json() == ANSWER


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"documentId": "nobody"}, 400, "PERSISTED_QUERY_NOT_FOUND"),
        ({"documentId": 5}, 400, "BAD_REQUEST"),
        ({"documentId": ["first"]}, 400, "BAD_REQUEST"),
        ({"documentId": "first", "query": QUERY}, 400, "BAD_REQUEST"),
        (
            {"extensions": {"persistedQuery": {"sha256Hash": "0" * 64}}},
            400,
            "PERSISTED_QUERY_NOT_FOUND",
        ),
        ({"extensions": {"persistedQuery": "first"}}, 400, "BAD_REQUEST"),
        ({"query": "{ symbols { name } }"}, 403, "FORBIDDEN"),
        ({"query": "{ __schema { types { name } } }"}, 403, "FORBIDDEN"),
        ({"query": ["x"]}, 400, "BAD_REQUEST"),
    ],
)
async def test_others_are_refused(
    make: Make, asked: dict[str, Any], status: int, code: str
) -> None:
    """Unknown ids, what is no id, and documents that are not in the manifest, each with a code."""
    async with client_of(make(only=True)) as client:
        answer = await client.post("/", json=asked)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["extensions"]["code"] == code


async def test_without_only_every_document_is_answered(make: Make) -> None:
    """The manifest adds names, and takes nothing away; what it holds may be sent in full too."""
    async with client_of(make()) as client:
        asked = {"query": "{ a: symbols(first: 1) { name } }"}
        assert (await client.post("/", json=asked)).json() == {"data": {"a": [{"name": "S000"}]}}
    async with client_of(make(only=True)) as client:
        assert (await client.post("/", json=ASK)).json() == ANSWER


async def test_a_subscription_may_be_named(make: Make, services: FakeServices) -> None:
    """Over WebSocket; an id of no document fails that operation only."""
    client = Client(make(only=True))
    client.send(INIT)
    assert [await client.receive() for _ in range(2)] == [PROTOCOL, ACK]
    client.send(subscribe("1", {"documentId": "nobody"}))
    told = await client.receive()
    assert (told["type"], told["id"]) == ("error", "1")
    assert told["payload"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
    client.send(subscribe("2", {"query": "subscription { fills { symbol } }"}))
    assert (await client.receive())["payload"][0]["extensions"]["code"] == "FORBIDDEN"
    client.send(subscribe("3", {"documentId": "first"}))
    assert await client.receive() == {"id": "3", "type": "next", "payload": ANSWER}
    assert (await client.receive())["type"] == "complete"
    client.send(subscribe("4", {"documentId": "live"}))
    while not services.hubs.clients:
        client.send({"type": "ping"})
        assert await client.receive() == {"type": "pong"}
    services.push(FakeServices.row("A"))
    row = {"data": {"signals": {"symbol": "A"}}}
    assert await client.receive() == {"id": "4", "type": "next", "payload": row}
    client.send(subscribe("5", {"documentId": 5}))
    assert await client.receive() == 4400


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is neither a JSON object of ids and documents"),
        ("{}", "is neither a JSON object of ids and documents"),
        ({"a": 5}, "is neither a JSON object of ids and documents"),
        ({**APOLLO, "operations": "x"}, "nor a manifest of Apollo"),
        ({**APOLLO, "operations": APOLLO["operations"] * 2}, "each once"),  # type: ignore[operator]  # a list
        ({"a": "{"}, "'a': Syntax Error: "),
        ({"a": "{ nothing }"}, "'a': Cannot query field 'nothing' on type 'Query'."),
        ({"a": "{ symbols { name } } " + "#" * 9 + "\n{ x }"}, "'a': This anonymous operation"),
        ({"sha256:" + "0" * 64: QUERY}, "is not the hash of its document"),
    ],
)
def test_what_is_no_manifest_is_one_line(make: Make, documents: Any, words: str) -> None:
    """The API does not start with documents that it could never answer."""
    with pytest.raises(MisuseError) as caught:
        make(documents)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_must_be_there(services: FakeServices, tmp_path: Path) -> None:
    """To demand documents of a manifest without one would answer nothing at all."""
    for told, words in (
        ({"documents": tmp_path / "none.json"}, "cannot be read: No such file"),
        ({"documents_only": True}, "needs a manifest"),
    ):
        api = services.settings.api.model_copy(update=told)
        services.settings = services.settings.model_copy(update={"api": api})
        with pytest.raises(MisuseError, match=words):
            create(services)
        services.settings = services.settings.model_copy(update={"api": type(api)()})
