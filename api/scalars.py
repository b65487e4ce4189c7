"""The scalars that GraphQL does not bring."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from ariadne import ScalarType
from graphql import GraphQLError

from schemas.times import NO_TIME, format_rfc3339, parse_rfc3339

date_time: Final = ScalarType("DateTime")
big_int: Final = ScalarType("BigInt")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DECIMAL: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


@date_time.serializer
@lru_cache(4096, typed=True)  # the same row is asked for until there is a newer one
def write_time(value: int | datetime) -> str:
    """Nanoseconds since 1970 UTC, or a time of the database, as text."""
    return format_rfc3339(_nanos(value) if isinstance(value, datetime) else value)


@date_time.value_parser
def read_time(value: Any) -> int:
    """Text as nanoseconds since 1970 UTC."""
    nanos = parse_rfc3339(value) if isinstance(value, str) else NO_TIME
    if nanos == NO_TIME:
        raise GraphQLError("DateTime takes RFC 3339 text with a zone, as 2026-01-05T09:30:00Z.")
    return nanos


def _nanos(moment: datetime) -> int:
    """A time of the database, which has microseconds, in ns."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


@big_int.value_parser
def read_integer(value: Any) -> int:
    """Decimal text, or an integer, of 64 bits."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise GraphQLError("BigInt takes an integer of 64 bits, as text or as a number.")
    return value


@big_int.serializer
def write_integer(value: int) -> str:
    """An integer as decimal text."""
    return str(int(value))
