"""The resolvers of the registry of models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import structlog
from ariadne import MutationType, ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.context import Context
from api.errors import ApiError, Code
from api.scalars import read_moment_of
from pipeline.errors import ConflictError, MisuseError, RefusedError, UnavailableError
from pipeline.models import announce, registry
from pipeline.models.registry import Change
from pipeline.store.pool import Pool

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]
_REASON: Final = 500  # characters
_NAME: Final = 64
_log: Final = structlog.get_logger("api")

query: Final = QueryType()
mutation: Final = MutationType()
version_type: Final = ObjectType("ModelVersion")


@query.field("modelVersions")
async def resolve_versions(_: None, info: Info, model: str | None = None) -> list[Row]:
    """The newest versions, a page of them, oldest first."""
    services = info.context.services
    async with services.postgres() as pool:
        found = await registry.versions(pool, None if model is None else _name(model))
    return found[-services.settings.api.page_max :]


@version_type.field("madeAt")
def resolve_made_at(version: Row, _: Info) -> int:
    """A time of the database in ns."""
    made: datetime = version["made_at"]
    return read_moment_of(made)


@version_type.field("heldOut")
def resolve_held_out(version: Row, _: Info) -> Row:
    """The scores in the figures of a version."""
    scores: Row = version["metrics"]["held_out"]
    return scores


@mutation.field("promoteModel")
async def resolve_promote(_: None, info: Info, version: str, reason: str) -> Change:
    """Promote, as `tickstream models promote` does."""
    services = info.context.services
    async with _registry(info, reason) as (pool, kafka):
        change = await announce.promote(
            pool, kafka, _name(version), services.settings.chain.feature_set, reason
        )
    return _told(info, "model_promoted", change)


@mutation.field("rollbackModel")
async def resolve_rollback(_: None, info: Info, model: str, reason: str) -> Change:
    """Go back, as `tickstream models rollback` does."""
    services = info.context.services
    async with _registry(info, reason) as (pool, kafka):
        change = await announce.rollback(
            pool, kafka, _name(model), services.settings.chain.feature_set, reason
        )
    return _told(info, "model_rolled_back", change)


@asynccontextmanager
async def _registry(info: Info, reason: str) -> AsyncIterator[tuple[Pool, str]]:
    """The pool and the broker for a change.

    Raises:
        ApiError: the change was not made, or may not have been told.
    """
    services = info.context.services
    if len(reason) > _REASON or (reason and not reason.isprintable()):
        raise ApiError(Code.BAD_INPUT, f"a reason has at most {_REASON} printable characters")
    if services.settings.kafka is None:
        raise ApiError(Code.UNAVAILABLE, "this server has no broker: set TICKSTREAM_KAFKA")
    async with services.postgres() as pool:
        try:
            yield pool, services.settings.kafka
        except MisuseError as error:
            raise ApiError(Code.BAD_INPUT, str(error)) from error
        except (ConflictError, RefusedError) as error:
            raise ApiError(Code.CONFLICT, str(error)) from error
        except UnavailableError as error:
            # Its text holds an address.
            _log.warning("change_failed", error=" ".join(str(error).split()))
            message = (
                "Kafka or Postgres does not answer; the change may have been made without the"
                " stream being told: look at `modelVersions`, then ask for it again"
            )
            raise ApiError(Code.UNAVAILABLE, message) from error


def _name(text: str) -> str:
    """A name that can be one; others would only trouble the stores.

    Raises:
        ApiError: it cannot be one.
    """
    if not 0 < len(text) <= _NAME or not text.isascii() or not text.isprintable():
        raise ApiError(Code.BAD_INPUT, f"a name has 1 to {_NAME} printable ASCII characters")
    return text


def _told(info: Info, event: str, change: Change) -> Change:
    if change.changed:
        _log.info(
            event,
            model=change.model,
            version=change.version,
            former=change.former,
            principal=info.context.principal.id,
        )
    return change


BINDABLES: Final = [query, mutation, version_type]
