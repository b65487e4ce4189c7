"""Requests that are sent again: answered by a plan, with the bytes of the executor."""

from typing import Any

import httpx
import orjson
import pytest

from api.transport import HTTPHandler
from pipeline.store.keys import Role
from schemas.blocks import STAGES
from tests.unit.api.conftest import FakeServices, create
from tests.unit.api.test_access import KEY, Door, record
from tests.unit.api.test_rates import Bucket
from tests.unit.api.test_rules import As

QUERY = "query ($n: [String!]) { symbols(names: $n) { name staleness price { symbol price ts } } }"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What went through the executor."""
    found: list[Any] = []
    run = HTTPHandler.run

    async def counted(self: HTTPHandler, request: Any, data: Any) -> Any:
        found.append(data)
        return await run(self, request, data)

    monkeypatch.setattr(HTTPHandler, "run", counted)
    return found


def followed(services: FakeServices, place: int = 0, **prices: float) -> None:
    """The mirror has these prices, of rows of a place."""
    services.lives.lives, services.lives.seconds = dict.fromkeys(STAGES, 1), 0.1
    for name, price in prices.items():
        row = {**services.row(name), "offset": place, "price": price}
        mirror = services.mirror
        mirror.keep("ticks", {name: row}, mirror.begin("ticks"), {})


def client_of(app: Any) -> httpx.AsyncClient:
    """A client of an application, without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def asked(client: httpx.AsyncClient, query: str = QUERY, **variables: Any) -> Any:
    """The answer."""
    return await client.post("/", json={"query": query, "variables": variables})


async def test_who_polls_is_answered_by_a_plan(services: FakeServices, runs: list[Any]) -> None:
    """From the third time on, with the same bytes, and with the rows of now."""
    followed(services, S000=1.5, S001=2.5)
    async with client_of(create(services)) as client:
        answers = [await asked(client, n=["S000", "S001"]) for _ in range(5)]
        assert len(runs) == 2
        assert len({answer.content for answer in answers}) == 1
        assert len({str(answer.headers) for answer in answers}) == 1
        prices = [one["price"]["price"] for one in answers[0].json()["data"]["symbols"]]
        assert prices == [1.5, 2.5]
        followed(services, 1, S000=3.5)
        answer = (await asked(client, n=["S000", "S001"])).json()
        assert [one["price"]["price"] for one in answer["data"]["symbols"]] == [3.5, 2.5]
        assert len(runs) == 2
        await asked(client, n=["S001", "S000"])
        assert len(runs) == 3


async def test_what_a_plan_cannot_answer_is_executed(
    services: FakeServices, runs: list[Any]
) -> None:
    """A row that has to be read, a value that does not fit: as if nothing were kept."""
    followed(services, S000=1.5)
    async with client_of(create(services)) as client:
        for _ in range(3):
            await asked(client, n=["S000"])
        assert len(runs) == 2
        followed(services, 1, S000=float("inf"))
        for _ in range(2):
            answer = (await asked(client, n=["S000"])).json()
            assert answer["data"]["symbols"][0]["price"] == {
                "symbol": "S000", "price": None, "ts": "2023-11-14T22:13:20.123456789Z",
            }  # fmt: skip
            assert [one["message"] for one in answer["errors"]] == ["Internal error"]
        assert len(runs) == 4
        followed(services, 2, S000=1.5)
        services.lives.seconds = 60.0
        services.cache_away = True
        answer = (await asked(client, n=["S000"])).json()
        assert answer["extensions"] == {"cache": "unavailable"}
        assert answer["data"]["symbols"][0]["price"]["price"] == 1.5
        assert len(runs) == 5


@pytest.mark.parametrize(
    ("query", "planned"),
    [
        ("{ symbols { name } }", False),  # whether they are all has to be asked
        ('{ symbol(name: "S000") { name price { price } } }', True),
        ('{ symbol(name: "nobody") { name } }', False),
        ('{ a: symbol(name: "S000") { name } b: symbols(names: ["S001"]) { name } }', True),
        ('{ symbol(name: "S000") { name dataQuality { count } } }', False),
        ('{ bars(symbol: "S000", first: 1) { edges { cursor } } }', False),
        ('{ __typename symbol(name: "S000") { name } }', False),
        ('query ($x: Boolean = true) { symbol(name: "S000") { name @skip(if: $x) } }', True),
        ('{ symbol(name: "") { name } }', False),
    ],
)
async def test_what_can_be_planned(
    services: FakeServices, runs: list[Any], query: str, planned: bool
) -> None:
    """Latest rows of known symbols; every answer is the one of the first time."""
    followed(services, S000=1.5, S001=2.5)
    async with client_of(create(services)) as client:
        first = orjson.loads((await asked(client, query)).content)
        for _ in range(4):
            again = orjson.loads((await asked(client, query)).content)
            for one in again.get("errors", ()):
                one["extensions"].pop("id", None)
            for one in first.get("errors", ()):
                one["extensions"].pop("id", None)
            assert again == first
    assert len(runs) == (2 if planned else 5)


async def test_every_request_is_let_in_by_itself(services: FakeServices, runs: list[Any]) -> None:
    """Neither a key that was revoked nor one request too many meets a plan."""
    followed(services, S000=1.5)
    door = Door(record())
    await door.look()
    headers = {"authorization": f"Bearer {KEY}"}
    async with client_of(create(services, door.access)) as client:
        client.headers.update(headers)
        for _ in range(4):
            assert (await asked(client, n=["S000"])).status_code == 200
        door.keys = {}
        await door.look()
        assert (await asked(client, n=["S000"])).status_code == 401
    assert len(runs) == 2
    async with client_of(create(services, As(Role.READER), Bucket(4).lease)) as client:
        found = [(await asked(client, n=["S000"])).status_code for _ in range(5)]
    assert found == [200, 200, 200, 200, 429]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_bytes_of_another_type_meet_no_plan(services: FakeServices, kind: str) -> None:
    """What a page of another origin may send without asking is refused as it was."""
    followed(services, S000=1.5)
    async with client_of(create(services)) as client:
        body = orjson.dumps({"query": QUERY, "variables": {"n": ["S000"]}})
        json = {"content-type": "application/json"}
        statuses = [
            (await client.post("/", content=body, headers=headers)).status_code
            for headers in (json, json, json, {"content-type": kind})
        ]
    assert statuses == [200, 200, 200, 415]
