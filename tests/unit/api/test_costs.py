"""What an operation may cost: counted by hand here."""

from typing import Any

import pytest
from graphql import GraphQLError, parse

from api.costs import check_cost, cost_of
from api.errors import ApiError
from api.schema import build_schema

SCHEMA = build_schema()
PAGE = 500


def cost(text: str, operation: str | None = None, **variables: Any) -> int:
    """The bound on the values of an answer."""
    data = {"operationName": operation, "variables": variables}
    return cost_of(SCHEMA, parse(text), data, PAGE)


BARS = '{ bars(symbol: "A" %s) { edges { cursor node { open close } } pageInfo { hasNextPage } } }'


E = " { edges { cursor } }"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{ symbol(name: "A") { name } }', 2),
        ('{ symbol(name: "A") { name price { price ts } } }', 5),
        ('{ a: symbol(name: "A") { x: name y: name } b: symbol(name: "B") { name } }', 5),
        ("{ symbols(first: 3) { name price { price } } }", 1 + 3 * 3),
        ("{ symbols { name } }", 1 + PAGE),
        ('{ symbols(names: ["A", "B"]) { name } }', 1 + 2),
        ('{ symbols(names: ["A", "B"], first: 1) { name } }', 1 + 1),
        ("{ symbols(first: 0) { name } }", 1),
        ("{ symbols(first: -5) { name } }", 1),
        ("{ symbols(first: 999999999999) { name } }", 1 + PAGE),
        ("{ symbols(first: null) { name } }", 1 + PAGE),
        ("{ engines { name } }", 1 + 20),
        (BARS % "", 1 + (1 + 100 * 4) + (1 + 1)),
        (BARS % ", first: 10", 1 + (1 + 10 * 4) + (1 + 1)),
        (BARS % ", last: 7", 1 + (1 + 7 * 4) + (1 + 1)),
        (BARS % ", last: 7, first: null", 1 + (1 + 100 * 4) + (1 + 1)),
        ("{ symbols(first: 2) { ...F } } fragment F on Symbol { name price { ts } }", 1 + 2 * 3),
        ("{ ... on Query { ... { symbols(first: 2) { name } } } }", 3),
        ("{ ...A ...A } fragment A on Query { symbols(first: 2) { name } }", 6),
        ('{ bars(symbol: "A", first: 9) { ...F } } fragment F on BarConnection' + E, 11),
        ("subscription { signals { ts action } }", 3),
        ("{ nothing { is here } }", 1),
        ("{ ...Missing }", 0),
        ("{ ...F } fragment F on Query { engines { name } ...F }", 21),
        ("query A { engines { name } } query B { symbols { name } }", 1 + PAGE),
    ],
)  # fmt: skip
def test_values_are_counted(text: str, values: int) -> None:
    """Each field once for each object that it may be asked of."""
    assert cost(text) == values


def test_the_named_operation_counts() -> None:
    """Of several operations only the one that runs."""
    text = "query A { engines { name } } query B { symbols { name } }"
    assert cost(text, "A") == 21
    assert cost(text, "B") == 1 + PAGE
    assert cost(text, "C") == 1 + PAGE  # will be refused for another reason


SIZED = "query ($n: Int %s, $s: [String!]) { symbols(first: $n, names: $s) { name } }"


@pytest.mark.parametrize(
    ("default", "variables", "values"),
    [
        ("", {"n": 3}, 4),
        ("", {"n": 3, "s": ["A"]}, 2),
        ("", {}, 1 + PAGE),
        ("", {"n": None}, 1 + PAGE),
        ("= 5", {}, 6),
        ("= 5", {"n": 2}, 3),
        ("= null", {}, 1 + PAGE),
        ("", {"n": 10**30}, 1 + PAGE),
        ("", {"n": 1e400}, 1 + PAGE),
        ("", {"n": float("nan")}, 1 + PAGE),
        ("", {"n": "5"}, 1 + PAGE),
        ("", {"n": [5]}, 1 + PAGE),
        ("", {"n": True}, 2),
        ("", {"s": "A"}, 1 + PAGE),
    ],
)
def test_variables_are_counted(default: str, variables: dict[str, Any], values: int) -> None:
    """A page length from a variable counts as it will be; one that is none as the longest."""
    assert cost(SIZED % default, **variables) == values


def test_fragments_that_double_cost_little_to_count() -> None:
    """A number beyond all limits is found at once."""
    text = "{ ...F0 } " + " ".join(
        f"fragment F{i} on Query {{ ...F{i + 1} ...F{i + 1} }}" for i in range(180)
    )
    assert cost(text + " fragment F180 on Query { engines { name } }") == 21 * 2**180


def test_what_is_too_much_is_refused() -> None:
    """One value more than allowed."""
    document = parse("{ symbols(first: 9) { name } }")
    check_cost(SCHEMA, document, {}, page_max=PAGE, cost_max=10, memo=None)
    with pytest.raises(GraphQLError) as caught:
        check_cost(SCHEMA, document, {}, page_max=PAGE, cost_max=9, memo=None)
    assert isinstance(caught.value.original_error, ApiError)
    assert str(caught.value.original_error) == "the answer could hold 10 values; 9 are allowed"


def test_what_is_remembered_depends_on_the_sizes() -> None:
    """The same document costs what its variables make of it, however often it is asked."""
    document = parse(SIZED % "")
    memo: dict[Any, int] = {}

    def passes(**variables: Any) -> bool:
        try:
            check_cost(
                SCHEMA, document, {"variables": variables}, page_max=PAGE, cost_max=10, memo=memo
            )
        except GraphQLError:
            return False
        return True

    for _ in range(2):
        assert passes(n=9)
        assert not passes(n=10)
        assert not passes()
        assert passes(s=["A"] * 9)
        assert not passes(s=["A"] * 10)
        assert not passes(n="9")
    for number in range(-1000, 0):
        assert passes(n=number)
    assert len(memo) <= 64
