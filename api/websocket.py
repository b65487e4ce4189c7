"""The protocol graphql-transport-ws, with the close codes of its document."""

import asyncio
from collections.abc import Callable, Hashable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final

from ariadne.asgi.handlers.base import GraphQLWebsocketHandlerBase
from ariadne.graphql import parse_query, subscribe
from ariadne.utils import get_operation_type
from graphql import DocumentNode, GraphQLError, OperationType, located_error
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from api.access import Access, credential_of, only_header
from api.context import Context
from api.encoding import encode
from api.errors import ApiError, Code, error_body
from api.execution import RowExecutor
from api.frames import wire_of
from api.messages import (
    PROTOCOL,
    Closed,
    Message,
    id_of,
    invalid,
    operation_of,
    read_message,
    refused,
)
from api.persisted import Persisted
from api.rates import Rates
from api.renderings import Rendering, Renderings
from pipeline.waiting import ended

INIT_SECONDS: Final = 5.0
SEND_SECONDS: Final = 20.0  # until a client that does not read is given up
_CLOSE_SECONDS: Final = 1.0


class WebSocketHandler(GraphQLWebsocketHandlerBase):
    """Serves the connections of those who are let in."""

    def __init__(
        self,
        access: Access,
        rates: Rates,
        renderings: Renderings,
        persisted: Persisted,
        *,
        max_operations: int,
        init_seconds: float = INIT_SECONDS,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        super().__init__()
        self.access = access
        self.rates = rates
        self.renderings = renderings
        self.persisted = persisted
        self.max_operations = max_operations
        self.init_seconds = init_seconds
        self.send_seconds = send_seconds

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
            await connection.cancel()
            # The client was faster, or does not read even this.
            with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await websocket.close(closed.code, closed.reason)
        except WebSocketDisconnect:
            pass
        finally:
            await connection.cancel()

    async def results(
        self, websocket: WebSocket, payload: Message
    ) -> list[Any] | Message | Rendering:
        """Start an operation: its one result, or those to come, or a list of its errors."""
        await self.rates.spend(websocket.scope["principal"])
        payload = self.persisted.read(payload)
        context = await self.get_context_for_request(websocket, payload)
        try:
            document = parse_query(context, self.query_parser, payload)
            kind = get_operation_type(document, payload.get("operationName"))
        except GraphQLError as error:
            return [self.error_formatter(error, self.debug)]
        if self.schema is None or self.http_handler is None:
            raise TypeError("the handler was not configured")
        if kind is OperationType.SUBSCRIPTION:
            return await self.renderings.get(
                _asked(payload, websocket), partial(self._begin, payload, context, document)
            )
        _, result = await self.http_handler.execute_graphql_query(
            websocket, payload, context_value=context, query_document=document
        )
        return result if "data" in result else list(result["errors"])

    async def _begin(
        self, payload: Message, context: Context, document: DocumentNode
    ) -> list[Any] | Rendering:
        if self.schema is None:
            raise TypeError("the handler was not configured")
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
            executor_class=RowExecutor,
        )
        return (
            found if isinstance(found, list) else Rendering(found, context.listeners, self.describe)
        )

    def describe(self, error: Exception) -> Message:
        """An error as clients are told."""
        formatted: Message = self.error_formatter(located_error(error), False)
        return formatted


def _asked(payload: Message, websocket: WebSocket) -> Hashable:
    """What two subscriptions must share to have the same results: rights are those of a role."""
    variables = encode(payload.get("variables"))
    role = websocket.scope["principal"].role
    return (payload["query"], payload.get("operationName"), variables, role)


