"""Keeps web pages of other origins from using the browser of someone on this machine."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from pipeline.errors import MisuseError

_REFUSAL: Final = "this server answers on this machine only\n"


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_strangers(host: str, what: str, *, auth: bool) -> None:
    """Serve others than this machine only when keys are demanded.

    Raises:
        MisuseError: they are not.
    """
    if not auth and not is_loopback(host):
        raise MisuseError(
            f"refuses to serve {what} on {host} whoever comes: demand keys by --set api.auth=true"
            " (`tickstream keys create` makes them), or use --host 127.0.0.1"
        )


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


class LocalOnly:
    """Refuses requests whose Host or Origin names another machine.

    The socket takes connections of this machine only, but a page of anywhere, shown by a browser
    here, could open a WebSocket to it, or reach it by a name of its own that resolves to us.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what comes from here."""
        if scope["type"] == "lifespan" or self._is_local(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)  # before the handshake: status 403
        else:
            await PlainTextResponse(_REFUSAL, 403)(scope, receive, send)

    @staticmethod
    def _is_local(headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None and not is_loopback(_host_of(origin)):
            return False
        return is_loopback(_host_of(f"//{headers.get('host', '')}"))
