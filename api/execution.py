"""The executor: graphql-core's, but rows are answered in one go, and operations are kept ready."""

from typing import Any, Final

import orjson
from graphql import (
    DocumentNode,
    Executor,
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    OperationType,
    is_non_null_type,
)
from graphql.execution.collect_fields import FieldDetails, collect_fields
from graphql.execution.values import get_argument_values

from api.kept import Kept
from api.plans import Plan, RootPlan, plan_of, root_plan_of

_KEPT: Final = 256  # operations with their variables
_KEPT_LENGTH: Final = 4096  # bytes of the variables of one
_prepared: Final[Kept[Any, tuple[DocumentNode, "RowExecutor"]]] = Kept(_KEPT)


class RowExecutor(Executor[Any]):
    """Answers objects by a plan where there is one; the executor itself does what a plan cannot.

    So errors, nulls, waiting and everything unusual are as graphql-core has them. What depends on
    the document and its variables only - their values, which fields are asked for, the plans - is
    kept from the second time on for who asks the same again, as clients that poll do.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # By the identity of a selection, which is kept with its plan so that no other one gets it.
        self._plans: dict[int, tuple[Any, Plan | None]] = {}
        self._root: list[Any] = []

    @classmethod
    def build(
        cls,
        schema: GraphQLSchema,
        document: DocumentNode,
        root_value: Any = None,
        context_value: Any = None,
        raw_variable_values: dict[str, Any] | None = None,
        operation_name: str | None = None,
        *rest: Any,
        **options: Any,
    ) -> "list[GraphQLError] | Executor[Any]":
        """An executor of an operation, or what is wrong with its variables."""
        variables = raw_variable_values
        try:
            text = orjson.dumps(variables)
            # Documents are known by their identity: while one is kept no other one has it.
            key = (id(schema), id(document), operation_name, text, rest, *options.values())
            known = _prepared.get(key)
        except TypeError:  # nothing that could be looked up
            text, key, known = b"", None, None
        if known is not None:
            return known[1].again(root_value, context_value)
        made = super().build(
            schema, document, root_value, context_value, variables, operation_name, *rest, **options
        )
        if key is not None and len(text) <= _KEPT_LENGTH and isinstance(made, RowExecutor):
            made.keep(key, document)
        return made

    def keep(self, key: Any, document: DocumentNode) -> None:
        """Have the operation ready for who asks for it again; a mutation may change its input."""
        if self.operation.operation is OperationType.MUTATION:
            return
        if _prepared.wants(key):
            _prepared.put(key, (document, self.again(None, None)))

    @classmethod
    def ahead(
        cls,
        schema: GraphQLSchema,
        document: DocumentNode,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> RootPlan | None:
        """What answers a valid query by these variables as a whole, if a plan can."""
        made = super().build(schema, document, None, None, variables, operation_name)
        return made.plan() if isinstance(made, RowExecutor) else None

    def plan(self) -> RootPlan | None:
        """The same of this operation."""
        kind = self.schema.query_type
        if self.operation.operation is not OperationType.QUERY or kind is None:
            return None
        grouped, deferred, _ = collect_fields(
            self.schema, self.fragments, self.variable_values, kind, self.operation,
            self.hide_suggestions,
        )  # fmt: skip
        return None if deferred else root_plan_of(kind, grouped, self._nested, self._arguments)

    def again(self, root_value: Any, context_value: Any) -> "RowExecutor":
        """The same operation of another request."""
        executor: Any = self.build_per_event_executor(root_value)
        executor.context_value = context_value
        executor.pending_incremental_futures = set()
        executor.background_futures = set()
        executor.async_helpers = type(self.async_helpers)(
            gather=executor.gather_async_work, track=executor.track_async_work
        )
        found: RowExecutor = executor
        return found

    def execute_collected_root_fields(
        self, root_type: Any, root_value: Any, grouped_field_set: Any, *rest: Any
    ) -> Any:
        """The operation, by the selection that was collected first: what is kept belongs to it."""
        if not self._root:
            self._root.append(grouped_field_set)
        return super().execute_collected_root_fields(root_type, root_value, self._root[0], *rest)

    def execute_fields(
        self, parent_type: Any, source_value: Any, path: Any, grouped_field_set: Any, position: Any
    ) -> Any:
        """One object."""
        if type(source_value) is dict:
            plan = self._plan(parent_type, grouped_field_set)
            if plan is not None:
                try:
                    return plan(source_value, self.context_value)
                except Exception:  # noqa: BLE001, S110 - the executor says what is wrong
                    pass
        return super().execute_fields(parent_type, source_value, path, grouped_field_set, position)

    def complete_list_value(
        self, return_type: Any, details: Any, info: Any, path: Any, result: Any, position: Any
    ) -> Any:
        """A list of objects."""
        kind = return_type.of_type
        kind = kind.of_type if is_non_null_type(kind) else kind
        if isinstance(kind, GraphQLObjectType) and type(result) is list:
            plan = self._nested(kind, details)
            if plan is not None:
                context = self.context_value
                try:
                    return [plan(one, context) for one in result]
                except Exception:  # noqa: BLE001, S110 - the executor says what is wrong
                    pass
        return super().complete_list_value(return_type, details, info, path, result, position)

    def _arguments(self, field: GraphQLField, details: FieldDetails) -> dict[str, Any]:
        return get_argument_values(
            field, details.node, self.variable_values, details.fragment_variable_values
        )

    def _nested(self, kind: GraphQLObjectType, details: Any) -> Plan | None:
        grouped, deferred, _ = self.collect_subfields(kind, details)
        return None if deferred else self._plan(kind, grouped)

    def _plan(self, kind: GraphQLObjectType, grouped: Any) -> Plan | None:
        known = self._plans.get(id(grouped))
        if known is None:
            plan = None if self.middleware_manager else plan_of(kind, grouped, self._nested)
            known = self._plans[id(grouped)] = (grouped, plan)
        return known[1]
