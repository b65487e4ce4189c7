"""The ASGI application."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from ariadne.asgi import GraphQL
from graphql import DocumentNode
from graphql.validation import ASTValidationRule
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.routing import Route, WebSocketRoute

from api.access import Access
from api.backing import create_backing
from api.context import Context
from api.costs import check_cost
from api.errors import format_error
from api.execution import RowExecutor
from api.guard import LocalOnly, is_loopback
from api.health import healthz, readyz
from api.latest import LatestLoader
from api.limits import DepthRule, Documents
from api.metrics import metrics
from api.persisted import read_persisted
from api.rates import Rates
from api.schema import build_schema
from api.services import Services
from api.transport import HTTPHandler
from api.websocket import WebSocketHandler
from pipeline.settings import Settings

PATH: Final = "/graphql"
# Ariadne logs each error with its traceback; `format_error` has said what there is to say.
_silent: Final = logging.getLogger("api.ariadne")
_silent.setLevel(logging.CRITICAL + 1)


def create_app(settings: Settings) -> Starlette:
    """The server; it connects at startup and keeps trying when Postgres or Redis are away.

    Raises:
        MisuseError: the address of one of them is not set, or a key for tokens cannot be used.
        UnavailableError: the address of Redis cannot be read.
    """
    backing = create_backing(settings)
    graphql = create_graphql(backing.services, backing.access, backing.rates)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(backing.running())
            if settings.rpc.fused:
                from api.rpc.server import serving  # noqa: PLC0415 - only who wants it loads gRPC

                await stack.enter_async_context(serving(backing))
            yield

    routes = [
        Route(PATH, graphql, methods=None),
        WebSocketRoute(PATH, graphql),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/", RedirectResponse(PATH)),
    ]
    # A page of another origin knows no key: where keys are demanded it is like any other client.
    middleware = [] if settings.api.auth else [Middleware(LocalOnly)]
    app = Starlette(routes=routes, lifespan=lifespan, middleware=middleware)
    app.state.services = backing.services
    app.state.access = backing.access
    return app


def create_graphql(services: Services, access: Access, rates: Rates) -> GraphQL:
    """The endpoint, without a server around it.

    Raises:
        MisuseError: the manifest of `api.documents` is not one.
    """
    settings = services.settings.api
    development = settings.development
    if development is None:
        development = is_loopback(settings.host)
    documents = Documents(hide_suggestions=not development)
    schema = build_schema()
    persisted = read_persisted(settings, schema)

    def rules(_context: Any, document: DocumentNode, data: Any) -> list[type[ASTValidationRule]]:
        # For each request, as it depends on variables; faults of documents are remembered.
        check_cost(
            schema,
            document,
            data,
            page_max=settings.page_max,
            cost_max=settings.cost_max,
            memo=documents.memo(document),
        )
        return [DepthRule]

    def context(connection: Any, _data: Any) -> Context:
        # Set by who let it in; without it nothing is answered.
        principal = connection.scope["principal"]
        return Context(services, LatestLoader(services), principal)

    return GraphQL(
        schema,
        context_value=context,
        query_parser=documents.parse,
        query_validator=documents.validate,
        validation_rules=rules,
        execute_get_queries=True,
        introspection=development,
        logger=_silent,
        error_formatter=format_error,
        execution_context_class=RowExecutor,
        http_handler=HTTPHandler(access, rates, persisted, seconds=settings.query_seconds),
        websocket_handler=WebSocketHandler(
            access, rates, services.renderings, persisted, max_operations=settings.subscriptions_max
        ),
    )
