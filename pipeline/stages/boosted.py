"""A version of the engine gbdt in the chain: what it says of bars, and how a snapshot keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from pipeline.kernels.trees import say
from pipeline.stages.base import State, beside, numbers_named, room
from schemas.blocks import Array
from schemas.trees import TreeModel, Trees

_HEAD: Final = "head"


@dataclass(frozen=True, slots=True)
class Boosted:
    """The name of a version, and its trees."""

    version: str
    trees: TreeModel


class _Head(msgspec.Struct):
    """What a snapshot says of a version beside the arrays of its trees."""

    version: str
    sigmoid: float
    features: tuple[str, ...]


class Speaker:
    """One version; it has no state: what it says of a bar hangs on the columns of that bar only."""

    def __init__(self, boosted: Boosted) -> None:
        """Args: the version.

        Raises:
            MisuseError: bars and features have no column of numbers that it looks at.
        """
        numbers_named(boosted.trees.features, f"{boosted.version}: ")
        self.boosted = boosted
        self._row = np.empty(len(boosted.trees.features))
        self._inputs = np.empty((len(self._row), 0))

    def say(
        self, bars: Mapping[str, Array], features: Mapping[str, Array], n: int, p: Array
    ) -> None:
        """The probabilities that the closes of n bars rise, into p (n or more,)."""
        model = self.boosted.trees
        if self._inputs.shape[1] < n:
            self._inputs = room(len(self._row), n)
        for column, name in zip(self._inputs, model.features, strict=True):
            column[:n] = beside(features[name] if name in features else bars[name], n)
        say(model.sigmoid, model.trees, self._inputs, n, self._row, p)


def nobody() -> Boosted:
    """Trees without a node that look at nothing: what loads the compiled code, of no rows."""
    ints, floats = np.empty(0, np.int64), np.empty(0)
    child, sets = np.empty((0, 2), np.int64), np.zeros(1, np.int64)
    words = np.empty(0, np.uint32)
    trees = Trees(ints, ints, ints, child, floats, floats, sets, words)
    return Boosted("", TreeModel((), 1.0, trees))


def packed(boosted: Boosted, name: str) -> State:
    """A version as arrays whose names begin with `name`; they are shared, nobody writes them."""
    trees = boosted.trees
    head = _Head(boosted.version, trees.sigmoid, trees.features)
    arrays = trees.trees._asdict()
    arrays[_HEAD] = np.frombuffer(msgspec.json.encode(head), np.uint8)
    return {f"{name} {field}": array for field, array in arrays.items()}


def unpacked(state: State, name: str) -> Boosted | None:
    """The version that `packed` put into a state, if there is one."""
    if f"{name} {_HEAD}" not in state:
        return None
    head = msgspec.json.decode(state[f"{name} {_HEAD}"].tobytes(), type=_Head)
    trees = Trees(*(state[f"{name} {field}"] for field in Trees._fields))
    return Boosted(head.version, TreeModel(head.features, head.sigmoid, trees))
