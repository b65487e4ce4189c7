"""The detectors of one partition, and their state as bytes that tell whether they are whole."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.errors import StateError
from pipeline.models.drift import Drift, DriftAlarm, DriftRow, State, watched_features
from pipeline.models.losses import LossDrift
from schemas.blocks import Array, Rows

STATE_VERSION: Final = 2
MOST: Final = 32  # symbols of a partition: each takes a megabyte while it is measured
_DIGEST: Final = 16
_ARRAY: Final = 1  # code of an array in MessagePack


class Detectors:
    """Watches the features of a partition, and the losses of its engines."""

    def __init__(self, chain: str, most: int = MOST) -> None:
        self._features = Drift(watched_features(), most=most)
        self._engines = LossDrift(most=most)
        what = [chain, watched_features(), self._engines.names, most]
        self._fingerprint = hashlib.blake2b(json.dumps(what).encode(), digest_size=_DIGEST)

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
        body = msgspec.msgpack.encode(state, enc_hook=_encoded)
        return msgspec.msgpack.encode(
            (STATE_VERSION, self._fingerprint.hexdigest(), _digest(body), body)
        )

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot, bit for bit.

        Raises:
            StateError: it is damaged, or something else was watched.
        """
        try:
            version, fingerprint, digest, body = msgspec.msgpack.decode(
                data, type=tuple[int, str, str, bytes]
            )
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError("the kept state cannot be read") from error
        if version != STATE_VERSION or fingerprint != self._fingerprint.hexdigest():
            raise StateError("the kept state is of other settings, features or another version")
        if _digest(body) != digest:
            raise StateError("the checksum of the kept state differs")
        state: dict[str, State] = msgspec.msgpack.decode(body, ext_hook=_decoded)
        self._features.restore(state["features"])
        self._engines.restore(state["engines"])


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=_DIGEST).hexdigest()


def _encoded(array: Any) -> msgspec.msgpack.Ext:
    parts = (array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
    return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(parts))


def _decoded(_code: int, data: memoryview) -> Array:
    dtype, shape, body = msgspec.msgpack.decode(data, type=tuple[str, list[int], bytes])
    return np.frombuffer(body, np.dtype(dtype)).reshape(shape).copy()
