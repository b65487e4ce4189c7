"""What Prometheus is told of this process."""

from collections import Counter
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.access import Access, bearer, only_header
from api.errors import ApiError, error_body
from api.services import Services
from api.transport import JSON, HTTPHandler, refusal
from pipeline.cache.kinds import KINDS, REGISTRY
from pipeline.store.pool import PoolFigures
from pipeline.telemetry.metrics import CONTENT_TYPE, Values, exposition

_NONE: Final = PoolFigures(0, 0.0, 0.0, 0, 0, 0, 0, 0)


async def metrics(request: Request) -> Response:
    """The figures of now; where keys are demanded it takes one of any role."""
    access: Access = request.app.state.access
    try:
        access.admit(bearer(only_header(request)))
    except ApiError as error:
        told = refusal(error)
        body = error_body(told.code, str(told))
        return HTTPHandler.respond(body, told.status, JSON, told.headers)
    text = exposition(figures(request.app.state.services))
    return Response(text, headers={"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE})


def figures(services: Services) -> Values:
    """The figures by their names; of a database that was not reached yet they are 0."""
    cache, pool = services.manager.figures, services.pool_figures or _NONE
    alone: dict[str, float] = {
        "tickstream_cache_failures_total": cache.failed,
        "tickstream_postgres_acquired_total": pool.acquired,
        "tickstream_postgres_wait_seconds_total": pool.waited,
        "tickstream_postgres_longest_wait_seconds": pool.longest,
        "tickstream_postgres_refused_total": pool.refused,
        "tickstream_postgres_failures_total": pool.failed,
        "tickstream_postgres_statements_total": pool.statements,
        "tickstream_api_subscriptions": services.renderings.tally.subscribers,
        "tickstream_api_dropped_total": services.renderings.tally.dropped,
        "tickstream_api_copied_symbols": len(services.mirror),
        "tickstream_api_staleness_seconds": services.mirror.staleness(),
    }
    return {
        "tickstream_cache_hits_total": _by_kind(cache.hits),
        "tickstream_cache_misses_total": _by_kind(cache.misses),
        "tickstream_cache_absences_total": _by_kind(cache.absences),
        "tickstream_cache_loads_total": _by_kind(cache.loads),
        "tickstream_cache_shared_total": _by_kind(cache.shared),
        "tickstream_postgres_connections": {
            ("lent",): pool.size - pool.idle,
            ("idle",): pool.idle,
        },
        **{name: {(): value} for name, value in alone.items()},
    }


def _by_kind(counts: Counter[str]) -> dict[tuple[str, ...], float]:
    return {(kind,): counts[kind] for kind in (*KINDS, REGISTRY)}
