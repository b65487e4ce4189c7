"""Operations drawn from the schema, and whatever else clients may send: none is a fault of ours."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import httpx
import hypothesis
import pytest
from graphql import ArgumentNode, DocumentNode, StringValueNode, Visitor, print_ast, visit
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis_graphql import Mode, nodes
from hypothesis_graphql import strategies as from_schema

from api.schema import build_schema
from pipeline.settings import Settings
from schemas.blocks import STAGES
from tests.integration.api.conftest import Feed, make_rows, served
from tests.unit.api.test_websocket import INIT, Client

SCHEMA: Final = build_schema()
SHORT: Final = 150  # requests of each kind in `make test`
LONG: Final = {Mode.POSITIVE: 7000, Mode.NEGATIVE: 3000}
# Text that leads somewhere; any other is mostly refused at once.
KNOWN: Final = {"symbol": "A", "name": "A", "interval": "1m", "period": "1h"}
OPTIONAL: Final = {"first", "last", "after", "before", "names", "engines", "from", "to", "asOf"}
TIMES: Final = st.one_of(
    st.integers(0, 100).map("2026-01-05T09:30:00.{:09}Z".format),
    st.builds(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{}".format,
        st.sampled_from([1, 1583, 1677, 1678, 1969, 1970, 2025, 2026, 2262, 2263, 9999]),
        st.integers(0, 13),
        st.integers(0, 32),
        st.integers(0, 24),
        st.integers(0, 60),
        st.integers(0, 61),
        st.sampled_from(["", ".5", ".123456789", ".1234567891", "."]),
        st.sampled_from(["Z", "+01:00", "-23:59", "z", ""]),
    ),
    st.text(max_size=40),
)
SCALARS: Final = {"DateTime": TIMES.map(nodes.String), "BigInt": st.text().map(nodes.String)}


class _Tamed(Visitor):
    """Has half of the arguments make sense: known texts, and optional ones left out."""

    def enter_argument(self, node: ArgumentNode, *_: Any) -> Any:
        """Another argument, or none, where the length of its text is even."""
        if len(print_ast(node.value)) % 2:
            return None
        name = node.name.value
        if name in KNOWN:
            return ArgumentNode(name=node.name, value=StringValueNode(value=KNOWN[name]))
        return self.REMOVE if name in OPTIONAL else None


def text_of(document: DocumentNode) -> str:
    """A document as it is sent."""
    return print_ast(visit(document, _Tamed()))


def operations(mode: Mode) -> st.SearchStrategy[str]:
    """Queries of one root field."""
    assert SCHEMA.query_type is not None
    fields = SCHEMA.query_type.fields
    # A mistake needs an argument to be made in.
    names = sorted(name for name in fields if mode is Mode.POSITIVE or fields[name].args)

    def of_field(name: str) -> st.SearchStrategy[str]:
        return from_schema.queries(
            SCHEMA,
            fields=[name],
            custom_scalars=SCALARS,
            print_ast=text_of,
            mode=mode,
            codec=None,
        )

    return st.sampled_from(names).flatmap(of_field)


@pytest.fixture
async def client(settings: Settings, feed: Feed) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with rows of every stage."""
    rows = {stage: make_rows(stage, "A", 50) for stage in STAGES}
    await feed.put(rows, ["A"])
    async with served(settings) as found:
        yield found


async def judge(client: httpx.AsyncClient, body: Any, seen: Counter[str]) -> None:
    """Send a request: it is answered, or refused as a mistake of the client."""
    answer = await client.post("/graphql", json=body)
    assert answer.status_code < 500, (answer.status_code, answer.text, body)
    result = answer.json()
    codes = {error["extensions"]["code"] for error in result.get("errors", ())}
    assert codes <= {"BAD_REQUEST", "BAD_INPUT", "LIMITED"}, (result, body)
    seen["answered" if result.get("data") else "refused"] += 1


