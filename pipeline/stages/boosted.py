"""Versions of the engine gbdt in the chain: what they say of bars, how a snapshot keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from pipeline.kernels.trees import say
from pipeline.stages.base import State, beside, numbers_named, room
from schemas.blocks import Array
from schemas.models import Activation
from schemas.trees import TreeModel, Trees

_ACTIVATION: Final = "activation"
_HEAD: Final = "head"


@dataclass(frozen=True, slots=True)
class Boosted:
    """The name of a version, and its trees."""

    version: str
    trees: TreeModel


def named(boosted: Boosted | None) -> str | None:
    """Its name; None of none."""
    return None if boosted is None else boosted.version


@dataclass(frozen=True, slots=True)
class Activated:
    """An activation with the versions that it names."""

    activation: Activation
    active: Boosted | None
    shadow: Boosted | None = None
    selected: Mapping[str, Boosted | None] = field(default_factory=dict)  # by regime

    def __post_init__(self) -> None:
        """Refuse other versions than those that are named."""
        told = self.activation
        selected = {regime: named(one) for regime, one in self.selected.items()}
        came = named(self.active), named(self.shadow), selected
        if (told.version, told.shadow, dict(told.selected)) != came:
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
        self._say(bars, features, n, slice(None), n, p)

    def say_at(
        self, bars: Mapping[str, Array], features: Mapping[str, Array], n: int, at: Array
    ) -> Array:
        """The same of some of n bars, those at the places `at` (m,): (m,)."""
        p = np.empty(len(at))
        self._say(bars, features, n, at, len(at), p)
        return p

    def _say(
        self,
        bars: Mapping[str, Array],
        features: Mapping[str, Array],
        n: int,
        at: Array | slice,
        m: int,
        p: Array,
    ) -> None:
        model = self.boosted.trees
        if self._inputs.shape[1] < m:
            self._inputs = room(len(self._row), m)
        for column, name in zip(self._inputs, model.features, strict=True):
            column[:m] = beside(features[name] if name in features else bars[name], n)[at]
        say(model.sigmoid, model.trees, self._inputs, m, self._row, p)


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
    told = {"active": activated.active, "shadow": activated.shadow}
    # Once, in however many regimes it speaks.
    told.update((_role(one.version), one) for one in activated.selected.values() if one is not None)
    for role, boosted in told.items():
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
    selected = {
        regime: None if version is None else _unpacked(state, _role(version))
        for regime, version in activation.selected.items()
    }
    return Activated(activation, _unpacked(state, "active"), _unpacked(state, "shadow"), selected)


def _role(version: str) -> str:
    return f"selected {version}"


def _unpacked(state: State, role: str) -> Boosted | None:
    if f"{role} {_HEAD}" not in state:
        return None
    head = msgspec.json.decode(state[f"{role} {_HEAD}"].tobytes(), type=_Head)
    trees = Trees(*(state[f"{role} {name}"] for name in Trees._fields))
    return Boosted(head.version, TreeModel(head.features, head.sigmoid, trees))


def _bytes(told: object) -> Array:
    return np.frombuffer(msgspec.json.encode(told), np.uint8)
