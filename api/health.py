"""Whether this process lives, and whether the servers behind it answer."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.access import Access, bearer, only_header
from api.errors import ApiError
from api.services import Services
from pipeline.cache.latest import DRIFT, PARITY
from pipeline.clock import monotonic
from pipeline.errors import UnavailableError
from pipeline.store.keys import Role
from schemas.times import format_rfc3339

_SILENT: Final = "it does not answer"  # its address is not for everyone
_SECONDS: Final = 2.0  # until an answer counts as none


async def healthz(_request: Request) -> Response:
    """The loop turns."""
    return _json({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Each server with the time of its answer; 503 without Postgres; the others can be missed.

    The broker is among them while somebody follows one of its topics. Where `up` holds what is
    stored against a replay, or watches for drift, also how the last turn of that ended. Where keys
    are demanded, all but the status takes one of an admin.
    """
    services: Services = request.app.state.services
    found = await check_all(services)
    postgres = found["postgres"]["ok"] and request.app.state.access.ready
    whole = all(check["ok"] for check in found.values())
    status = "unavailable" if not postgres else "ready" if whole else "degraded"
    if found["redis"]["ok"]:
        found |= await _turns(services)
    body = {"status": status, "checks": found} if _is_admin(request) else {"status": status}
    return _json(body, HTTPStatus.OK if postgres else HTTPStatus.SERVICE_UNAVAILABLE)


def _is_admin(request: Request) -> bool:
    access: Access = request.app.state.access
    try:
        return access.admit(bearer(only_header(request))).role.covers(Role.ADMIN)
    except ApiError:
        return False


async def is_ready(services: Services, access: Access) -> bool:
    """Whether what cannot be missed is there: Postgres, and the keys where they are demanded."""
    return access.ready and (await _check(services.read_symbols))["ok"]


async def check_all(services: Services) -> dict[str, dict[str, Any]]:
    """Each server by its name: whether it answers, in how many seconds, or why not."""
    names = ("postgres", "redis")
    checks = await asyncio.gather(_check(services.read_symbols), _check(services.cache.ping))
    found = dict(zip(names, checks, strict=True))
    match services.topics.answers:
        case True:
            found["kafka"] = {"ok": True}
        case False:
            found["kafka"] = {"ok": False, "error": _SILENT}
    return found


async def _turns(services: Services) -> dict[str, Any]:
    """How the last turn of each scheduled check ended; a change of the market is not amiss."""
    try:
        asked = asyncio.gather(*(services.cache.state(name) for name in (PARITY, DRIFT)))
        async with asyncio.timeout(_SECONDS):
            parity, drift = await asked
    except (UnavailableError, TimeoutError):
        return {}
    found = {}
    for name, told in ((PARITY, parity), (DRIFT, drift)):
        if told is not None:
            ok = not told["alerts"] if name == PARITY else told["state"] != "not checked"
            at = format_rfc3339(told["ts"])
            found[name] = {"ok": ok, "state": told["state"], "alerts": told["alerts"], "at": at}
    return found


async def _check(ask: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    begin = monotonic()
    try:
        async with asyncio.timeout(_SECONDS):
            await ask()
    except TimeoutError:
        return {"ok": False, "error": f"no answer within {_SECONDS:g} s"}
    except ApiError as error:
        return {"ok": False, "error": str(error)}
    except UnavailableError:
        return {"ok": False, "error": _SILENT}
    return {"ok": True, "seconds": round(monotonic() - begin, 6)}


def _json(body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(body), status, media_type="application/json", headers=headers)
