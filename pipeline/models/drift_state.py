"""The detectors of one partition, and their state."""

from collections.abc import Iterator
from typing import Final

from pipeline.models.drift import Drift, DriftAlarm, DriftRow, State, watched_features
from pipeline.models.losses import LossDrift
from pipeline.models.states import fingerprint, packed, unpacked
from schemas.blocks import Rows

STATE_VERSION: Final = 2
MOST: Final = 32  # symbols of a partition: each takes a megabyte while it is measured


class Detectors:
    """Watches the features of a partition, and the losses of its engines."""

    def __init__(self, chain: str, most: int = MOST) -> None:
        self._features = Drift(watched_features(), most=most)
        self._engines = LossDrift(most=most)
        self._fingerprint = fingerprint(chain, watched_features(), self._engines.names, most)

    def step(self, rows: Rows) -> list[DriftAlarm]:
        """Take the next rows of `features` or of `predictions`; the alarms they give."""
        if rows.stage == "features":
            return self._features.step(rows)
        return self._engines.step(rows)

    def rows(self) -> Iterator[DriftRow]:
        """How it stands with each series."""
        yield from self._features.rows()
        yield from self._engines.rows()

    def snapshot(self) -> bytes:
        """The whole state: version, fingerprint of what is watched, checksum, arrays."""
        state = {
            "features": self._features.snapshot(),
            "engines": self._engines.snapshot(),
        }
        return packed(STATE_VERSION, self._fingerprint, state)

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot, bit for bit.

        Raises:
            StateError: it is damaged, or something else was watched.
        """
        state: dict[str, State] = unpacked(STATE_VERSION, self._fingerprint, data)
        self._features.restore(state["features"])
        self._engines.restore(state["engines"])
