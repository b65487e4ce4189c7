"""Which role each field takes; a schema with a field that has no rule is not served."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from graphql import (
    GraphQLField,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    default_field_resolver,
)

from api.context import Context
from api.errors import ApiError, Code
from api.names import TYPES, camel
from api.principals import Principal
from pipeline.store.keys import Role
from schemas.blocks import COLUMNS

Rules = Mapping[tuple[str, str], Role]
_PAGED: Final = (*TYPES.values(), "Candle")
# The fields of each type by name; the columns of the stages and their pages are added to them.
_READER: Final = {
    "Query": "symbols symbol prices bars features regimes predictions signals fills equity candles"
    " positions dataQuality engines performance modelVersions modelComparisons promotions shadows"
    " drift driftSeries",
    "ModelVersion": "version model kind isActive isShadow regimes madeAt features featureSet"
    " horizon firstTs lastTs heldOut heldOutByRegime live shadow artifact inputs"
    " dataHash rows hyperparameters importance",
    "ModelInput": "source partition from to rows sha256",
    "Hyperparameter": "name value",
    "FeatureImportance": "method symbol feature value place",
    "ModelComparison": "model challenger champion firstTs lastTs dataHash n challengerLogLoss"
    " championLogLoss standardError rule better at",
    "Promotion": "model generation version former rolledBack reason at watched verdict n"
    " liveLogLoss shadowLogLoss standardError judgedAt",
    "Shadow": "model generation version reason at",
    "Drift": "kind name symbol change since ts partition offset index evidence looked stride"
    " foundAt",
    "DriftSeries": "kind name symbol partition state stride looked evidence alarms keptAt",
    "RegimeScores": "regime n logLoss nullLogLoss",
    "ModelScores": "firstTs lastTs n logLoss nullLogLoss brier auc",
    "Subscription": "prices bars regimes predictions signals fills alerts",
    "Alert": "kind symbol time published partition offset index document",
    "Symbol": "name staleness price bar features regime prediction signal fill equity position"
    " dataQuality",
    "PageInfo": "hasNextPage hasPreviousPage startCursor endCursor",
    "Candle": "symbol start end life open high low close volume notional vwap n knownAt",
    "Position": "symbol ts quantity mark value cash equity pnl fees traded",
    "DataQuality": "symbol partition reason count countedAt",
    "Engine": "name performance",
    "PerformanceMetrics": "symbol engine start end vol trend horizon n logLoss logLossLessNull"
    " brier brierLessNull auc hitRate hitRateLow hitRateHigh reliability resolution uncertainty"
    " ece",
}
_OPERATOR: Final = {
    "Query": "runs rejected jobs job",
    "Mutation": "promoteModel rollbackModel shadowModel unshadowModel selectModel unselectModel"
    " replayRejected startReplay"
    " startBacktest cancelJob",
    "Job": "id kind state source from to bar settings trials year key principal askedAt startedAt"
    " finishedAt attempts retries notBefore trouble cancelAsked error directory rows figures"
    " training fingerprint run",
    "JobTraining": "outcome version champion n better why",
    "JobRows": "stage count",
    "JobFigures": "finalEquity totalReturn sharpe maxDrawdown trades winRate",
    "Rejected": "partition offset index symbol reason detail rejectedAt value size"
    " replayedAt replayedBy",
    "RejectedReplay": "published missing left",
    "ModelChange": "model version former generation changed",
    "ShadowChange": "model shadow former generation changed",
    "ModelSelection": "model selected generation changed",
    "SelectedVersion": "regime version",
    "Run": "service fingerprint partitions",
    "RunPartition": "partition epoch mark movedAt",
}
_ADMIN: Final = {"Query": "services", "Service": "name ok seconds error"}


def _rules() -> Iterator[tuple[tuple[str, str], Role]]:
    for role, types in (
        (Role.READER, _READER),
        (Role.OPERATOR, _OPERATOR),
        (Role.ADMIN, _ADMIN),
    ):
        for name, fields in types.items():
            for field in fields.split():
                yield (name, field), role
    for stage, name in TYPES.items():
        for column in COLUMNS[stage]:
            yield (name, camel(column.name)), Role.READER
    for name in _PAGED:
        for field in ("edges", "pageInfo"):
            yield (f"{name}Connection", field), Role.READER
        for field in ("cursor", "node"):
            yield (f"{name}Edge", field), Role.READER


RULES: Final[Rules] = dict(_rules())


def fields_of(schema: GraphQLSchema) -> Iterator[tuple[tuple[str, str], GraphQLField]]:
    """Every field of ours, by type and name."""
    for name, kind in schema.type_map.items():
        if isinstance(kind, GraphQLObjectType) and not name.startswith("__"):
            for field_name, field in kind.fields.items():
                yield (name, field_name), field


def guard(schema: GraphQLSchema, rules: Rules = RULES) -> None:
    """Have each field that takes more than the lowest role ask for it before it is resolved.

    Raises:
        ValueError: a field has no rule.
    """
    for place, field in fields_of(schema):
        if place not in rules:
            raise ValueError(f"{'.'.join(place)} has no rule in api/rules.py")
        needed = rules[place]
        if needed is Role.READER:  # nobody has less
            continue
        if field.subscribe is not None:
            field.subscribe = demanding(needed, field.subscribe)
        field.resolve = demanding(needed, field.resolve or default_field_resolver)


def demanding(needed: Role, resolve: Callable[..., Any]) -> Callable[..., Any]:
    """A resolver that refuses those of a lower role."""

    def guarded(source: Any, info: GraphQLResolveInfo[Context], /, **arguments: Any) -> Any:
        demand(info.context.principal, needed)
        return resolve(source, info, **arguments)

    return guarded


def demand(principal: Principal, needed: Role) -> None:
    """Refuse those of a lower role.

    Raises:
        ApiError: this is one.
    """
    if not principal.role.covers(needed):
        raise ApiError(Code.FORBIDDEN, f"this takes the role {needed}, yours is {principal.role}")
