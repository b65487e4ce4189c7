"""Depth, length and the memory of documents."""

import pytest
from graphql import GraphQLError, get_introspection_query, parse, validate

from api.limits import MAX_DEPTH, DepthRule, Documents
from api.schema import build_schema

SCHEMA = build_schema()


def faults(text: str) -> list[str]:
    """What the depth rule says."""
    return [error.message for error in validate(SCHEMA, parse(text), [DepthRule])]


def nested(depth: int) -> str:
    """Selections of this depth."""
    return "{ a " * depth + "}" * depth


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (nested(MAX_DEPTH), None),
        (nested(MAX_DEPTH + 1), MAX_DEPTH + 1),
        (f"{{ a {{ ... on X {nested(MAX_DEPTH - 1)} }} }}", None),
        (f"{{ a {{ ... on X {nested(MAX_DEPTH)} }} }}", MAX_DEPTH + 1),
        (f"{{ a {{ ...F }} }} fragment F on X {nested(MAX_DEPTH)}", MAX_DEPTH + 1),
        ("{ a { ...F } } fragment F on X { b { ...F } }", None),
        ("{ ...Missing }", None),
        (f"query A {{ a }} query B {nested(MAX_DEPTH + 2)}", MAX_DEPTH + 2),
    ],
)
def test_depth_is_counted_through_fragments(text: str, depth: int | None) -> None:
    """An operation deeper than the limit is reported with its depth, others are not."""
    wanted = [f"The operation is {depth} fields deep; {MAX_DEPTH} are allowed."]
    assert faults(text) == (wanted if depth else [])


def test_many_fragments_cost_little() -> None:
    """Fragments that double at each step are counted once each."""
    steps = 60
    text = "{ ...F0 } " + " ".join(
        f"fragment F{i} on X {{ a {{ ...F{i + 1} ...F{i + 1} }} }}" for i in range(steps)
    )
    assert faults(text)[0].startswith(f"The operation is {steps} fields deep")


def test_introspection_is_not_too_deep() -> None:
    """The introspection query of the usual tools passes."""
    assert faults(get_introspection_query()) == []


def test_long_documents_are_refused() -> None:
    """A document of more than 2000 tokens is not parsed to its end."""
    documents = Documents(hide_suggestions=False)
    with pytest.raises(GraphQLError, match="more than 2000 tokens"):
        documents.parse(None, {"query": "{" + " a" * 2000 + "}"})


def test_documents_are_remembered() -> None:
    """The same text is parsed and validated once, and the oldest are forgotten."""
    documents = Documents(hide_suggestions=False)
    first = documents.parse(None, {"query": "{ nothing }"})
    assert documents.parse(None, {"query": "{ nothing }"}) is first
    errors = documents.validate(SCHEMA, first)
    assert documents.validate(SCHEMA, first) is errors
    assert errors
    for place in range(1000):
        documents.parse(None, {"query": f"{{ field{place} }}"})
    assert documents.parse(None, {"query": "{ nothing }"}) is not first
    assert len(documents._errors) == len(documents._parsed) == 512


def test_suggestions_can_be_hidden() -> None:
    """Where introspection is off, mistakes do not reveal names either."""
    text = {"query": "{ symbolz { name } }"}
    for hide in (True, False):
        documents = Documents(hide_suggestions=hide)
        (error,) = documents.validate(SCHEMA, documents.parse(None, text))
        assert ("Did you mean" in error.message) is not hide
