"""The ASGI application."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from ariadne.asgi import GraphQL
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.routing import Route, WebSocketRoute

from api.context import CacheNotice, Context
from api.errors import format_error
from api.guard import LocalOnly
from api.health import healthz, readyz
from api.latest import LatestLoader
from api.limits import DepthRule, Documents
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
        MisuseError: the address of one of them is not set.
        UnavailableError: the address of Redis cannot be read.
    """
    services = Services(settings)
    graphql = create_graphql(services)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    routes = [
        Route(PATH, graphql, methods=None),
        WebSocketRoute(PATH, graphql),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/", RedirectResponse(PATH)),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(LocalOnly)])
    app.state.services = services
    return app


def create_graphql(services: Services) -> GraphQL:
    """The endpoint, without a server around it."""
    development = services.settings.api.development
    documents = Documents(hide_suggestions=not development)

    def context(_request: Any, _data: Any) -> Context:
        return Context(services, LatestLoader(services))

    return GraphQL(
        build_schema(),
        context_value=context,
        query_parser=documents.parse,
        query_validator=documents.validate,
        validation_rules=[DepthRule],
        execute_get_queries=True,
        introspection=development,
        logger=_silent,
        error_formatter=format_error,
        http_handler=HTTPHandler(extensions=[CacheNotice]),
        websocket_handler=WebSocketHandler(),
    )
