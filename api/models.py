"""The resolvers of the registry of models."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar, get_args

import structlog
from ariadne import EnumType, MutationType, ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.arguments import checked
from api.batches import batch_of
from api.context import Context
from api.errors import ApiError, Code, masked
from api.pagination import read_limit
from pipeline.errors import ConflictError, MisuseError, RefusedError
from pipeline.models import announce, registry, remembered, selection
from pipeline.models.announce import Announced
from pipeline.models.importance import Method
from pipeline.models.registry import Change, Shadowed
from pipeline.models.selection import Selection
from pipeline.store import scores
from pipeline.store.pool import Pool
from pipeline.store.watches import VERDICTS
from schemas.models import ANY_SYMBOL

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]
C = TypeVar("C", Change, Shadowed, Selection)
_REASON: Final = 500  # characters
_NAME: Final = 64
_TOP: Final = 10  # features
_UNTOLD: Final = (
    "Kafka or Postgres does not answer; the change may have been made without the stream being"
    " told: look at `modelVersions`, then ask for it again"
)
_log: Final = structlog.get_logger("api")

query: Final = QueryType()
mutation: Final = MutationType()
version_type: Final = ObjectType("ModelVersion")
change_type: Final = ObjectType("ModelSelection")


@query.field("modelVersions")
async def resolve_versions(_: None, info: Info, model: str | None = None) -> list[Row]:
    """The newest versions, a page of them, oldest first."""
    services = info.context.services
    name = None if model is None else _name(model)

    async def load() -> list[Row]:
        async with services.postgres() as pool:
            return await registry.versions(pool)

    rows = await remembered.versions(services.manager, load)
    info.context.latest.cache_away |= services.manager.away
    found = [row for row in rows if name is None or row["model"] == name]
    return found[-services.settings.api.page_max :]


@version_type.field("heldOut")
def resolve_held_out(version: Row, _: Info) -> Row:
    """The scores in the figures of a version."""
    scores: Row = version["metrics"]["held_out"]
    return scores


@version_type.field("heldOutByRegime")
def resolve_held_out_by_regime(version: Row, _: Info) -> list[Row]:
    """The same of the regimes."""
    found = version["metrics"].get("regimes", {})
    return [{"regime": regime, **scores} for regime, scores in found.items()]


@version_type.field("inputs")
def resolve_inputs(version: Row, _: Info) -> list[Row]:
    """What was replayed for it, whatever kind of input it was."""
    named = ("topic", "table", "file")
    return [
        {"source": next(one[name] for name in named if name in one)}
        | {name: one.get(name) for name in ("partition", "from", "to", "rows", "sha256")}
        for one in version["data"]["inputs"]
    ]


@version_type.field("rows")
def resolve_rows(version: Row, _: Info) -> int:
    """How many rows taught it."""
    return int(version["data"]["rows"])


@version_type.field("hyperparameters")
def resolve_hyperparameters(version: Row, _: Info) -> list[Row]:
    """Names and values."""
    return [
        {"name": name, "value": str(value)} for name, value in version["hyperparameters"].items()
    ]


@version_type.field("importance")
async def resolve_importance(
    version: Row,
    info: Info,
    first: int | None = None,
    symbol: str | None = None,
    method: str | None = None,
) -> list[Row]:
    """Of all versions of an answer at once."""
    services = info.context.services
    top = (
        _TOP if first is None else read_limit("first", first, None, services.settings.api.page_max)
    )
    on = ANY_SYMBOL if symbol is None else checked(symbol)

    async def read(names: list[str]) -> dict[str, list[Row]]:
        async with services.postgres() as pool:
            return await registry.importance(pool, names, on, top)

    rows = await batch_of(info.context.memo, f"importance {top} {on}", read).load(
        version["version"]
    )
    return [row for row in rows if method is None or row["method"] == method]


@version_type.field("live")
async def resolve_live(version: Row, info: Info) -> Row | None:
    """While it was active."""
    return (await _on_the_stream(version, info)).get("live")


@version_type.field("shadow")
async def resolve_as_shadow(version: Row, info: Info) -> Row | None:
    """While it was the shadow."""
    return (await _on_the_stream(version, info)).get("shadow")


async def _on_the_stream(version: Row, info: Info) -> dict[str, Row]:
    """Of all versions of an answer at once."""
    services = info.context.services

    async def read(names: list[str]) -> dict[str, dict[str, Row]]:
        async with services.postgres() as pool:
            return await scores.of_all_days(pool, names)

    return await batch_of(info.context.memo, "stream scores", read).load(version["version"])


@query.field("modelComparisons")
async def resolve_comparisons(
    _: None, info: Info, model: str, first: int | None = None
) -> list[Row]:
    """The newest ones."""
    return await _newest(info, registry.comparisons, model, first)


@query.field("promotions")
async def resolve_promotions(
    _: None, info: Info, model: str, first: int | None = None
) -> list[Row]:
    """The newest ones."""
    return await _newest(info, registry.promotions, model, first)


@query.field("shadows")
async def resolve_shadows(_: None, info: Info, model: str, first: int | None = None) -> list[Row]:
    """The newest ones."""
    return await _newest(info, registry.shadows, model, first)


async def _newest(
    info: Info,
    read: Callable[[Pool, str, int], Awaitable[list[Row]]],
    model: str,
    first: int | None,
) -> list[Row]:
    services = info.context.services
    limit = read_limit("first", first, None, services.settings.api.page_max)
    async with services.postgres() as pool:
        return await read(pool, _name(model), limit)


@mutation.field("promoteModel")
async def resolve_promote(_: None, info: Info, version: str, reason: str) -> Change:
    """Promote, as `tickstream models promote` does."""
    change = partial(announce.promote, watch=info.context.services.settings.models.watch)
    return await _changed(info, "model_promoted", change, version, reason)


@mutation.field("rollbackModel")
async def resolve_rollback(_: None, info: Info, model: str, reason: str) -> Change:
    """Go back, as `tickstream models rollback` does."""
    return await _changed(info, "model_rolled_back", announce.rollback, model, reason)


@mutation.field("shadowModel")
async def resolve_shadow(_: None, info: Info, version: str, reason: str) -> Shadowed:
    """Have it predict beside the active one, as `tickstream models shadow` does."""
    return await _changed(info, "shadow_set", announce.shadow, version, reason)


@mutation.field("unshadowModel")
async def resolve_unshadow(_: None, info: Info, model: str, reason: str) -> Shadowed:
    """Have none do so, as `tickstream models shadow --none` does."""
    return await _changed(info, "shadow_ended", announce.unshadow, model, reason)


@mutation.field("selectModel")
async def resolve_select(
    _: None, info: Info, version: str, regimes: list[str], reason: str
) -> Selection:
    """Have a version speak in regimes, as `tickstream models select` does."""
    change = selection.speaking_in(regimes)
    return await _changed(info, "model_selected", change, version, reason)


@mutation.field("unselectModel")
async def resolve_unselect(
    _: None, info: Info, model: str, reason: str, regimes: list[str] | None = None
) -> Selection:
    """Have the active version speak there, as `tickstream models select --none` does."""
    change = selection.active_in(regimes or ())
    return await _changed(info, "model_selected", change, model, reason)


@change_type.field("selected")
def resolve_selected(change: Selection, _: Info) -> list[Row]:
    """Regimes and versions."""
    return [{"regime": regime, "version": name} for regime, name in change.selected.items()]


async def _changed(info: Info, event: str, change: Announced[C], name: str, reason: str) -> C:
    """Change which versions speak, by the name of a version or a model.

    Raises:
        ApiError: the change was not made, or may not have been told.
    """
    services = info.context.services
    if len(reason) > _REASON or (reason and not reason.isprintable()):
        raise ApiError(Code.BAD_INPUT, f"a reason has at most {_REASON} printable characters")
    kafka, feature_set_of = services.kafka, services.settings.chain.feature_set
    async with services.postgres() as pool:
        try:
            with masked("change_failed", _UNTOLD):
                changed = await change(pool, kafka, _name(name), feature_set_of, reason)
        except MisuseError as error:
            raise ApiError(Code.BAD_INPUT, str(error)) from error
        except (ConflictError, RefusedError) as error:
            raise ApiError(Code.CONFLICT, str(error)) from error
        finally:
            await remembered.forget(services.manager)
    if changed.changed:
        _log.info(
            event,
            **{name: value for name, value in asdict(changed).items() if name != "changed"},
            principal=info.context.principal.id,
        )
    return changed


def _name(text: str) -> str:
    """A name that can be one; others would only trouble the stores.

    Raises:
        ApiError: it cannot be one.
    """
    if not 0 < len(text) <= _NAME or not text.isascii() or not text.isprintable():
        raise ApiError(Code.BAD_INPUT, f"a name has 1 to {_NAME} printable ASCII characters")
    return text


BINDABLES: Final = [
    query,
    mutation,
    version_type,
    EnumType("Verdict", {verdict.upper(): verdict for verdict in VERDICTS}),
    change_type,
    EnumType("ImportanceMethod", {method.upper(): method for method in get_args(Method)}),
]
