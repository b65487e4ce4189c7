"""Roles by field: each field of the schema has a rule, and each rule is obeyed."""

from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLInputType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLString,
    get_named_type,
    is_list_type,
    is_required_argument,
)

from api.access import Access
from api.principals import Principal
from api.rules import RULES, fields_of, guard
from api.schema import build_schema
from pipeline.settings import ApiSettings
from pipeline.store.keys import Role
from tests.unit.api.conftest import create
from tests.unit.api.test_websocket import INIT, Client, subscribe

SCHEMA = build_schema()
PROTECTED = sorted(place for place, role in RULES.items() if role is not Role.READER)
ROOTS = {"Query", "Mutation", "Subscription"}


class As(Access):
    """Lets everybody in as one of a role."""

    def __init__(self, role: Role) -> None:
        super().__init__(ApiSettings(), None)  # type: ignore[arg-type]  # reads no keys
        self._role = role

    def admit(self, credential: str | None) -> Principal:
        """The principal."""
        del credential
        return Principal("key:test", self._role)


def test_every_field_has_a_rule_and_every_rule_a_field() -> None:
    """A new field must be given its role, a rule of a field that is gone must go."""
    assert set(RULES) == {place for place, _ in fields_of(SCHEMA)}


def test_a_field_without_a_rule_is_not_served() -> None:
    """Adding a field to a type ends the start until it has a rule."""
    schema = build_schema.__wrapped__()  # one of its own
    query = schema.type_map["Query"]
    assert isinstance(query, GraphQLObjectType)
    query.fields["secrets"] = GraphQLField(GraphQLString)
    with pytest.raises(ValueError, match=r"Query\.secrets has no rule"):
        guard(schema)


def test_mutations_take_an_operator() -> None:
    """No mutation is for readers."""
    for (name, field), role in RULES.items():
        assert name != "Mutation" or role.covers(Role.OPERATOR), field


def value_of(kind: GraphQLInputType) -> str:
    """Some value of a type, as text of a document."""
    if isinstance(kind, GraphQLNonNull):
        return value_of(kind.of_type)
    if is_list_type(kind):
        return "[]"
    named = get_named_type(kind).name
    return {"Int": "1", "BigInt": "1", "Float": "1", "Boolean": "true"}.get(named, '"x"')


def operation(type_name: str, name: str) -> str:
    """An operation that selects a root field, with its required arguments and a leaf of it."""
    kind = SCHEMA.type_map[type_name]
    assert isinstance(kind, GraphQLObjectType)
    field = kind.fields[name]
    arguments = ", ".join(
        f"{key}: {value_of(argument.type)}"
        for key, argument in field.args.items()
        if is_required_argument(argument)
    )
    inner = get_named_type(field.type)
    selection = "{ __typename }" if isinstance(inner, GraphQLObjectType) else ""
    return f"{type_name.lower()} {{ {name}{f'({arguments})' if arguments else ''} {selection} }}"


def lower(role: Role) -> Role:
    """The role just below."""
    order = list(Role)
    return order[order.index(role) - 1]


@pytest.mark.parametrize("place", [place for place in PROTECTED if place[0] in ROOTS], ids=".".join)
async def test_a_role_too_low_is_refused(services: Any, place: tuple[str, str]) -> None:
    """Each protected root field answers FORBIDDEN to the role just below its own."""
    client = Client(create(services, As(lower(RULES[place]))))
    client.send(INIT)
    client.send(subscribe("1", {"query": operation(*place)}))
    answer = [await client.receive() for _ in range(3)][-1]
    payload = answer["payload"]
    errors = payload if isinstance(payload, list) else payload["errors"]
    assert errors[0]["extensions"] == {"code": "FORBIDDEN"}
    assert errors[0]["message"] == (
        f"this takes the role {RULES[place]}, yours is {lower(RULES[place])}"
    )
    assert not services.calls
    await client.leave()


@pytest.mark.parametrize(
    "place", [place for place in PROTECTED if place[0] not in ROOTS], ids=".".join
)
def test_protected_fields_of_types_ask_as_well(place: tuple[str, str]) -> None:
    """Where a protected type is reached another way, its fields refuse by themselves."""
    kind = SCHEMA.type_map[place[0]]
    assert isinstance(kind, GraphQLObjectType)
    assert kind.fields[place[1]].resolve.__name__ == "guarded"


async def test_the_role_itself_and_higher_ones_pass(services: Any) -> None:
    """An operator may read runs, an admin too."""
    services.postgres_fails = None
    for role in (Role.OPERATOR, Role.ADMIN):
        client = Client(create(services, As(role)))
        client.send(INIT)
        client.send(subscribe("1", {"query": "{ runs { service } }"}))
        answer = [await client.receive() for _ in range(3)][-1]
        assert answer["payload"]["errors"][0]["extensions"]["code"] != "FORBIDDEN"
        await client.leave()
