"""The resolvers of rejected messages."""

from typing import Any, Final

import structlog
from ariadne import MutationType, ObjectType, QueryType
from graphql import GraphQLResolveInfo

from api.context import Context
from api.errors import ApiError, Code, masked
from api.pagination import read_limit
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.store import rejected
from pipeline.store.rejected import Place
from schemas.topics import PRICES

Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]
SHOWN: Final = 2000  # bytes
MAX_BYTES: Final = 16 * 1024 * 1024  # published at once
_log: Final = structlog.get_logger("api")

query: Final = QueryType()
mutation: Final = MutationType()
rejected_type: Final = ObjectType("Rejected")


@query.field("rejected")
async def resolve_rejected(
    _: None,
    info: Info,
    first: int | None = None,
    partition: int | None = None,
    reason: str | None = None,
) -> list[Row]:
    """The newest rejected messages."""
    services = info.context.services
    limit = read_limit("first", first, None, services.settings.api.page_max)
    if reason is not None and not reason.isprintable():
        raise ApiError(Code.BAD_INPUT, "a reason is printable")
    async with services.postgres() as pool:
        return await rejected.newest(pool, limit, partition, reason, SHOWN)


@rejected_type.field("value")
def resolve_value(row: Row, _: Info) -> str:
    """Its beginning as text."""
    value: bytes = row["value"]
    return value.decode("utf-8", "replace")


@mutation.field("replayRejected")
async def resolve_replay(
    _: None, info: Info, messages: list[dict[str, int]], *, again: bool
) -> Row:
    """Publish rejected messages to `prices` again, in the order of their places."""
    services = info.context.services
    page_max = services.settings.api.page_max
    if not 0 < len(messages) <= page_max:
        raise ApiError(Code.BAD_INPUT, f"1 to {page_max} messages are taken at once")
    kafka, who = services.kafka, info.context.principal.id
    # In order, so that two at once do not wait for each other's rows.
    places = sorted({(one["partition"], one["offset"], one["index"]) for one in messages})
    async with services.postgres() as pool:
        size, there = await rejected.extent(pool, places)
        if size > MAX_BYTES:
            raise ApiError(Code.LIMITED, f"at most {MAX_BYTES} bytes are published at once")
        async with rejected.replaying(pool, places, who, again=again) as found:
            await _publish(kafka, found)
    _log.info("rejected_replayed", messages=len(found), again=again, principal=who)
    return {
        "published": len(found),
        "missing": len(places) - there,
        "left": max(there - len(found), 0),
    }


async def _publish(kafka: str, found: dict[Place, bytes]) -> None:
    """Publish, each on the partition on which it came.

    Raises:
        ApiError: the broker does not take it; some may be there.
    """
    message = "Kafka does not answer; some messages may have been published"
    with masked("replay_failed", message):
        async with Publisher(kafka) as publisher:
            await publisher.deliver(
                Outgoing(PRICES, value, partition=partition)
                for (partition, _, _), value in found.items()
            )


BINDABLES: Final = [query, mutation, rejected_type]
