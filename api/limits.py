"""What one document may cost: its length, its depth, and how often it is parsed and checked."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    TypeInfo,
    VisitorAction,
    parse,
    validate,
)
from graphql.validation import ASTValidationRule, ValidationContext

MAX_TOKENS: Final = 2000
MAX_DEPTH: Final = 8
MAX_BODY: Final = 1024 * 1024
BODY_SECONDS: Final = 10.0
_KEPT: Final = 512  # documents
_KEPT_LENGTH: Final = 16_384  # characters of one


class Documents:
    """Parses and validates; what was seen lately is not done again."""

    def __init__(self, *, hide_suggestions: bool) -> None:
        self._hide_suggestions = hide_suggestions
        self._parsed: OrderedDict[str, DocumentNode] = OrderedDict()
        # The faults of each document in `_parsed`, None before they were looked for. By identity,
        # as hashing a document walks all of it; while the document is kept its identity is its own.
        self._errors: dict[int, list[GraphQLError] | None] = {}
        self._memos: dict[int, dict[Any, int]] = {}

    def parse(self, _context: Any, data: Mapping[str, Any]) -> DocumentNode:
        """The document of a request; Ariadne's `query_parser`."""
        text: str = data["query"]
        found = self._parsed.get(text)
        if found is not None:
            self._parsed.move_to_end(text)
            return found
        document = parse(text, max_tokens=MAX_TOKENS)
        if len(text) <= _KEPT_LENGTH:
            self._parsed[text] = document
            self._errors[id(document)] = None
            self._memos[id(document)] = {}
            if len(self._parsed) > _KEPT:
                _, dropped = self._parsed.popitem(last=False)
                del self._errors[id(dropped)], self._memos[id(dropped)]
        return document

    def memo(self, document: DocumentNode) -> dict[Any, int] | None:
        """What others remember of a document as long as it is kept; None when it is not."""
        return self._memos.get(id(document))

    def validate(
        self,
        schema: GraphQLSchema,
        document_ast: DocumentNode,
        rules: Collection[type[ASTValidationRule]] | None = None,
        max_errors: int | None = None,
        type_info: TypeInfo | None = None,
    ) -> list[GraphQLError]:
        """The faults of a document; Ariadne's `query_validator`."""
        del type_info  # of older versions of graphql-core
        known = self._errors.get(id(document_ast))
        if known is not None:
            return known
        hide = self._hide_suggestions
        errors = validate(schema, document_ast, rules, max_errors, hide_suggestions=hide)
        if id(document_ast) in self._errors:
            self._errors[id(document_ast)] = errors
        return errors


class DepthRule(ASTValidationRule):
    """An operation nests its fields at most MAX_DEPTH deep, fragments included.

    Introspection is not counted: graphql-core bounds it, and it does not touch our data.
    """

    context: ValidationContext

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self._fragments: dict[str, int] = {}

    def enter_operation_definition(
        self, node: OperationDefinitionNode, *_args: Any
    ) -> VisitorAction:
        """Judge an operation."""
        depth = self._depth(node.selection_set)
        if depth > MAX_DEPTH:
            message = f"The operation is {depth} fields deep; {MAX_DEPTH} are allowed."
            self.report_error(GraphQLError(message, node))
        return None

    def _depth(self, selections: SelectionSetNode | None) -> int:
        deepest = 0
        for node in () if selections is None else selections.selections:
            if isinstance(node, FieldNode):
                inner = 0 if node.name.value.startswith("__") else self._depth(node.selection_set)
                deepest = max(deepest, 1 + inner)
            elif isinstance(node, FragmentSpreadNode):
                deepest = max(deepest, self._fragment_depth(node.name.value))
            elif isinstance(node, InlineFragmentNode):
                deepest = max(deepest, self._depth(node.selection_set))
        return deepest

    def _fragment_depth(self, name: str) -> int:
        if name not in self._fragments:
            self._fragments[name] = 0  # a fragment inside itself ends here; another rule reports it
            fragment = self.context.get_fragment(name)
            if isinstance(fragment, FragmentDefinitionNode):
                self._fragments[name] = self._depth(fragment.selection_set)
        return self._fragments[name]
