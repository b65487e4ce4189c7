"""Taking a partition over: raise its epoch, load its state, replay the topic up to its mark."""

import asyncio
from typing import Final

import structlog

from agents.ports import Models, Own, Owned, Source, Store
from agents.retries import insist, now
from pipeline.errors import StateError

LOG: Final = structlog.get_logger()


async def claim(
    partition: int, source: Source, store: Store, own: Own, models: Models, patience: float
) -> Owned:
    """Own a partition, its state behind its stored mark.

    Whatever an older owner may have published is made again as it was made: versions are swapped
    where it had planned it, and otherwise not before what is on the topic now.

    Raises:
        UnavailableError: a server stayed away for longer than `patience` seconds.
        StateError: its rows were made with other settings, or by a version that is gone.
    """
    start = now()
    found = await insist("claim", patience, lambda: store.claim(partition))
    owned = own(partition, found.epoch)
    if found.snapshot is not None:
        try:
            owned.restore(found.snapshot_offset, found.snapshot)
        except StateError as error:
            LOG.warning("snapshot_refused", partition=partition, error=str(error))
            owned.reset()
    last = owned.activation
    left = [one for one in found.activations if last is None or one.place > last.place]
    owned.plan(await insist("read models", patience, lambda: models.activated(left)))
    if found.epoch > 1:
        await ask_for_the_end(owned, source, patience)
    first = owned.next_offset

    async def catch_up() -> None:
        # Begins where it was interrupted: what was stepped already is below next_offset.
        if owned.next_offset <= found.mark:
            async for messages in source.reread(partition, owned.next_offset, found.mark + 1):
                owned.catch_up(messages)
                await asyncio.sleep(0)

    await insist("catch up", patience, catch_up)
    owned.next_offset = max(owned.next_offset, found.mark + 1)
    owned.settled()
    LOG.info(
        "partition_claimed",
        partition=partition,
        epoch=found.epoch,
        mark=found.mark,
        replayed=found.mark + 1 - first,
        seconds=round(now() - start, 3),
    )
    return owned


async def ask_for_the_end(owned: Owned, source: Source, patience: float) -> None:
    """Swap no versions at what is on the topic now: whoever had the partition may publish it yet.

    It is to be asked after the partition was given to us: who had it before gets no more then.

    Raises:
        UnavailableError: the broker stayed away for longer than `patience` seconds.
    """
    owned.published = await insist("ask for the end", patience, lambda: source.end(owned.partition))
