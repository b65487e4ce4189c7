"""The registry as many readers ask for it: from the cache, until somebody changes it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pipeline.cache.kinds import REGISTRY
from pipeline.cache.latest import open_cache
from pipeline.cache.manager import CacheManager
from pipeline.errors import UnavailableError
from pipeline.settings import CacheSettings

_VERSIONS: Final = "versions"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


async def versions(
    manager: CacheManager, load: Callable[[], Awaitable[Sequence[Row]]]
) -> list[Row]:
    """The versions of all models as `load` gives them, but for `made_at`: ns since 1970 UTC.

    Without Redis they are loaded; raises what `load` raises.
    """

    async def read() -> list[Row]:
        return [{**row, "made_at": _nanos(row["made_at"])} for row in await load()]

    found: list[Row] = await manager.read(REGISTRY, _VERSIONS, read)
    return found


async def forget(manager: CacheManager) -> None:
    """Have every reader read the registry again; to be called after each change, made or tried.

    With Redis away nobody is told: what is kept there is a minute old at most.
    """
    with suppress(UnavailableError):
        await manager.invalidate(REGISTRY, _VERSIONS)


@asynccontextmanager
async def changing(redis: str | None, settings: CacheSettings) -> AsyncIterator[None]:
    """A block that may change the registry, of a process that has no cache open."""
    try:
        yield
    finally:
        if redis is not None:
            with suppress(UnavailableError):
                cache = open_cache(redis, settings)
                try:
                    await forget(CacheManager(cache))
                finally:
                    await cache.close()


def _nanos(moment: datetime) -> int:
    """A time of the database, which has microseconds, in ns."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
