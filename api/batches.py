"""Values of one request by their keys: all that one turn of the loop asks for is read at once."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Read: TypeAlias = Callable[[list[K]], Awaitable[Mapping[K, V | Exception]]]


class Batch(Generic[K, V]):
    """Gathers keys until the loop turns, then reads them by one call; each is read once."""

    def __init__(self, read: Read[K, V]) -> None:
        self._read = read
        self._asked: dict[K, asyncio.Future[V]] = {}
        self._waiting: list[K] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def load(self, key: K) -> "asyncio.Future[V]":
        """The value of a key; `read` gives one or an exception for each, or raises for all."""
        if key not in self._asked:
            loop = asyncio.get_running_loop()
            self._asked[key] = loop.create_future()
            if not self._waiting:
                loop.call_soon(self._begin)
            self._waiting.append(key)
        return self._asked[key]

    def _begin(self) -> None:
        keys, self._waiting = self._waiting, []
        task = asyncio.create_task(self._fill(keys))
        self._tasks.add(task)  # the loop itself holds tasks weakly only
        task.add_done_callback(self._tasks.discard)

    async def _fill(self, keys: list[K]) -> None:
        found: Mapping[K, V | Exception]
        try:
            found = await self._read(keys)
        except Exception as error:  # noqa: BLE001 - raised again where the value is awaited
            found = dict.fromkeys(keys, error)
        for key in keys:
            future, value = self._asked[key], found[key]
            if future.done():  # cancelled: a sibling field failed
                continue
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)


def batch_of(memo: dict[str, Any], name: str, read: Read[K, V]) -> Batch[K, V]:
    """The batch of a request by its name, made when it is first asked for."""
    found: Batch[K, V] | None = memo.get(name)
    if found is None:
        found = memo[name] = Batch(read)
    return found
