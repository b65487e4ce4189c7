"""Messages of graphql-transport-ws as they come in, and the codes that end a connection."""

from typing import Any, Final

import orjson
from ariadne.graphql import validate_data
from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect

from api.errors import ApiError, Code
from api.persisted import names_document

_ANY: Final = "{__typename}"
PROTOCOL: Final = "graphql-transport-ws"
Message = dict[str, Any]


class Closed(Exception):  # noqa: N818 - a close is the protocol's word for it
    """The connection ends with a code of the protocol."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason  # at most 123 bytes


def invalid(what: str) -> Closed:
    """The close for a message that is none of the protocol."""
    return Closed(4400, f"Invalid message: {what}")


def refused(error: ApiError) -> Closed:
    """The close for one who is not let in: for good, or for now."""
    if error.code is Code.UNAUTHENTICATED:
        return Closed(4403, "Forbidden")
    return Closed(1013, "Try again later")


def read_message(event: Any) -> Message:
    """The message in an event of ASGI.

    Raises:
        Closed: it is none.
        WebSocketDisconnect: the client has gone.
    """
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code") or 1005)
    try:
        message = orjson.loads(event.get("text") or b"")
    except orjson.JSONDecodeError as error:
        raise invalid("not JSON text") from error
    if not isinstance(message, dict):
        raise invalid("not an object")
    if not isinstance(message.get("payload", {}), dict | None):
        raise invalid("the payload is not an object")
    return message


def id_of(message: Message) -> str:
    """The id of an operation.

    Raises:
        Closed: it has none.
    """
    name = message.get("id")
    if not isinstance(name, str) or not name:
        raise invalid("the id is not a text")
    return name


def operation_of(message: Message) -> Message:
    """The operation in a `subscribe`.

    Raises:
        Closed: it is none.
    """
    payload = message.get("payload")
    try:
        if isinstance(payload, dict) and payload.get("query") is None and names_document(payload):
            validate_data({**payload, "query": _ANY})  # it is looked up when it is its turn
        else:
            validate_data(payload)
    except ApiError as error:
        raise invalid(str(error)) from error
    except GraphQLError as error:
        raise invalid("a subscribe needs a payload with a query or the id of a document") from error
    return payload or {}
