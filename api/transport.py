"""GraphQL over HTTP as its specification draft wants it: media types, status codes, body size."""

import asyncio
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn

import orjson
from ariadne.asgi.handlers import GraphQLHTTPHandler
from ariadne.graphql import validate_data
from graphql import GraphQLError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from api.access import Access, bearer, only_header
from api.context import Context
from api.encoding import encode
from api.errors import ApiError, Code, LimitedError, error_body, is_request_error
from api.execution import RowExecutor
from api.explorer import HEADERS, PAGE
from api.kept import Kept
from api.limits import BODY_SECONDS, MAX_BODY
from api.persisted import Persisted
from api.plans import NotPlainError, RootPlan
from api.rates import Rates

JSON: Final = "application/json"
GRAPHQL: Final = "application/graphql-response+json"
_ASKING: Final = {"query", "documentId", "extensions"}  # parameters of an address that asks
_READY: Final = 256  # requests
_READY_LENGTH: Final = 4096  # bytes of one
# What a client that asks for one of these is answered with.
_OFFERS: Final = {
    GRAPHQL: GRAPHQL,
    JSON: JSON,
    "application/*": JSON,
    "*/*": JSON,
}


def negotiate(accept: str) -> str | None:
    """The media type to answer in, None when the client takes none of ours."""
    best: tuple[float, str | None] = (0.0, None)
    for part in (accept or "*/*").lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _weight(value)
        if kind in _OFFERS and weight > best[0]:
            best = (weight, _OFFERS[kind])
    return best[1]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class RefusedError(Exception):
    """A request that is answered before it is looked at as GraphQL."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        code: Code = Code.BAD_REQUEST,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def refusal(error: ApiError) -> RefusedError:
    """What one who is not let in is told by HTTP."""
    if error.code is Code.UNAUTHENTICATED:
        challenge = {"WWW-Authenticate": "Bearer"}
        return RefusedError(HTTPStatus.UNAUTHORIZED, str(error), error.code, challenge)
    if isinstance(error, LimitedError):
        later = {"Retry-After": str(math.ceil(error.seconds))}
        return RefusedError(HTTPStatus.TOO_MANY_REQUESTS, str(error), error.code, later)
    later = {"Retry-After": "1"}
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), error.code, later)


class HTTPHandler(GraphQLHTTPHandler):
    """Ariadne's handler with the specification's answers; queries by GET, no multipart."""

    def __init__(
        self, access: Access, rates: Rates, persisted: Persisted, *, seconds: float, **options: Any
    ) -> None:
        super().__init__(**options)
        self._access = access
        self._rates = rates
        self._persisted = persisted
        self._seconds = seconds
        self._ready: Kept[bytes, RootPlan] = Kept(_READY)

    async def handle_request(self, request: Request) -> Response:
        """Answer one request."""
        if request.method == "GET" and self.introspection and self._wants_page(request):
            return HTMLResponse(PAGE, headers=HEADERS)
        if request.method not in {"GET", "POST"}:
            return self.not_allowed(request)
        kind = negotiate(request.headers.get("accept", ""))
        if kind is None:
            body = error_body(Code.BAD_REQUEST, f"this answers in {GRAPHQL} or {JSON}")
            return self.respond(body, HTTPStatus.NOT_ACCEPTABLE, JSON)
        try:
            result = await self.answer(request)
        except RefusedError as error:
            body = error_body(error.code, str(error))
            return self.respond(body, error.status, kind, error.headers)
        return self.respond_result(result, kind)

    async def answer(self, request: Request) -> dict[str, Any]:
        """The result of what one who was let in asks.

        Raises:
            RefusedError: it is not asked rightly, not let in, or takes too long.
        """
        await self.admit(request)
        if request.method == "GET":
            return await self.run(request, self._read(_from_address(request)))
        body = await _body(request)
        plan = self._ready.get(body)
        if plan is not None:
            try:
                return {"data": plan(await self.get_context_for_request(request, None))}
            except Exception:  # noqa: BLE001, S110 - the executor does it, or says what is wrong
                pass
        data = self._read(_document(body))
        result = await self.run(request, data)
        if plan is None and "errors" not in result and len(body) <= _READY_LENGTH:
            self.get_ready(body, data)
        return result

    def _read(self, data: Any) -> Any:
        try:
            return self._persisted.read(data)
        except ApiError as error:
            forbidden = error.code is Code.FORBIDDEN
            status = HTTPStatus.FORBIDDEN if forbidden else HTTPStatus.BAD_REQUEST
            raise RefusedError(status, str(error), error.code) from error

    def get_ready(self, body: bytes, data: dict[str, Any]) -> None:
        """Have a valid request planned for who sends the same bytes again, as those who poll do."""
        if self.schema is None or self.query_parser is None or not self._ready.wants(body):
            return
        document = self.query_parser(None, data)
        variables, name = data.get("variables"), data.get("operationName")
        plan = RowExecutor.ahead(self.schema, document, variables, name)
        self._ready.put(body, plan or _unplanned)

    async def run(self, request: Request, data: Any) -> dict[str, Any]:
        """The result of what is asked.

        Raises:
            RefusedError: it is not asked rightly or takes too long.
        """
        try:
            validate_data(data)
            _, result = await self.execute_graphql_query(request, data)
        except GraphQLError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, error.message) from error
        except ApiError as error:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            raise RefusedError(status, str(error), error.code) from error
        return result

    async def execute_graphql_query(
        self, request: Any, data: Any, **options: Any
    ) -> tuple[bool, dict[str, Any]]:
        """Run a query or a mutation; the result says when the cache was away.

        Raises:
            ApiError: it took too long.
        """
        context = options.pop("context_value", None)
        if context is None:
            context = await self.get_context_for_request(request, data)
        try:
            async with asyncio.timeout(self._seconds):
                success, result = await super().execute_graphql_query(
                    request, data, context_value=context, **options
                )
        except TimeoutError as error:
            message = f"this took longer than {self._seconds:g} s; ask for less"
            raise ApiError(Code.LIMITED, message) from error
        if context.latest.cache_away:
            # By hand: an extension of Ariadne would be asked at every field.
            result["extensions"] = {"cache": "unavailable"}
        return success, result

    def respond_result(self, result: dict[str, Any], kind: str) -> Response:
        """The answer to a well-formed request."""
        errors = result.get("errors", ())
        status = HTTPStatus.OK
        if result.get("data") is None and any(is_request_error(error) for error in errors):
            # Execution never began: then there is no entry `data`, not even a null one.
            result = {name: value for name, value in result.items() if name != "data"}
            if kind == GRAPHQL:
                status = HTTPStatus.BAD_REQUEST
        return self.respond(result, status, kind)

    async def admit(self, request: Request) -> None:
        """Let a client in, and count what it asks.

        Raises:
            RefusedError: it is not let in.
        """
        try:
            principal = self._access.admit(bearer(only_header(request)))
            await self._rates.spend(principal)
        except ApiError as error:
            raise refusal(error) from error
        request.scope["principal"] = principal

    @staticmethod
    def respond(
        result: Mapping[str, Any],
        status: HTTPStatus,
        kind: str,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """A response in JSON."""
        return Response(encode(result), status, headers, media_type=f"{kind}; charset=utf-8")

    @staticmethod
    def not_allowed(request: Request) -> Response:
        """OPTIONS is told the methods, others that they are none."""
        allowed = {"Allow": "GET, POST, OPTIONS"}
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=allowed)
        return Response(status_code=HTTPStatus.METHOD_NOT_ALLOWED, headers=allowed)

    @staticmethod
    def _wants_page(request: Request) -> bool:
        return not _ASKING & request.query_params.keys() and "text/html" in request.headers.get(
            "accept", ""
        )


def _from_address(request: Request) -> dict[str, Any]:
    found = request.query_params
    return {
        "query": found.get("query"),
        "documentId": found.get("documentId"),
        "operationName": found.get("operationName") or None,
        "variables": _parameter(found, "variables"),
        "extensions": _parameter(found, "extensions"),
    }


def _parameter(found: Mapping[str, str], name: str) -> Any:
    try:
        return orjson.loads(found[name]) if found.get(name) else None
    except orjson.JSONDecodeError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} are not valid JSON") from error


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is not valid JSON") from error


def _unplanned(_context: Context) -> NoReturn:
    """Of a request that no plan can answer."""
    raise NotPlainError


async def _body(request: Request) -> bytes:
    """The body; one that is too long, or too slow, is not read to its end."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {JSON}")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MAX_BODY:
                    told = f"the body is longer than {MAX_BODY} bytes"
                    raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told)
    except TimeoutError as error:
        told = f"the body took longer than {BODY_SECONDS:g} s"
        raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, told) from error
    return bytes(body)
