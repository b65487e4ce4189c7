"""Who asks whether a partition is still ours, and when."""

import asyncio
from typing import Any

import pytest

from agents.ownership import Ownership
from pipeline.errors import FencedError
from pipeline.store.live import PartitionBatch


class Held:
    """A store that counts questions."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.ours = True

    async def holds(self, partition: int, epoch: int) -> bool:
        """Whether it is."""
        self.asked.append((partition, epoch))
        return self.ours


def batch(partition: int) -> PartitionBatch:
    """A batch of nothing."""
    return PartitionBatch(partition, 7, 0, {}, (), (), ())


async def test_only_after_a_pause_anybody_is_asked() -> None:
    """Not while commits confirm it; who finds another owner publishes nothing."""
    store: Any = Held()
    ownership = Ownership(store, 0.2, 1.0)
    loop = asyncio.get_running_loop()
    await ownership.make_sure([batch(0), batch(1), batch(0)])
    assert sorted(store.asked) == [(0, 7), (1, 7)]
    await ownership.make_sure([batch(0), batch(1)])
    assert len(store.asked) == 2
    await asyncio.sleep(0.15)
    ownership.confirm([batch(1)], loop.time())
    await ownership.make_sure([batch(0), batch(1)])
    assert store.asked[2:] == [(0, 7)]
    store.ours = False
    await asyncio.sleep(0.15)
    with pytest.raises(FencedError):
        await ownership.make_sure([batch(1)])
