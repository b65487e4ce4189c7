"""The resolvers of the registry of models."""

from typing import Any, Final

import structlog
from ariadne import MutationType, ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.context import Context
from api.errors import ApiError, Code, masked
from pipeline.errors import ConflictError, MisuseError, RefusedError
from pipeline.models import announce, registry, remembered
from pipeline.models.announce import Announced
from pipeline.models.registry import Change

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]
_REASON: Final = 500  # characters
_NAME: Final = 64
_UNTOLD: Final = (
    "Kafka or Postgres does not answer; the change may have been made without the stream being"
    " told: look at `modelVersions`, then ask for it again"
)
_log: Final = structlog.get_logger("api")

query: Final = QueryType()
mutation: Final = MutationType()
version_type: Final = ObjectType("ModelVersion")


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


@mutation.field("promoteModel")
async def resolve_promote(_: None, info: Info, version: str, reason: str) -> Change:
    """Promote, as `tickstream models promote` does."""
    return await _changed(info, "model_promoted", announce.promote, version, reason)


@mutation.field("rollbackModel")
async def resolve_rollback(_: None, info: Info, model: str, reason: str) -> Change:
    """Go back, as `tickstream models rollback` does."""
    return await _changed(info, "model_rolled_back", announce.rollback, model, reason)


async def _changed(info: Info, event: str, change: Announced, name: str, reason: str) -> Change:
    """Change which version is active, by the name of a version or a model.

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
            model=changed.model,
            version=changed.version,
            former=changed.former,
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


BINDABLES: Final = [query, mutation, version_type]
