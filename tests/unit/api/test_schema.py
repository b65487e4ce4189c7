"""The schema as a whole."""

from pathlib import Path

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLScalarType,
    print_schema,
    specified_scalar_types,
)

from api.schema import build_schema

SNAPSHOT = Path(__file__).parents[2] / "fixtures" / "schema.graphql"


def test_the_schema_is_the_committed_one() -> None:
    """A change of the schema shows in the diff of its snapshot."""
    assert print_schema(build_schema()) + "\n" == SNAPSHOT.read_text("utf-8"), (
        "if the change is meant: python -c 'from graphql import print_schema; from api.schema"
        " import build_schema; print(print_schema(build_schema()))' > tests/fixtures/schema.graphql"
    )


def test_everything_is_described() -> None:
    """Every type, field, argument and value of ours has a description."""
    silent = []
    for name, kind in build_schema().type_map.items():
        if name.startswith("__") or name in specified_scalar_types:
            continue
        silent += [] if kind.description else [name]
        if isinstance(kind, GraphQLObjectType):
            for field_name, field in kind.fields.items():
                silent += [] if field.description else [f"{name}.{field_name}"]
                silent += [
                    f"{name}.{field_name}({argument})"
                    for argument, declared in field.args.items()
                    if not declared.description
                ]
        elif isinstance(kind, GraphQLEnumType):
            silent += [f"{name}.{v}" for v, value in kind.values.items() if not value.description]
        elif isinstance(kind, GraphQLInputObjectType):
            silent += [f"{name}.{v}" for v, value in kind.fields.items() if not value.description]
        else:
            assert isinstance(kind, GraphQLScalarType)
    assert silent == []
