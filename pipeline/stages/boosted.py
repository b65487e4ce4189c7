"""Versions of the engine gbdt in the chain: what they say of bars, how a snapshot keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from pipeline.kernels.trees import say
from pipeline.stages.base import State, beside, numbers_named, room
from schemas.blocks import Array
from schemas.models import Activation
from schemas.trees import TreeModel, Trees

_ROLES: Final = ("active", "shadow")
_ACTIVATION: Final = "activation"
_HEAD: Final = "head"


@dataclass(frozen=True, slots=True)
class Boosted:
    """The name of a version, and its trees."""

    version: str
    trees: TreeModel


@dataclass(frozen=True, slots=True)
class Activated:
    """An activation with the versions that it names."""

    activation: Activation
    active: Boosted | None
    shadow: Boosted | None = None

    def __post_init__(self) -> None:
        """Refuse other versions than those that are named."""
        named = self.activation.version, self.activation.shadow
        if named != tuple(one and one.version for one in (self.active, self.shadow)):
            raise ValueError("an activation names other versions than it comes with")


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


def packed(activated: Activated) -> State:
    """An activation with its versions as arrays; those of the trees are shared: nobody writes."""
    state = {_ACTIVATION: _bytes(activated.activation)}
    for role, boosted in zip(_ROLES, (activated.active, activated.shadow), strict=True):
        if boosted is not None:
            trees = boosted.trees
            state[f"{role} {_HEAD}"] = _bytes(_Head(boosted.version, trees.sigmoid, trees.features))
            state.update((f"{role} {name}", v) for name, v in trees.trees._asdict().items())
    return state


def unpacked(state: State) -> Activated | None:
    """What `packed` put into a state, if it did."""
    if _ACTIVATION not in state:
        return None
    activation = msgspec.json.decode(state[_ACTIVATION].tobytes(), type=Activation)
    return Activated(activation, *(_unpacked(state, role) for role in _ROLES))


def _unpacked(state: State, role: str) -> Boosted | None:
    if f"{role} {_HEAD}" not in state:
        return None
    head = msgspec.json.decode(state[f"{role} {_HEAD}"].tobytes(), type=_Head)
    trees = Trees(*(state[f"{role} {name}"] for name in Trees._fields))
    return Boosted(head.version, TreeModel(head.features, head.sigmoid, trees))


def _bytes(told: object) -> Array:
    return np.frombuffer(msgspec.json.encode(told), np.uint8)
