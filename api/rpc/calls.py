"""How a call is let in, bounded in time, and told what went wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from grpc.aio import AbortError, ServicerContext

from api.access import bearer
from api.backing import Backing
from api.context import Context
from api.errors import ApiError, Code, LimitedError
from api.latest import LatestLoader
from api.principals import LOCAL
from api.rules import demand
from pipeline.settings import fresh_id
from pipeline.store.keys import Role

Call = ServicerContext[Any, Any]
_AUTHORIZATION: Final = "authorization"
_SEND_SECONDS: Final = 20.0  # until a client that does not read is given up
_STATUS: Final = {
    Code.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_INPUT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Code.LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.CONFLICT: grpc.StatusCode.ABORTED,
    Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}
_log: Final = structlog.get_logger("api")


class Stream:
    """One who stays: a call that goes on until it is ended."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.limit = asyncio.timeout(None)

    def expel(self) -> None:
        """End it: its key or token is not valid any more."""
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())

    async def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            ApiError: the client has not read for too long.
        """
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._call.write(message)
        except TimeoutError as error:
            if self.limit.expired():
                raise
            raise ApiError(Code.LIMITED, "too slow: what was sent is not read") from error


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets calls in by the same keys, tokens, roles and rates as HTTP and WebSocket."""

    backing: Backing

    async def admit(self, call: Call, role: Role) -> Context:
        """What a call may use.

        Raises:
            ApiError: it is not let in.
        """
        principal = self.backing.access.admit(_credential(call))
        demand(principal, role)
        if principal is not LOCAL:
            await self.backing.rates.spend(principal)
        return Context(self.backing.services, LatestLoader(self.backing.services), principal)

    @asynccontextmanager
    async def staying(self, call: Call, context: Context) -> AsyncIterator[Stream]:
        """For the length of a block a call stays, as long as its key or token is valid.

        Raises:
            ApiError: it is not any more, or too many of the same stay.
        """
        stream = Stream(call)
        self.backing.access.enter(stream, context.principal)
        try:
            async with stream.limit:
                yield stream
        except TimeoutError as error:
            message = "the key or token is not valid any more"
            raise ApiError(Code.UNAUTHENTICATED, message) from error
        finally:
            self.backing.access.leave(stream)

    def unary(
        self, role: Role, kind: type[Message], answer: Callable[[Context, Any], Awaitable[Any]]
    ) -> Callable[[bytes, Call], Awaitable[Any]]:
        """The handler of a method with one answer, which takes `api.query_seconds` at most."""
        seconds = self.backing.services.settings.api.query_seconds

        async def handle(request: bytes, call: Call) -> Any:
            async with _told(call), asyncio.timeout(seconds):
                context = await self.admit(call, role)
                return await answer(context, _read(kind, request))

        return handle

    def streaming(
        self,
        role: Role,
        kind: type[Message],
        follow: Callable[[Context, Any, Stream], Awaitable[None]],
    ) -> Callable[[bytes, Call], Awaitable[None]]:
        """The handler of a method that goes on."""

        async def handle(request: bytes, call: Call) -> None:
            async with _told(call):
                context = await self.admit(call, role)
                message = _read(kind, request)
                async with self.staying(call, context) as stream:
                    await follow(context, message, stream)

        return handle


def _read(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ApiError(Code.BAD_REQUEST, f"the bytes are no {kind.DESCRIPTOR.name}") from error


def _credential(call: Call) -> str | None:
    """The one `authorization` of the metadata; None without one, or with several."""
    found = [value for key, value in call.invocation_metadata() or () if key == _AUTHORIZATION]
    return bearer(found[0]) if len(found) == 1 and isinstance(found[0], str) else None


@asynccontextmanager
async def _told(call: Call) -> AsyncIterator[None]:
    """End the call by the status of what goes wrong; texts that are not ours stay here."""
    try:
        yield
    except AbortError:
        raise
    except ApiError as error:
        after = isinstance(error, LimitedError) and (("retry-after", f"{error.seconds:.3f}"),)
        more = after or ()
        await _end(call, _STATUS[error.code], str(error), more)
    except TimeoutError:
        await _end(call, grpc.StatusCode.DEADLINE_EXCEEDED, "it took too long; ask for less")
    except Exception:  # noqa: BLE001 - the client is told, masked, and the log more
        name = fresh_id()
        _log.exception("call_failed", id=name)
        await _end(call, grpc.StatusCode.INTERNAL, "Internal error", (("error-id", name),))


async def _end(
    call: Call, status: grpc.StatusCode, message: str, more: tuple[tuple[str, str], ...] = ()
) -> NoReturn:
    await call.abort(status, message, more)
    raise AssertionError  # abort has raised