class Connection:
    """One client: what it may send next, and its operations under way."""

    def __init__(self, handler: WebSocketHandler, websocket: WebSocket) -> None:
        self._handler = handler
        self._websocket = websocket
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._initialised = False
        self._acknowledged = False
        self._served = False
        self._limit = asyncio.timeout(handler.init_seconds)
        self._ending = Closed(4408, "Connection initialisation timeout")

    async def serve(self) -> None:
        """Take messages until the end.

        Raises:
            Closed: the server ends it.
            WebSocketDisconnect: the client ended it.
        """
        try:
            async with self._limit:
                while True:
                    await self._take(read_message(await self._websocket.receive()))
        except TimeoutError as error:
            raise self._ending from error
        finally:
            self._served = True
            self._handler.access.leave(self)

    def expel(self) -> None:
        """End it: its key or token is not valid any more."""
        self._end(Closed(4403, "Forbidden"))

    def _end(self, closed: Closed) -> None:
        if not self._served and not self._limit.expired():
            self._ending = closed
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def cancel(self) -> None:
        """End all operations."""
        tasks = list(self._operations.values())
        await ended(*tasks)

    async def _take(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "connection_init":
            await self._init(message)
        elif kind == "ping":
            await self._send({"type": "pong"})
        elif kind == "subscribe":
            await self._subscribe(id_of(message), message)
        elif kind == "complete":
            operation = self._operations.pop(id_of(message), None)
            if operation is not None:
                operation.cancel()
        elif kind != "pong":
            raise invalid("unknown type")

    async def _init(self, message: Message) -> None:
        if self._initialised:
            raise Closed(4429, "Too many initialisation requests")
        self._initialised = True
        credential = credential_of(message.get("payload"), only_header(self._websocket))
        try:
            principal = self._handler.access.admit(credential)
            self._handler.access.enter(self, principal)
        except ApiError as error:
            raise refused(error) from error
        self._websocket.scope["principal"] = principal
        self._limit.reschedule(None)
        self._acknowledged = True
        await self._send({"type": "connection_ack"})

    async def _subscribe(self, name: str, message: Message) -> None:
        if not self._acknowledged:
            raise Closed(4401, "Unauthorized")
        if name in self._operations:
            # Not with the id, which is the client's and may be long.
            raise Closed(4409, "Subscriber for this id already exists")
        payload = operation_of(message)
        if len(self._operations) >= self._handler.max_operations:
            # Here and not in a task: a client that does not read this is not read from either.
            told = f"{self._handler.max_operations} operations at once are allowed on a connection"
            await self._fail(name, error_body(Code.LIMITED, told)["errors"])
            return
        task = asyncio.create_task(self._operate(name, payload))
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

    async def _operate(self, name: str, payload: Message) -> None:
        try:
            errors = await self._run(name, payload)
            # Forgotten first: the client may use the id again as soon as it reads this.
            self._operations.pop(name, None)
            if errors is None:
                await self._send({"id": name, "type": "complete"})
            else:
                await self._fail(name, errors)
        except WebSocketDisconnect:
            return
        except Closed as closed:
            self._end(closed)

    async def _run(self, name: str, payload: Message) -> list[Any] | None:
        """Send all results of an operation; its errors if it came to none, or ended by one."""
        try:
            found = await self._handler.results(self._websocket, payload)
            if isinstance(found, list):
                return found
            if isinstance(found, Rendering):
                return await self._follow(name, found)
            await self._send({"id": name, "type": "next", "payload": found})
        except (WebSocketDisconnect, Closed):
            raise
        except Exception as error:  # noqa: BLE001 - the client is told, masked, and the log more
            return [self._handler.describe(error)]
        return None

    async def _follow(self, name: str, rendering: Rendering) -> list[Any] | None:
        """Send what is rendered for all who asked the same; here what cannot be written at once."""
        wire, tally = wire_of(self._websocket.scope), self._handler.renderings.tally
        async with (
            rendering.joined(name, wire, tally) as outbox,
            aclosing(outbox.messages()) as messages,
        ):
            async for message in messages:
                await self._send_text(message)
        return outbox.errors

    async def _fail(self, name: str, errors: list[Any]) -> None:
        await self._send({"id": name, "type": "error", "payload": errors})

    async def _send(self, message: Message) -> None:
        await self._send_text(encode(message))

    async def _send_text(self, text: bytes) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            async with asyncio.timeout(self._handler.send_seconds):
                await self._websocket.send_text(text.decode())
        except TimeoutError as error:
            raise Closed(1013, "Too slow") from error
