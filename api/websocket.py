"""The protocol graphql-transport-ws, with the close codes of its document."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

import orjson
from ariadne.asgi.handlers.base import GraphQLWebsocketHandlerBase
from ariadne.graphql import parse_query, subscribe, validate_data
from ariadne.utils import get_operation_type
from graphql import ExecutionResult, GraphQLError, OperationType, located_error
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from api.access import Access, credential_of, only_header
from api.errors import ApiError, Code, error_body
from api.principals import Principal
from api.rates import Rates
from api.transport import encode

PROTOCOL: Final = "graphql-transport-ws"
INIT_SECONDS: Final = 5.0
MAX_OPERATIONS: Final = 64
Message = dict[str, Any]


class Closed(Exception):  # noqa: N818 - a close is the protocol's word for it
    """The connection ends with a code of the protocol."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def invalid(what: str) -> Closed:
    """The close for a message that is none of the protocol."""
    return Closed(4400, f"Invalid message: {what}")


class WebSocketHandler(GraphQLWebsocketHandlerBase):
    """Serves the connections of those who are let in."""

    def __init__(self, access: Access, rates: Rates, *, init_seconds: float = INIT_SECONDS) -> None:
        super().__init__()
        self.access = access
        self.rates = rates
        self.init_seconds = init_seconds

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; the entry point of ASGI."""
        await self.handle_websocket(WebSocket(scope, receive, send))

    async def handle_websocket(self, websocket: WebSocket) -> None:
        """Serve one connection to its end."""
        if PROTOCOL not in websocket.scope.get("subprotocols", ()):
            # Accepted first: a browser is told the code of an open connection only.
            await websocket.accept()
            await websocket.close(4406, "Subprotocol not acceptable")
            return
        await websocket.accept(PROTOCOL)
        connection = Connection(self, websocket)
        try:
            await connection.serve()
        except Closed as closed:
            with suppress(RuntimeError, WebSocketDisconnect):  # the client was faster
                await websocket.close(closed.code, closed.reason)
        except WebSocketDisconnect:
            pass
        finally:
            await connection.cancel()

    def admit(self, websocket: WebSocket, payload: Any) -> Principal:
        """Let a client in, by its `connection_init` or its handshake.

        Raises:
            Closed: it is not let in.
        """
        try:
            found = self.access.admit(credential_of(payload, only_header(websocket)))
        except ApiError as error:
            if error.code is Code.UNAUTHENTICATED:
                raise Closed(4403, "Forbidden") from error
            raise Closed(1013, "Try again later") from error
        websocket.scope["principal"] = found
        return found

    async def results(
        self, websocket: WebSocket, payload: Message
    ) -> list[Any] | AsyncGenerator[Any, None]:
        """Start an operation: its results to come, or a list of its errors."""
        await self.rates.spend(websocket.scope["principal"])
        context = await self.get_context_for_request(websocket, payload)
        try:
            document = parse_query(context, self.query_parser, payload)
            kind = get_operation_type(document, payload.get("operationName"))
        except GraphQLError as error:
            return [self.error_formatter(error, self.debug)]
        if self.schema is None or self.http_handler is None:
            raise TypeError("the handler was not configured")
        if kind is OperationType.SUBSCRIPTION:
            _, found = await subscribe(
                self.schema,
                payload,
                context_value=context,
                query_document=document,
                query_validator=self.query_validator,
                validation_rules=self.validation_rules,
                introspection=self.introspection,
                logger=self.logger,
                error_formatter=self.error_formatter,
            )
            return found
        _, result = await self.http_handler.execute_graphql_query(
            websocket, payload, context_value=context, query_document=document
        )
        return _once(result) if "data" in result else list(result["errors"])

    def shown(self, result: ExecutionResult | Message) -> Message:
        """A result as the payload of a message."""
        if isinstance(result, dict):
            return result
        payload: Message = {"data": result.data}
        if result.errors:
            payload["errors"] = [self.error_formatter(e, self.debug) for e in result.errors]
        return payload


class Connection:
    """One client: what it may send next, and its operations under way."""

    def __init__(self, handler: WebSocketHandler, websocket: WebSocket) -> None:
        self._handler = handler
        self._websocket = websocket
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._initialised = False
        self._acknowledged = False
        self._limit = asyncio.timeout(handler.init_seconds)

    async def serve(self) -> None:
        """Take messages until the end.

        Raises:
            Closed: the server ends it.
            WebSocketDisconnect: the client ended it.
        """
        try:
            async with self._limit:
                while True:
                    await self._take(await self._receive())
        except TimeoutError as error:
            if not self._limit.expired():
                raise
            if self._acknowledged:
                raise Closed(4403, "Forbidden") from error
            raise Closed(4408, "Connection initialisation timeout") from error
        finally:
            self._handler.access.leave(self)

    def expel(self) -> None:
        """End it: its key or token is not valid any more."""
        self._limit.reschedule(asyncio.get_running_loop().time())

    async def cancel(self) -> None:
        """End all operations."""
        tasks = list(self._operations.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> Message:
        event = await self._websocket.receive()
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

    async def _take(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "connection_init":
            await self._init(message)
        elif kind == "ping":
            await self._send({"type": "pong"})
        elif kind == "subscribe":
            self._subscribe(_id(message), message.get("payload"))
        elif kind == "complete":
            operation = self._operations.pop(_id(message), None)
            if operation is not None:
                operation.cancel()
        elif kind != "pong":
            raise invalid("unknown type")

    async def _init(self, message: Message) -> None:
        if self._initialised:
            raise Closed(4429, "Too many initialisation requests")
        self._initialised = True
        principal = self._handler.admit(self._websocket, message.get("payload"))
        self._limit.reschedule(None)
        self._acknowledged = True
        self._handler.access.enter(self, principal)
        await self._send({"type": "connection_ack"})

    def _subscribe(self, name: str, payload: Any) -> None:
        if not self._acknowledged:
            raise Closed(4401, "Unauthorized")
        if name in self._operations:
            # A close reason holds at most 123 bytes, and the id is the client's.
            raise Closed(4409, "Subscriber for this id already exists")
        try:
            validate_data(payload)
        except GraphQLError as error:
            raise invalid("a subscribe needs a payload with a query") from error
        limited = len(self._operations) >= MAX_OPERATIONS
        run = self._refuse(name) if limited else self._operate(name, payload)
        task = asyncio.create_task(run)
        self._operations[name] = task
        task.add_done_callback(self._forget(name))

    def _forget(self, name: str) -> Callable[[asyncio.Task[None]], None]:
        def forget(task: asyncio.Task[None]) -> None:
            # The id may serve another operation by now.
            if self._operations.get(name) is task:
                del self._operations[name]
            if not task.cancelled():
                task.exception()  # looked at: the connection is gone, its end says so

        return forget

    async def _refuse(self, name: str) -> None:
        message = f"{MAX_OPERATIONS} operations at once are allowed on a connection"
        errors = error_body(Code.LIMITED, message)["errors"]
        await self._send({"id": name, "type": "error", "payload": errors})

    async def _operate(self, name: str, payload: Message) -> None:
        try:
            results = await self._handler.results(self._websocket, payload)
            if isinstance(results, list):
                await self._send({"id": name, "type": "error", "payload": results})
                return
            async with aclosing(results):
                async for result in results:
                    shown = self._handler.shown(result)
                    await self._send({"id": name, "type": "next", "payload": shown})
        except WebSocketDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the client is told, masked, and the log more
            failed = self._handler.error_formatter(located_error(error), False)
            await self._send({"id": name, "type": "error", "payload": [failed]})
            return
        # Forgotten first: the client may use the id again as soon as it reads this.
        self._operations.pop(name, None)
        await self._send({"id": name, "type": "complete"})

    async def _send(self, message: Message) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.send_text(encode(message).decode())


def _id(message: Message) -> str:
    name = message.get("id")
    if not isinstance(name, str) or not name:
        raise invalid("the id is not a text")
    return name


async def _once(result: Message) -> AsyncGenerator[Message, None]:
    yield result
