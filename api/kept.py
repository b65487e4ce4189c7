"""What is kept for who asks the same again."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
ASKED: Final = 1024


class Kept(Generic[K, V]):
    """Values by their keys, at most so many; the one that was not asked for the longest goes.

    What is asked once and never again is not kept: it would fill the memory with values that are
    cycles, and the collector of all garbage would hold up everybody.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._asked: OrderedDict[int, None] = OrderedDict()  # hashes of what was asked once

    def __len__(self) -> int:
        """How many values are kept."""
        return len(self._values)

    @property
    def asked(self) -> int:
        """How many keys are remembered that were asked once."""
        return len(self._asked)

    def get(self, key: K) -> V | None:
        """The value of a key."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
        return found

    def wants(self, key: K) -> bool:
        """Whether a key was asked before, so that its value should be put here."""
        name = hash(key)
        if name in self._asked:
            return True
        self._asked[name] = None
        if len(self._asked) > ASKED:
            self._asked.popitem(last=False)
        return False

    def put(self, key: K, value: V) -> None:
        """Keep a value."""
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget all of it."""
        self._values.clear()
        self._asked.clear()
