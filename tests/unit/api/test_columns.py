"""The GraphQL types of the stages against the columns of `schemas/blocks.py`."""

import pytest
from graphql import GraphQLEnumType, GraphQLObjectType

from api.names import ENUMS, HISTORY, LATEST, TYPES, camel, field_type
from api.schema import build_schema
from pipeline.cache.latest import KEYS
from schemas.blocks import COLUMNS, STAGES

SCHEMA = build_schema()
TITLES = {
    "ticks": "A tick as the guard let it into the chain.",
    "bars": "A closed bar.",
    "features": "Features at the close of a bar; a null is one that is still warming up.",
    "regimes": "Regime tags at the close of a bar.",
    "predictions": "What the engines say at the close of a bar.",
    "signals": "What to do, published when it changes.",
    "fills": "A paper order that was filled.",
    "equity": "The paper book of an instrument on a fixed clock.",
}
MEANINGS = {"action": "What a signal says", "side": "Who crossed the spread"}


def sdl(stage: str) -> str:
    """The whole file `schemas/graphql/<stage>.graphql` as the columns want it."""
    name = TYPES[stage]
    lines = [f'"{TITLES[stage]}"', f"type {name} {{"]
    for column in COLUMNS[stage]:
        unit = "" if column.unit in {"-", "ns"} else f" [{column.unit}]"
        meaning = column.meaning[0].upper() + column.meaning[1:]
        lines.append(f'  "{meaning}{unit}."')
        lines.append(f"  {camel(column.name)}: {field_type(stage, column)}")
    lines.append("}")
    for column in COLUMNS[stage]:
        if column.kind == "label":
            title = MEANINGS.get(column.name, column.meaning[0].upper() + column.meaning[1:])
            lines += ["", f'"{title}."', f"enum {ENUMS[stage, column.name]} {{"]
            for label in column.labels:
                lines += [f'  "`{label}` in topics and tables."', f"  {label.upper()}"]
            lines.append("}")
    lines += [
        "",
        f'"One row of a {name}Connection."',
        f"type {name}Edge {{",
        '  "Its place, for `after` and `before`."',
        "  cursor: String!",
        '  "The row."',
        f"  node: {name}!",
        "}",
        "",
        f'"A page of history, rows of type {name}."',
        f"type {name}Connection {{",
        '  "The rows in the order of event time."',
        f"  edges: [{name}Edge!]!",
        '  "Where the page stands."',
        "  pageInfo: PageInfo!",
        "}",
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("stage", STAGES)
def test_every_column_is_a_field(stage: str) -> None:
    """A column that is no field, or of another type, fails and is told how to be one."""
    declared = SCHEMA.type_map[TYPES[stage]]
    assert isinstance(declared, GraphQLObjectType)
    found = {name: str(field.type) for name, field in declared.fields.items()}
    wanted = {camel(c.name): field_type(stage, c) for c in COLUMNS[stage]}
    assert list(found.items()) == list(wanted.items()), (
        f"schemas/graphql/{stage}.graphql should read:\n{sdl(stage)}"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_names_are_told_apart(stage: str) -> None:
    """No two columns of a stage share a field name."""
    names = [camel(c.name) for c in COLUMNS[stage]]
    assert len(set(names)) == len(names)


def test_enums_have_the_labels() -> None:
    """The values of an enum are the labels of its column, in upper case."""
    for (stage, name), enum in ENUMS.items():
        (column,) = (c for c in COLUMNS[stage] if c.name == name)
        declared = SCHEMA.type_map[enum]
        assert isinstance(declared, GraphQLEnumType)
        assert {k: v.value for k, v in declared.values.items()} == {
            label.upper(): label for label in column.labels
        }


def test_every_stage_is_served() -> None:
    """Each stage has a type, a latest field named like its cache key, and a history."""
    assert set(TYPES) == set(LATEST) == set(HISTORY) == set(STAGES)
    assert dict(KEYS) == LATEST
    symbol = SCHEMA.type_map["Symbol"]
    assert isinstance(symbol, GraphQLObjectType)
    assert set(LATEST.values()) <= set(symbol.fields)
    assert SCHEMA.query_type is not None
    assert set(HISTORY.values()) <= set(SCHEMA.query_type.fields)
