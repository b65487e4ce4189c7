"""Which message of each partition is the last one committed."""

import asyncio
from collections.abc import Iterable


class Marks:
    """The committed offset by partition; one may wait for it."""

    def __init__(self) -> None:
        self._marks: dict[int, int] = {}
        self._moved = asyncio.Condition()

    def of(self, partition: int) -> int:
        """The last committed offset, -1 before the first."""
        return self._marks.get(partition, -1)

    async def move(self, marks: Iterable[tuple[int, int]]) -> None:
        """Note new marks as (partition, offset)."""
        async with self._moved:
            self._marks.update(marks)
            self._moved.notify_all()

    async def reached(self, partition: int, offset: int) -> None:
        """Wait until the mark of a partition is at an offset or beyond."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.of(partition) >= offset)
