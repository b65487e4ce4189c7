"""The scalars that GraphQL does not bring."""

from typing import Any, Final

from ariadne import ScalarType
from graphql import GraphQLError

from schemas.times import NO_TIME, format_rfc3339, parse_rfc3339

date_time: Final = ScalarType("DateTime")
big_int: Final = ScalarType("BigInt")


@date_time.serializer
def write_time(value: int) -> str:
    """Nanoseconds since 1970 UTC as text."""
    return format_rfc3339(value)


@date_time.value_parser
def read_time(value: Any) -> int:
    """Text as nanoseconds since 1970 UTC."""
    nanos = parse_rfc3339(value) if isinstance(value, str) else NO_TIME
    if nanos == NO_TIME:
        raise GraphQLError("DateTime takes RFC 3339 text with a zone, as 2026-01-05T09:30:00Z.")
    return nanos


@big_int.serializer
def write_integer(value: int) -> str:
    """An integer as decimal text."""
    return str(int(value))