async def run(client: httpx.AsyncClient, mode: Mode, examples: int, *, repeat: bool) -> None:
    """Send so many operations, and see that enough of the valid ones came to data."""
    seen: Counter[str] = Counter()
    loop = asyncio.get_running_loop()

    @hypothesis.settings(
        max_examples=examples,
        derandomize=repeat,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operations(mode))
    def each(text: str) -> None:
        asyncio.run_coroutine_threadsafe(judge(client, {"query": text}, seen), loop).result(60)

    await asyncio.to_thread(each)
    assert seen.total() >= examples
    if mode is Mode.POSITIVE:
        assert seen["answered"] > 0.25 * seen.total(), seen
    print(f"{mode.name}: {dict(seen)}")  # noqa: T201 - a figure of the soak


@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE])
async def test_operations_of_the_schema(client: httpx.AsyncClient, mode: Mode) -> None:
    """Valid operations and ones with a mistake in them are answered without a fault of ours."""
    await run(client, mode, SHORT, repeat=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE])
async def test_ten_thousand_operations(client: httpx.AsyncClient, mode: Mode) -> None:
    """The same with ten thousand others each time."""
    await run(client, mode, LONG[mode], repeat=False)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; x=y"])
async def test_bodies_of_any_kind(client: httpx.AsyncClient, kind: str) -> None:
    """Bytes and JSON that are no request are mistakes of the client, whatever they are."""
    loop = asyncio.get_running_loop()
    leaves = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
    names = st.sampled_from(["query", "variables", "operationName", "extensions", "x"])
    values = st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20
    )
    bodies = st.binary() | values.map(lambda value: json.dumps(value).encode())

    async def send(body: bytes) -> None:
        headers = {"content-type": kind}
        answer = await client.post("/graphql", content=body, headers=headers)
        assert 400 <= answer.status_code < 500 or "errors" in answer.json(), (body, answer.text)
        assert "INTERNAL" not in answer.text

    @hypothesis.settings(max_examples=SHORT, derandomize=True, deadline=None, database=None)
    @given(bodies)
    def each(body: bytes) -> None:
        asyncio.run_coroutine_threadsafe(send(body), loop).result(60)

    await asyncio.to_thread(each)


async def test_messages_of_any_kind(client: httpx.AsyncClient) -> None:
    """A WebSocket that is told anything answers, or closes with a code of the protocol."""
    loop = asyncio.get_running_loop()
    app = cast("Any", client)._transport.app
    ids = st.sampled_from(["1", "2", "", None, 5])
    payloads: st.SearchStrategy[Any] = st.sampled_from(
        [
            {"query": "{ symbols { name } }"},
            {"query": "subscription { signals { ts } }"},
            {"query": "{"},
            {"query": 5},
            {},
            [],
            None,
            "x",
        ]
    )
    words = ["connection_init", "subscribe", "complete", "ping", "pong", "next", "error", None, 7]
    messages = st.one_of(
        st.fixed_dictionaries({"type": st.sampled_from(words), "id": ids, "payload": payloads}),
        st.just(INIT),
        st.text(),
        st.binary(),
    )

    async def send(sent: list[Any]) -> None:
        socket = Client(app, path="/graphql")
        for message in sent:
            socket.send(message)
        for _ in range(20):
            await asyncio.sleep(0)
        codes = []
        while not socket._out.empty():
            event = await socket.receive()
            codes += [event] if isinstance(event, int) else []
            assert "INTERNAL" not in str(event)
        assert set(codes) <= {4400, 4401, 4409, 4429}, sent
        await socket.leave()

    @hypothesis.settings(max_examples=SHORT, derandomize=True, deadline=None, database=None)
    @given(st.lists(messages, max_size=8))
    def each(sent: list[Any]) -> None:
        asyncio.run_coroutine_threadsafe(send(sent), loop).result(60)

    await asyncio.to_thread(each)
