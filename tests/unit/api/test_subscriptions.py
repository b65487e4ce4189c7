"""What is pushed: each field with the rows of its stage, of the symbols that were named."""

from typing import Any

import pytest
from graphql import GraphQLObjectType

from api.names import FOLLOWED, HISTORY, TYPES, camel
from api.rules import RULES
from api.schema import build_schema
from api.subscriptions import NAMES_MAX
from pipeline.store.keys import Role
from schemas.blocks import COLUMNS
from tests.unit.api.conftest import HEAD
from tests.unit.api.test_websocket import ACK, INIT, Client, clients_are, subscribe

SCHEMA = build_schema()


def whole(stage: str) -> dict[str, Any]:
    """A row with a value in each column."""
    row: dict[str, Any] = {column.name: 7 for column in COLUMNS[stage]}
    for column in COLUMNS[stage]:
        if column.kind == "label":
            row[column.name] = column.labels[-1]
        elif column.kind == "float64":
            row[column.name] = 7.5
    return {**row, **HEAD, "symbol": "A", "offset": 2**60}


async def test_each_stage_has_its_rows(endpoint: Any, services: Any) -> None:
    """Every column of a row comes as its field; rows of other stages and symbols do not."""
    client = Client(endpoint)
    client.send(INIT)
    assert [await client.receive() for _ in range(2)][-1] == ACK
    for stage, name in FOLLOWED.items():
        fields = " ".join(camel(column.name) for column in COLUMNS[stage])
        text = f'subscription {{ {name}(symbols: ["A"]) {{ {fields} }} }}'
        client.send(subscribe(stage, {"query": text}))
    await clients_are(services, len(FOLLOWED))
    for stage, name in FOLLOWED.items():
        row = whole(stage)
        services.push({**row, "symbol": "B"}, stage)
        services.push(row, stage)
        answer = await client.receive()
        assert (answer["id"], answer["payload"].get("errors")) == (stage, None)
        found = answer["payload"]["data"][name]
        assert found["symbol"] == "A"
        assert found["offset"] == str(2**60)
        for column in COLUMNS[stage]:
            if column.kind == "float64":
                assert found[camel(column.name)] == 7.5
            elif column.kind == "label":
                assert found[camel(column.name)] == column.labels[-1].upper()
    await client.leave()
    assert services.hubs.clients == 0


def test_the_fields_are_those_of_the_histories() -> None:
    """A field of Subscription has the name and the type of the history, and is for readers."""
    kind = SCHEMA.subscription_type
    assert isinstance(kind, GraphQLObjectType)
    for stage, name in FOLLOWED.items():
        assert name == HISTORY[stage]
        assert str(kind.fields[name].type) == f"{TYPES[stage]}!"
        assert RULES["Subscription", name] is Role.READER


@pytest.mark.parametrize("field", FOLLOWED.values())
async def test_symbols_are_bounded(endpoint: Any, services: Any, field: str) -> None:
    """Too many names, or one that can be no symbol, are refused, and nothing is left behind."""
    client = Client(endpoint)
    client.send(INIT)
    assert [await client.receive() for _ in range(2)][-1] == ACK
    text = f"subscription($s: [String!]) {{ {field}(symbols: $s) {{ ts }} }}"
    for names in ([str(n) for n in range(NAMES_MAX + 1)], ["A", ""]):
        client.send(subscribe("1", {"query": text, "variables": {"s": names}}))
        answer = await client.receive()
        assert (answer["id"], answer["type"]) == ("1", "error")
        assert answer["payload"][0]["extensions"] == {"code": "BAD_INPUT"}
    client.send(subscribe("1", {"query": text, "variables": {"s": names[:1] * NAMES_MAX}}))
    await clients_are(services, 1)
    await client.leave()
