"""GraphQL over HTTP: media types, status codes, limits, batches of reads."""

from typing import Any

import httpx
import pytest

from api.errors import ApiError, Code
from api.transport import GRAPHQL, JSON, negotiate

ASK = {"query": "{ symbols(first: 1) { name } }"}
ANSWER = {"data": {"symbols": [{"name": "S000"}]}}


def client_of(app: Any) -> httpx.AsyncClient:
    """A client of an application, without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        (GRAPHQL, GRAPHQL),
        ("Application/GraphQL-Response+JSON; charset=utf-8", GRAPHQL),
        (f"{GRAPHQL}, {JSON};q=0.9", GRAPHQL),
        (f"{JSON};q=0.5, {GRAPHQL};q=0.9", GRAPHQL),
        (f"{GRAPHQL};q=0, {JSON}", JSON),
        (f"{JSON};q=x", None),
        ("text/html", None),
    ],
)
def test_the_media_type_is_negotiated(accept: str, kind: str | None) -> None:
    """The first of the client's best types that we know is taken."""
    assert negotiate(accept) == kind


@pytest.mark.parametrize("kind", [JSON, GRAPHQL])
@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON;charset=UTF-8"])
async def test_a_query_is_answered(endpoint: Any, kind: str, content_type: str) -> None:
    """POST and GET answer 200 in the type asked for, whatever the case of its letters."""
    headers = {"accept": kind, "content-type": content_type}
    async with client_of(endpoint) as client:
        posted = await client.post("/", json=ASK, headers=headers)
        got = await client.get("/", params=ASK, headers={"accept": kind})
    for answer in (posted, got):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.json() == ANSWER


REQUEST_ERRORS: list[dict[str, Any]] = [
    {"query": "{"},
    {"query": "{ nothing }"},
    {"query": "query ($n: String!) { symbol(name: $n) { name } }", "variables": {"n": 5}},
    {"query": '{ bars(symbol: "A", from: "yesterday") { edges { cursor } } }'},
    {"query": "{ a: symbols { name } }", "operationName": "Missing"},
    {"query": "subscription { signals { symbol } }"},
    {"query": "{" + " a" * 2000 + "}"},
    {"query": "{ " + "a { " * 100 + "b" + " }" * 101},
    {
        "query": "{ ...F0 } "
        + "".join(f"fragment F{i} on Query {{ ...F{i + 1} }}" for i in range(300))
    },
    {"query": '{ symbol(name: "\\ud800") { nothing } }', "variables": {}},
]


