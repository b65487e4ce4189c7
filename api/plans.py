"""How rows are answered in one go: a selection of fields that only read keys of a dict, as a plan.

The executor of graphql-core asks some ten questions of each value: may it be awaited, is it a list,
what is its type. Of rows the answers are known from the schema. A plan does the rest, for values
that are as they should be; for any other one it raises `NotPlainError`, and the executor answers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ariadne.resolvers import is_default_resolver
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLFloat,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLString,
    Undefined,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)
from graphql.execution.collect_fields import FieldDetails, FieldDetailsList, GroupedFieldSet

from api.context import Context
from api.mirror import MISSING
from api.names import python_name

Row = dict[str, Any]
Write = Callable[[Any], Any]
Plan = Callable[[Any, Context], Row]
RootPlan = Callable[[Context], Row]
Nested = Callable[[GraphQLObjectType, FieldDetailsList], Plan | None]
Arguments = Callable[[GraphQLField, FieldDetails], dict[str, Any]]
_INT: Final = range(-(2**31), 2**31)


class NotPlainError(Exception):
    """A value that the executor has to judge."""


@dataclass(frozen=True, slots=True)
class LatestRow:
    """The resolver of a latest row of a symbol."""

    stage: str

    def __call__(self, symbol: Row, info: Any) -> Any:
        """The row, or what gives it."""
        return info.context.latest.load(self.stage, symbol["name"])


@dataclass(frozen=True, slots=True)
class AtOnce:
    """A resolver of a field of `Query` that often knows its rows without asking a server."""

    now: Callable[..., Any]
    """Of the context and the arguments: a row, None, a list of rows, or MISSING."""
    later: Callable[..., Any]
    """The same, to be awaited."""

    def __call__(self, _source: None, info: Any, **arguments: Any) -> Any:
        """The rows, or what gives them."""
        found = self.now(info.context, **arguments)
        return self.later(info.context, **arguments) if found is MISSING else found


@dataclass(frozen=True, slots=True)
class OfRequest:
    """The resolver of a value that is the same for all rows of a request."""

    get: Callable[[Context], Any]

    def __call__(self, _row: Row, info: Any) -> Any:
        """The value."""
        return self.get(info.context)


@dataclass(frozen=True, slots=True)
class OrNone:
    """The resolver of an integer column that holds -1 for null."""

    column: str

    def __call__(self, row: Row, _info: Any) -> int | None:
        """The number, if there is one."""
        value: int = row[self.column]
        return None if value < 0 else value


@dataclass(frozen=True, slots=True)
class _Parts:
    """The fields of a plan by what is to be done for them, each with its name in the answer."""

    numbers: list[tuple[str, str]] = field(default_factory=list)
    leaves: list[tuple[str, str, Write]] = field(default_factory=list)
    rows: list[tuple[str, str, bool, Plan]] = field(default_factory=list)
    latest: list[tuple[str, str, Plan]] = field(default_factory=list)
    shared: list[tuple[str, Callable[[Context], Any], Write]] = field(default_factory=list)

    def add_leaf(self, name: str, key: str | None, one: GraphQLField) -> bool:
        """A value; false when it is neither a key of the row nor of the request."""
        kind, required = _unwrapped(one.type)
        if isinstance(one.resolve, OfRequest):
            write = _writer(kind, one, required=required)
            self.shared.append((name, one.resolve.get, write))
        elif key is None:
            return False
        elif kind is GraphQLFloat and not required:
            self.numbers.append((name, key))
        else:
            self.leaves.append((name, key, _writer(kind, one, required=required)))
        return True

    def add_object(self, name: str, key: str | None, one: GraphQLField, below: Plan) -> bool:
        """An object with fields of its own; false when it is no key of the row."""
        required = is_non_null_type(one.type)
        if isinstance(one.resolve, LatestRow) and not required:
            self.latest.append((name, one.resolve.stage, below))
        elif key is not None:
            self.rows.append((name, key, required, below))
        else:
            return False
        return True

    def write_values(self, row: Row, found: Row) -> None:
        """Fill in the values."""
        for name, key in self.numbers:
            value = row.get(key)
            if type(value) is float and value - value == 0.0:  # neither infinite nor NaN
                found[name] = value
            elif value is not None:
                raise NotPlainError
        for name, key, write in self.leaves:
            found[name] = write(row.get(key))

    def write_objects(self, row: Row, found: Row, context: Context) -> None:
        """Fill in the objects."""
        for name, key, required, below in self.rows:
            value = row.get(key)
            if value is not None:
                found[name] = below(value, context)
            elif required:
                raise NotPlainError
        for name, stage, below in self.latest:
            value = context.services.mirror.get(stage, row["name"])
            if value is MISSING:
                raise NotPlainError
            if value is not None:
                found[name] = below(value, context)
        for name, get, write in self.shared:
            found[name] = write(get(context))


def plan_of(kind: GraphQLObjectType, grouped: GroupedFieldSet, nested: Nested) -> Plan | None:
    """What answers these fields of an object; None where one of them is more than a key of it.

    `nested` gives the plan of the fields below an object.
    """
    if kind.is_type_of is not None:
        return None
    parts = _Parts()
    blank: Row = dict.fromkeys(grouped)
    for name, details in grouped.items():
        asked = details[0].node.name.value
        if asked == "__typename":
            blank[name] = kind.name
            continue
        one = kind.fields.get(asked)
        if one is None or one.args:
            return None
        key = _key(one, asked)
        inner, _ = _unwrapped(one.type)
        if is_leaf_type(inner):
            added = parts.add_leaf(name, key, one)
        else:
            below = nested(inner, details) if isinstance(inner, GraphQLObjectType) else None
            added = below is not None and parts.add_object(name, key, one, below)
        if not added:
            return None

    def answer(row: Any, context: Context) -> Row:
        if type(row) is not dict:
            raise NotPlainError
        found = blank.copy()
        parts.write_values(row, found)
        if parts.rows or parts.latest or parts.shared:
            parts.write_objects(row, found, context)
        return found

    return answer


def root_plan_of(
    kind: GraphQLObjectType, grouped: GroupedFieldSet, nested: Nested, arguments: Arguments
) -> RootPlan | None:
    """What answers a whole query; None where a field of it may have to wait by its nature."""
    fields: list[tuple[str, AtOnce, dict[str, Any], Plan, bool]] = []
    for name, details in grouped.items():
        one = kind.fields.get(details[0].node.name.value)
        if one is None or not isinstance(one.resolve, AtOnce):
            return None
        inner: Any = _unwrapped(one.type)[0]
        is_list = is_list_type(inner)
        if is_list:
            inner = _unwrapped(inner.of_type)[0]
        below = nested(inner, details) if isinstance(inner, GraphQLObjectType) else None
        if below is None:
            return None
        fields.append((name, one.resolve, arguments(one, details[0]), below, is_list))

    def answer(context: Context) -> Row:
        found: Row = {}
        for name, resolve, given, below, is_list in fields:
            rows = resolve.now(context, **given)
            if is_list and type(rows) is list:
                found[name] = [below(row, context) for row in rows]
            else:
                found[name] = below(rows, context)
        return found

    return answer


def _unwrapped(kind: GraphQLOutputType) -> tuple[GraphQLOutputType, bool]:
    return (kind.of_type, True) if is_non_null_type(kind) else (kind, False)


def _key(one: GraphQLField, name: str) -> str | None:
    """The key of the dict that a field is."""
    if isinstance(one.resolve, OrNone):
        return one.resolve.column
    return python_name(name) if is_default_resolver(one.resolve) else None


def _writer(kind: Any, one: GraphQLField, *, required: bool) -> Write:
    plain = _plain_writer(kind)
    lacks = isinstance(one.resolve, OrNone)

    def write(value: Any) -> Any:
        if value is None or (lacks and value < 0):
            if required or (lacks and value is None):
                raise NotPlainError
            return None
        found = plain(value)
        if found is None or found is Undefined:
            raise NotPlainError
        return found

    return write


def _plain_writer(kind: GraphQLLeafType) -> Write:
    if kind is GraphQLString:
        return _text
    if kind is GraphQLInt:
        return _integer
    if isinstance(kind, GraphQLEnumType):
        return _labels({value.value: name for name, value in kind.values.items()})
    return kind.coerce_output_value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise NotPlainError
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or value not in _INT:
        raise NotPlainError
    return value


def _labels(names: Mapping[Any, str]) -> Write:
    def write(value: Any) -> str:
        name = names.get(value)
        if name is None:
            raise NotPlainError
        return name

    return write
