"""What an operation may ask for: an upper bound of the values in its answer, before it is run."""

from collections.abc import Mapping
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    is_list_type,
    is_non_null_type,
)

from api.errors import ApiError, Code
from api.pagination import DEFAULT_PAGE

_LISTED: Final = 20  # rows of a list whose length nobody asked for
_KEPT: Final = 64  # costs of one document, by the sizes in its variables
_LARGE: Final = 10**12
_PAGE: Final = ("first", "last")
_PARTS: Final = ("edges", "pageInfo")


Memo = dict[Any, int]


def check_cost(
    schema: GraphQLSchema,
    document: DocumentNode,
    data: Mapping[str, Any],
    *,
    page_max: int,
    cost_max: int,
    memo: Memo | None,
) -> None:
    """Refuse an operation that asks for too much; a memo keeps what is known of the document.

    Raises:
        GraphQLError: it does; its cause is an `ApiError`.
    """
    key = _sizes_of(data)
    cost = None if memo is None else memo.get(key)
    if cost is None:
        cost = cost_of(schema, document, data, page_max)
        if memo is not None:
            if len(memo) >= _KEPT:
                memo.clear()
            memo[key] = cost
    if cost > cost_max:
        message = f"the answer could hold {_shown(cost)} values; {cost_max} are allowed"
        raise GraphQLError(message, original_error=ApiError(Code.LIMITED, message))


def _sizes_of(data: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the cost of a document depends on, in a request."""
    variables = data.get("variables")
    given = variables.items() if isinstance(variables, dict) else ()
    return (data.get("operationName"), *((name, _size(value)) for name, value in given))


def _size(value: Any) -> Any:
    if isinstance(value, list):
        return (len(value),)
    return value if value is None or isinstance(value, int) else ""


def _shown(cost: int) -> str:
    return str(cost) if cost < _LARGE else "far too many"


def cost_of(
    schema: GraphQLSchema, document: DocumentNode, data: Mapping[str, Any], page_max: int
) -> int:
    """How many values the answer may hold; of several operations the one that is named, or most.

    Each field counts one for each object it is asked of; those behind a list count as often as
    the list may be long. What does not fit the schema counts nothing: validation finds it.
    """
    operations = [
        node for node in document.definitions if isinstance(node, OperationDefinitionNode)
    ]
    name = data.get("operationName")
    chosen = [node for node in operations if node.name and node.name.value == name] or operations
    counts = [_Count(schema, document, node, data, page_max).total() for node in chosen]
    return max(counts, default=0)


class _Count:
    """Counts one operation, each fragment once."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        data: Mapping[str, Any],
        page_max: int,
    ) -> None:
        self._schema = schema
        self._operation = operation
        self._page_max = page_max
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[tuple[str, int], int] = {}
        given = data.get("variables")
        self._variables = {
            node.variable.name.value: node.default_value
            for node in operation.variable_definitions or ()
        }
        self._given: Mapping[str, Any] = given if isinstance(given, dict) else {}

    def total(self) -> int:
        root = self._schema.get_root_type(self._operation.operation)
        return self._selections(root, self._operation.selection_set, 1)

    def _selections(
        self, kind: GraphQLNamedType | None, selections: SelectionSetNode | None, page: int
    ) -> int:
        cost = 0
        for node in () if selections is None else selections.selections:
            if isinstance(node, FieldNode):
                cost += self._field(kind, node, page)
            elif isinstance(node, InlineFragmentNode):
                inner = (
                    self._schema.get_type(node.type_condition.name.value)
                    if (node.type_condition)
                    else kind
                )
                cost += self._selections(inner, node.selection_set, page)
            elif isinstance(node, FragmentSpreadNode):
                cost += self._fragment(node.name.value, page)
        return cost

    def _fragment(self, name: str, page: int) -> int:
        at = (name, page)
        if at not in self._known:
            self._known[at] = 0  # a fragment inside itself ends here; another rule reports it
            node = self._fragments.get(name)
            if node is not None:
                kind = self._schema.get_type(node.type_condition.name.value)
                self._known[at] = self._selections(kind, node.selection_set, page)
        return self._known[at]

    def _field(self, kind: GraphQLNamedType | None, node: FieldNode, page: int) -> int:
        name = node.name.value
        field = kind.fields.get(name) if isinstance(kind, GraphQLObjectType) else None
        if field is None:
            return 1
        inner = get_named_type(field.type)
        if name in _PARTS:
            size, page = (page if name == "edges" else 1), 1
        else:
            size, page = self._sizes(field, node)
        return 1 + size * self._selections(inner, node.selection_set, page)

    def _sizes(self, field: GraphQLField, node: FieldNode) -> tuple[int, int]:
        """How often its own fields are asked for, and the length of the page that it begins."""
        is_list = is_list_type(field.type.of_type if is_non_null_type(field.type) else field.type)
        if "first" not in field.args:
            return (_LISTED if is_list else 1), 1
        values = {argument.name.value: argument.value for argument in node.arguments or ()}
        asked = [self._number(values[name]) for name in _PAGE if name in values]
        default = self._page_max if is_list else min(DEFAULT_PAGE, self._page_max)
        length = max((default if one is None else one for one in asked), default=default)
        length = min(max(length, 0), self._page_max)
        if is_list and "names" in values:
            length = min(length, self._length(values["names"]))
        return (length, 1) if is_list else (1, length)

    def _number(self, node: ValueNode) -> int | None:
        """An integer argument; the longest page where it is none, None where it is null."""
        value = self._value(node)
        if isinstance(value, IntValueNode):
            return min(int(value.value), self._page_max)
        if isinstance(value, int):
            return min(value, self._page_max)
        return None if value is None else self._page_max

    def _length(self, node: ValueNode) -> int:
        """The length of a list argument; the longest page where it is none."""
        value = self._value(node)
        if isinstance(value, ListValueNode):
            return len(value.values)
        return len(value) if isinstance(value, list) else self._page_max

    def _value(self, node: ValueNode) -> Any:
        if not isinstance(node, VariableNode):
            return node if node.kind != "null_value" else None
        name = node.name.value
        if name in self._given:
            return self._given[name]
        default = self._variables.get(name)
        return None if default is None or default.kind == "null_value" else default