@pytest.mark.parametrize("body", REQUEST_ERRORS)
async def test_request_errors_have_the_right_status(endpoint: Any, body: dict[str, Any]) -> None:
    """Before execution an error is 400 in the new media type and 200 in the old, without data."""
    async with client_of(endpoint) as client:
        for kind, status in ((GRAPHQL, 400), (JSON, 200)):
            answer = await client.post("/", json=body, headers={"accept": kind})
            assert answer.status_code == status
            assert set(answer.json()) == {"errors"}
            assert answer.json()["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}


@pytest.mark.parametrize("kind", [JSON, GRAPHQL])
@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"query": 5}', "application/json", 400),
        (b'{"query": "{a}", "variables": []}', "application/json", 400),
        (b'{"query": "\\ud800"}', "application/json", 400),
        (b"query=x", "application/x-www-form-urlencoded", 415),
        (b"", "", 415),
        (b" " * (1024 * 1024 + 1), "application/json", 413),
    ],
)
async def test_bodies_that_are_no_request(
    endpoint: Any, kind: str, content: bytes, content_type: str, status: int
) -> None:
    """A body that is no GraphQL request has a 4xx status in either type, and says why."""
    headers = {"accept": kind, "content-type": content_type}
    async with client_of(endpoint) as client:
        answer = await client.post("/", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["message"]


async def test_methods_and_types_that_are_not_taken(endpoint: Any) -> None:
    """Other methods are told the right ones; a client that takes no JSON gets 406."""
    async with client_of(endpoint) as client:
        assert (await client.put("/", json=ASK)).status_code == 405
        assert (await client.options("/")).headers["allow"] == "GET, POST, OPTIONS"
        assert (await client.get("/", params=ASK, headers={"accept": "x/y"})).status_code == 406


async def test_the_page_is_for_development_only(endpoint: Any, production: Any) -> None:
    """A browser finds the page and introspection in development, and neither in production."""
    schema = {"query": "{ __schema { types { name } } }"}
    async with client_of(endpoint) as client:
        page = await client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
        assert page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text
        assert "https://" not in page.text
        assert "data" in (await client.post("/", json=schema)).json()
    async with client_of(production) as client:
        page = await client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
        assert page.status_code == 400
        refused = (await client.post("/", json=schema)).json()
        assert "data" not in refused
        mistake = (await client.post("/", json={"query": "{ symbolz }"})).json()
        assert "mean" not in mistake["errors"][0]["message"]


async def test_latest_rows_are_read_in_one_call_per_stage(endpoint: Any, services: Any) -> None:
    """Fifty symbols times two stages, one of them twice, are two calls to the cache."""
    query = "{ symbols { price { price } again: price { ts } bar { close } } }"
    async with client_of(endpoint) as client:
        answer = (await client.post("/", json={"query": query})).json()
    assert answer["data"]["symbols"][-1] == {
        "price": {"price": 1.5},
        "again": {"ts": "2023-11-14T22:13:20.123456789Z"},
        "bar": {"close": 2.5},
    }
    assert sorted(services.calls) == [("cache", "bars", 50), ("cache", "ticks", 50)]
    assert "extensions" not in answer


async def test_what_the_cache_lacks_comes_from_postgres(endpoint: Any, services: Any) -> None:
    """Only the symbols that the cache lacks are asked of Postgres, all at once."""
    services.cached_symbols = {"S000"}
    query = "{ symbols { price { price } } }"
    async with client_of(endpoint) as client:
        answer = (await client.post("/", json={"query": query})).json()
    assert len(answer["data"]["symbols"]) == 50
    assert services.calls == [("cache", "ticks", 50), ("postgres", "ticks", 49)]


async def test_a_cache_that_is_away_is_said(endpoint: Any, services: Any) -> None:
    """Without the cache the rows come from Postgres, and the response says so."""
    services.cache_away = True
    query = '{ symbol(name: "S001") { price { offset id } } }'
    async with client_of(endpoint) as client:
        answer = (await client.post("/", json={"query": query})).json()
    assert answer == {
        "data": {"symbol": {"price": {"offset": "1152921504606846976", "id": None}}},
        "extensions": {"cache": "unavailable"},
    }


async def test_what_is_cached_is_served_without_postgres(endpoint: Any, services: Any) -> None:
    """With Postgres away the cached rows are there, and the others say what is wrong."""
    services.cached_symbols = {"S000"}
    services.postgres_fails = ApiError(Code.UNAVAILABLE, "Postgres is away")
    query = (
        '{ a: symbol(name: "S000") { price { price } } b: symbol(name: "S001") { price { ts } } }'
    )
    async with client_of(endpoint) as client:
        answer = (await client.post("/", json={"query": query})).json()
    assert answer["data"] == {"a": {"price": {"price": 1.5}}, "b": {"price": None}}
    (error,) = answer["errors"]
    assert (error["message"], error["path"]) == ("Postgres is away", ["b", "price"])
    assert error["extensions"] == {"code": "UNAVAILABLE"}


async def test_unknown_faults_show_nothing(endpoint: Any, services: Any) -> None:
    """A fault in a resolver is an internal error with an id; data null is no request error."""
    services.postgres_fails = RuntimeError("postgresql://user:password@host")
    async with client_of(endpoint) as client:
        answer = await client.post("/", json=ASK, headers={"accept": GRAPHQL})
    assert answer.status_code == 200
    assert answer.json()["data"] is None
    assert answer.json()["errors"][0]["message"] == "Internal error"
    assert "password" not in answer.text


@pytest.mark.parametrize("name", ["", "A B", "A\\u0000", "\\u00e4", "A" * 33])
async def test_names_that_cannot_be_symbols(endpoint: Any, services: Any, name: str) -> None:
    """A name that no symbol can have is the client's mistake and troubles no store."""
    async with client_of(endpoint) as client:
        body = {"query": f'{{ symbol(name: "{name}") {{ name }} }}'}
        answer = (await client.post("/", json=body)).json()
    assert answer["errors"][0]["extensions"] == {"code": "BAD_INPUT"}
    assert services.calls == []
