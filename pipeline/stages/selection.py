"""Which version of the engine gbdt speaks of a bar: that of the volatility regime it is held in."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from pipeline.kernels import selection as kernels
from pipeline.stages.boosted import Boosted, Speaker
from schemas.blocks import VOL_REGIMES, Array

HELD: Final = "held"  # the state, a row for each symbol
_ACTIVE: Final = -1


class Selector:
    """Versions by regime, beside the active one, which speaks of all other bars.

    What it remembers of the symbols is an array of the stage that asks it.
    """

    def __init__(self, selected: Mapping[str, Boosted | None], active: Speaker | None) -> None:
        """Args: the versions by regime, None: silent there; and who speaks in the others.

        Raises:
            MisuseError: bars and features have no column of numbers that one looks at.
        """
        versions = {one.version: Speaker(one) for one in selected.values() if one is not None}
        self._active = active
        self._speakers: dict[int, Speaker | None] = {
            VOL_REGIMES.index(regime): None if one is None else versions[one.version]
            for regime, one in selected.items()
        }
        # By the regime, and in the last place for none: it has a version of its own, or not.
        codes = range(len(VOL_REGIMES))
        own = [code if code in self._speakers else _ACTIVE for code in codes]
        self._own = np.array([*own, _ACTIVE], np.int32)

    def say(
        self,
        bars: Mapping[str, Array],
        features: Mapping[str, Array],
        vol_regime: Array,
        hold: int,
        state: Array,
        p: Array,
    ) -> Array:
        """The probabilities that the closes of bars (n,) rise, into p (n or more,).

        Returns:
            By the version of which regime each is: codes int32 (n,), -1 where the active one, or
            nobody, speaks.
        """
        n = len(vol_regime)
        found = np.empty(n, np.int32)
        kernels.held(hold, bars["symbol"], bars["life"], vol_regime, state, found)
        found = self._own[found]
        p[:n] = np.nan
        for code in np.unique(found).tolist():
            speaker = self._active if code == _ACTIVE else self._speakers[code]
            if speaker is None:
                continue
            at = np.flatnonzero(found == code)
            p[at] = speaker.say_at(bars, features, n, at)
        return found
