"""The executable schema: the SDL of `schemas/graphql` with the resolvers of this room."""

from functools import cache
from importlib.resources import files

from ariadne import make_executable_schema
from graphql import GraphQLSchema

from api.names import python_name
from api.resolvers import BINDABLES
from api.rules import guard


def read_sdl() -> list[str]:
    """The text of every `.graphql` file, in the order of their names."""
    folder = files("schemas") / "graphql"
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [entry.read_text("utf-8") for entry in entries if entry.name.endswith(".graphql")]


@cache
def build_schema() -> GraphQLSchema:
    """The schema that the server executes; its fields ask for their roles.

    Made once a process, as nobody changes it.
    """
    schema = make_executable_schema(read_sdl(), *BINDABLES, convert_names_case=python_name)
    guard(schema)
    return schema
