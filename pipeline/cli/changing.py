"""Commands that may change the registry of models."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from pipeline.cli.options import demand, named_or_running, with_pool
from pipeline.models import remembered
from pipeline.settings import Settings
from pipeline.store.pool import Pool

T = TypeVar("T")


def with_registry(
    settings: Settings, data_dir: Path | None, work: Callable[[Pool, str], Awaitable[T]]
) -> T:
    """Run a command's work with the database and the address of Kafka, which is told the news.

    Both are demanded before the first is touched; readers of the registry read it again after it.

    Raises:
        MisuseError: one of them is neither named nor running.
    """
    addresses = named_or_running(settings, data_dir)
    _, kafka = demand(addresses, "postgres", "kafka")

    async def changing(pool: Pool) -> T:
        async with remembered.changing(addresses["redis"], settings.cache):
            return await work(pool, kafka)

    return with_pool(settings, data_dir, changing)
