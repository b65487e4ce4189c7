"""Parameters of statements in the binary format of Postgres, for `pipeline.store.session`."""

import struct
from collections.abc import Sequence
from datetime import date
from typing import Final

_EPOCH: Final = date(2000, 1, 1)
_BYTEA, _INT8, _INT4, _TEXT = 17, 20, 23, 25  # identifiers of types


def text(value: str) -> bytes:
    """A `text`, without NUL."""
    return value.encode()


def days(value: date) -> int:
    """What a `date` is made of: days since 2000."""
    return (value - _EPOCH).days


def day(value: date) -> bytes:
    """A `date`."""
    return struct.pack(">i", days(value))


def ints(values: Sequence[int]) -> bytes:
    """An `integer[]`."""
    return _array(_INT4, [struct.pack(">i", value) for value in values])


def bigints(values: Sequence[int]) -> bytes:
    """A `bigint[]`."""
    return _array(_INT8, [struct.pack(">q", value) for value in values])


def texts(values: Sequence[str]) -> bytes:
    """A `text[]`, without NUL."""
    return _array(_TEXT, [value.encode() for value in values])


def byteas(values: Sequence[bytes]) -> bytes:
    """A `bytea[]`."""
    return _array(_BYTEA, values)


def _array(kind: int, values: Sequence[bytes]) -> bytes:
    """One dimension from 1 on, without NULL."""
    parts = [struct.pack(">iiIii", 1, 0, kind, len(values), 1)]
    for value in values:
        parts += (struct.pack(">i", len(value)), value)
    return b"".join(parts)
