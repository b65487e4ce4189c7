"""What the stream is told of models: which versions speak, and what was refused."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.clock import now_ns
from pipeline.errors import RefusedError, UnavailableError
from pipeline.models import registry
from pipeline.models.registry import Change, FeatureSetOf, Shadowed
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from schemas.alerts import refusal_document
from schemas.codec import json_bytes
from schemas.models import Promotion
from schemas.topics import ALERTS, MODELS

T = TypeVar("T")
# A change, told: of a version or a model, for a reason.
Announced = Callable[[Pool, str, str, FeatureSetOf, str], Awaitable[T]]


async def promote(
    pool: Pool,
    kafka: str,
    version: str,
    feature_set_of: FeatureSetOf,
    reason: str = "",
    generation: int | None = None,
    *,
    watch: bool = False,
) -> Change:
    """Make a version active and tell the stream; a refusal is an alert.

    To repeat it tells the stream what it was not told. Raises what `registry.promote` raises, and:

    Raises:
        UnavailableError: a server does not answer; the message says whether the version is active.
    """
    model = (await registry.version_of(pool, version))["model"]
    change = partial(
        registry.promote, pool, version, feature_set_of, reason, generation, watch=watch
    )
    return await telling(pool, kafka, model, version, change, _promoted)


async def rollback(
    pool: Pool,
    kafka: str,
    model: str,
    feature_set_of: FeatureSetOf,
    reason: str = "",
    generation: int | None = None,
) -> Change:
    """Go back to the version before the active one and tell the stream; a refusal is an alert.

    Raises what `registry.rollback` raises, and as `promote`.
    """
    change = partial(registry.rollback, pool, model, feature_set_of, reason, generation)
    return await telling(pool, kafka, model, "", change, _promoted)


async def shadow(
    pool: Pool, kafka: str, version: str, feature_set_of: FeatureSetOf, reason: str = ""
) -> Shadowed:
    """Have a version predict beside the active one and tell the stream; a refusal is an alert.

    Raises what `registry.shadow` raises, and as `promote`.
    """
    model = (await registry.version_of(pool, version))["model"]
    change = partial(registry.shadow, pool, version, feature_set_of, reason)
    return await telling(pool, kafka, model, version, change, _shadowed)


async def unshadow(
    pool: Pool, kafka: str, model: str, _: FeatureSetOf, reason: str = ""
) -> Shadowed:
    """Have none predict beside the active version and tell the stream.

    Raises what `registry.unshadow` raises, and as `promote`.
    """
    change = partial(registry.unshadow, pool, model, reason)
    return await telling(pool, kafka, model, "", change, _shadowed)


def _promoted(change: Change) -> tuple[str, str]:
    """What is so, and the command that does it again."""
    return f"{change.version} is active", f"promote {change.version}"


def _shadowed(change: Shadowed) -> tuple[str, str]:
    if change.shadow is None:
        return f"{change.model} has no shadow any more", f"shadow {change.model} --none"
    return f"{change.shadow} is the shadow", f"shadow {change.shadow}"


async def telling(
    pool: Pool,
    kafka: str,
    model: str,
    version: str,
    change: Callable[[], Awaitable[T]],
    words: Callable[[T], tuple[str, str]],
) -> T:
    """Make a change and tell the stream; a refusal is an alert.

    `words` of a change are what is so by it, and the command that does it again. Raises what
    `change` raises, and:

    Raises:
        UnavailableError: a server does not answer; the message says whether the change is made.
    """
    async with Publisher(kafka) as publisher:  # before anything is changed
        try:
            changed = await change()
        except RefusedError as error:
            await alert(publisher, model, version, str(error))
            raise
        try:
            await announce(pool, publisher)
        except UnavailableError as error:
            so, again = words(changed)
            raise UnavailableError(
                f"{so}, but the stream was not told: {error}; `tickstream models {again}` tells it"
            ) from error
        return changed


async def announce(pool: Pool, publisher: Publisher) -> list[Promotion]:
    """Publish what was changed since the last announcement of each model, in the order of changes.

    Raises:
        UnavailableError: a server does not answer; what it was about is announced the next time.
    """
    async with pool.acquire() as connection, connection.transaction():
        # The rows are locked: of two that announce, the older news cannot come last.
        rows = await connection.fetch(statement("unannounced"))
        told = [Promotion(**{**row, "selected": json.loads(row["selected"])}) for row in rows]
        await publisher.deliver(
            Outgoing(MODELS, json_bytes(one.model_dump()), one.model.encode()) for one in told
        )
        for one in told:
            await connection.execute(statement("set_announced"), one.model, one.generation)
    return told


async def alert(publisher: Publisher, model: str, version: str, why: str) -> None:
    """Tell the topic `alerts` that a version was refused.

    Raises:
        UnavailableError: the broker does not take it.
    """
    document = refusal_document(model, version, why, now_ns())
    await publisher.deliver([Outgoing(ALERTS, json_bytes(document), model.encode())])
