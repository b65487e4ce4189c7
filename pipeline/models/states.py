"""States of what watches a live run, as bytes that tell whether they are whole."""

import hashlib
import json
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.errors import StateError
from schemas.blocks import Array

_DIGEST: Final = 16
_ARRAY: Final = 1  # code of an array in MessagePack


def fingerprint(*what: Any) -> str:
    """Of what is watched, and how: any JSON values."""
    return _digest(json.dumps(what).encode())


def packed(version: int, fingerprint: str, state: Any) -> bytes:
    """Mappings of arrays with the version of their layout, a fingerprint, and a checksum."""
    body = msgspec.msgpack.encode(state, enc_hook=_encoded)
    return msgspec.msgpack.encode((version, fingerprint, _digest(body), body))


def unpacked(version: int, fingerprint: str, data: bytes) -> Any:
    """What was packed, bit for bit.

    Raises:
        StateError: it is damaged, or something else was watched.
    """
    try:
        made_by, made_of, digest, body = msgspec.msgpack.decode(
            data, type=tuple[int, str, str, bytes]
        )
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateError("the kept state cannot be read") from error
    if made_by != version or made_of != fingerprint:
        raise StateError("the kept state is of other settings, features or another version")
    if _digest(body) != digest:
        raise StateError("the checksum of the kept state differs")
    return msgspec.msgpack.decode(body, ext_hook=_decoded)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=_DIGEST).hexdigest()


def _encoded(array: Any) -> msgspec.msgpack.Ext:
    parts = (array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
    return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(parts))


def _decoded(_code: int, data: memoryview) -> Array:
    dtype, shape, body = msgspec.msgpack.decode(data, type=tuple[str, list[int], bytes])
    return np.frombuffer(body, np.dtype(dtype)).reshape(shape).copy()
