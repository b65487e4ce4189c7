"""The ASGI application."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from ariadne.asgi import GraphQL
from graphql import DocumentNode
from graphql.validation import ASTValidationRule
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.routing import Route, WebSocketRoute

from api.access import Access
from api.context import Context
from api.costs import check_cost
from api.errors import format_error
from api.execution import RowExecutor
from api.guard import LocalOnly, is_loopback
from api.health import healthz, readyz
from api.latest import LatestLoader
from api.limits import DepthRule, Documents
from api.metrics import metrics
from api.rates import Rates
from api.schema import build_schema
from api.services import Services
from api.transport import HTTPHandler
from api.websocket import WebSocketHandler
from pipeline.cache.buckets import Buckets
from pipeline.settings import Settings
from pipeline.store.keys import KeyRecord, valid_keys

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
    services = Services(settings)
    access = create_access(services)
    rates = Rates(settings.api, Buckets(services.cache).lease)
    graphql = create_graphql(services, access, rates)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await services.start()
        watching = asyncio.create_task(access.run())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await rates.close()
            await services.stop()

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
    app.state.services = services
    app.state.access = access
    return app


def create_access(services: Services) -> Access:
    """Who is let in, by the keys of Postgres.

    Raises:
        MisuseError: a key for tokens cannot be used.
    """

    async def read() -> Mapping[str, KeyRecord]:
        async with services.postgres() as pool:
            return await valid_keys(pool)

    return Access(services.settings.api, read)


def create_graphql(services: Services, access: Access, rates: Rates) -> GraphQL:
    """The endpoint, without a server around it."""
    settings = services.settings.api
    development = settings.development
    if development is None:
        development = is_loopback(settings.host)
    documents = Documents(hide_suggestions=not development)
    schema = build_schema()

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
        http_handler=HTTPHandler(access, rates, seconds=settings.query_seconds),
        websocket_handler=WebSocketHandler(
            access, rates, services.renderings, max_operations=settings.subscriptions_max
        ),
    )
