"""Whether partitions are still ours when something of them is to be published."""

from collections.abc import Iterable
from typing import Final

from agents.ports import Store
from agents.retries import insist, now
from pipeline.errors import FencedError
from pipeline.store.live import PartitionBatch

# Of the session timeout: for so long nobody else can have been given a partition, for the group
# waits for longer until it gives a silent member up.
_SURE: Final = 0.5


async def is_ours(store: Store, partition: int, epoch: int, patience: float) -> bool:
    """Whether nobody has taken a partition since our epoch began.

    Raises:
        UnavailableError: the store failed for longer than `patience` seconds.
    """
    return await insist("claim", patience, lambda: store.holds(partition, epoch))


class Ownership:
    """When each partition was ours for certain; only after a pause anybody is asked."""

    def __init__(self, store: Store, session_timeout: float, patience: float) -> None:
        self._store = store
        self._seconds = _SURE * session_timeout
        self._patience = patience
        self._confirmed: dict[int, float] = {}

    def confirm(self, batches: Iterable[PartitionBatch], at: float) -> None:
        """Note that the partitions of batches were ours at a time: the store has taken them."""
        for batch in batches:
            self._confirmed[batch.partition] = at

    async def make_sure(self, batches: Iterable[PartitionBatch]) -> None:
        """Publish nothing of a partition that another worker may have taken while we slept.

        It may have swapped versions meanwhile, and its rows would not be ours.

        Raises:
            FencedError: one is another worker's now.
        """
        late = now() - self._seconds
        for partition, epoch in {(batch.partition, batch.epoch) for batch in batches}:
            if self._confirmed.get(partition, late) > late:
                continue
            asked = now()
            if not await is_ours(self._store, partition, epoch, self._patience):
                raise FencedError(f"partition {partition} has a newer owner")
            self._confirmed[partition] = asked
