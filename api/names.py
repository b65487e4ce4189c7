"""How the columns of a stage are called and typed in GraphQL."""

from typing import Final

from graphql import GraphQLSchema

from schemas.blocks import COLUMNS, STAGES, Column

# One row of a stage; the type's file bears the name of the stage.
TYPES: Final = {
    "ticks": "Price",
    "bars": "Bar",
    "features": "Features",
    "regimes": "Regime",
    "predictions": "Prediction",
    "signals": "Signal",
    "fills": "Fill",
    "equity": "Equity",
}
# The latest row as a field of Symbol, and the history as a field of Query.
LATEST: Final = {
    "ticks": "price",
    "bars": "bar",
    "features": "features",
    "regimes": "regime",
    "predictions": "prediction",
    "signals": "signal",
    "fills": "fill",
    "equity": "equity",
}
# Stages that can be subscribed to, by the field of Subscription.
FOLLOWED: Final = {
    "ticks": "prices",
    "bars": "bars",
    "regimes": "regimes",
    "predictions": "predictions",
    "signals": "signals",
}
HISTORY: Final = {stage: "prices" if stage == "ticks" else stage for stage in STAGES}
ENUMS: Final = {
    ("ticks", "side"): "Side",
    ("ticks", "flag"): "Flag",
    ("regimes", "vol"): "VolTag",
    ("regimes", "trend"): "TrendTag",
    ("regimes", "vol_regime"): "VolRegime",
    ("regimes", "hmm"): "VolTag",
    ("regimes", "cusum_alarm"): "CusumAlarm",
    ("regimes", "bocpd_alarm"): "BocpdAlarm",
    ("predictions", "gbdt_regime"): "VolRegime",
    ("signals", "action"): "Action",
    ("fills", "side"): "Side",
    ("fills", "reason"): "FillReason",
}
# Labels and integers that a row may lack; in columns they are -1 then.
ALWAYS: Final = {
    ("ticks", "flag"), ("signals", "action"), ("fills", "side"), ("fills", "reason"),
}  # fmt: skip
MAY_LACK: Final = {("ticks", "id"), ("bars", "exec_ts")}
_WIDE: Final = {"offset", "id"}


def camel(column: str) -> str:
    """The field of a column: `known_at` becomes `knownAt`, `bar_ret_20` becomes `barRet20`."""
    first, *rest = column.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def field_type(stage: str, column: Column) -> str:
    """The GraphQL type of a column; a column that may be null has a nullable one."""
    at = (stage, column.name)
    if column.kind == "float64":
        return "Float"
    if column.kind == "label":
        return ENUMS[at] + ("!" if at in ALWAYS else "")
    required = "" if at in MAY_LACK else "!"
    if column.kind == "symbol":
        return "String!"
    if column.unit == "ns":
        return "DateTime" + required
    return ("BigInt" if column.name in _WIDE else "Int") + required


# By table and not by rule: no rule can tell where the underscores of `bar_ret_20` were.
_COLUMNS: Final = {camel(c.name): c.name for stage in STAGES for c in COLUMNS[stage]}


def python_name(
    name: str, _schema: GraphQLSchema | None = None, _path: tuple[str, ...] = ()
) -> str:
    """The Python name of a GraphQL name, for `make_executable_schema(convert_names_case=...)`."""
    if name in _COLUMNS:
        return _COLUMNS[name]
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
