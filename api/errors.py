"""What a client may learn of an error, and the only way errors leave the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final

import structlog
from graphql import GraphQLError

from pipeline.errors import UnavailableError
from pipeline.settings import fresh_id

_log: Final = structlog.get_logger("api")


class Code(StrEnum):
    """`extensions.code` of an error."""

    BAD_REQUEST = "BAD_REQUEST"
    """The document or its variables do not fit the schema."""
    BAD_INPUT = "BAD_INPUT"
    """An argument fits the schema but makes no sense."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """No key or token, or none that is valid."""
    FORBIDDEN = "FORBIDDEN"
    """The role of the key or token does not allow it."""
    LIMITED = "LIMITED"
    """Too much was asked for at once."""
    UNKNOWN_DOCUMENT = "PERSISTED_QUERY_NOT_FOUND"
    """No document has the id that was given; clients of Apollo know the code by this name."""
    CONFLICT = "CONFLICT"
    """What is there does not allow it; look at it and decide again."""
    UNAVAILABLE = "UNAVAILABLE"
    """A server behind the API is away; try again."""
    INTERNAL = "INTERNAL"
    """A fault of ours; `extensions.id` finds it in the log."""


class ApiError(Exception):
    """An error whose message is meant for the client."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class LimitedError(ApiError):
    """Too much at once; it may be asked again after some seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(Code.LIMITED, message)
        self.seconds = seconds


@contextmanager
def masked(event: str, message: str, *also: type[Exception]) -> Iterator[None]:
    """Say to clients that a server is away, and why to the log only: that text holds addresses.

    Raises:
        ApiError: the block failed by an `UnavailableError` or one of these.
    """
    kinds: tuple[type[Exception], ...] = (UnavailableError, *also)
    try:
        yield
    except kinds as error:
        _log.warning(event, error=" ".join(str(error).split()))
        raise ApiError(Code.UNAVAILABLE, message) from error


def error_body(code: Code, message: str) -> dict[str, Any]:
    """A whole response that is one error."""
    return {"errors": [{"message": message, "extensions": {"code": code.value}}]}


def is_request_error(error: dict[str, Any]) -> bool:
    """Whether a formatted error was found before execution began: it then has no path."""
    return "path" not in error


def format_error(error: GraphQLError, _debug: bool = False) -> dict[str, Any]:
    """An error as clients see it: the text of an exception we did not write stays here."""
    cause: BaseException | None = error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    shown = dict(error.formatted)
    if isinstance(cause, ApiError):
        return {**shown, "message": str(cause), "extensions": {"code": cause.code.value}}
    if cause is None and error.path is None:
        # Found by the parser, by validation or while reading variables: about the request only.
        return {**shown, "extensions": {"code": Code.BAD_REQUEST.value}}
    found_by = fresh_id()
    _log.error("request_failed", id=found_by, path=error.path, exc_info=cause or error)
    extensions = {"code": Code.INTERNAL.value, "id": found_by}
    return {**shown, "message": "Internal error", "extensions": extensions}
