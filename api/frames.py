"""Frames of a WebSocket that are made once and written to many by one call each."""

from typing import Any, Final, Protocol, cast

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_NAME: Final = "tickstream.frames"  # of our extension of ASGI
_TEXT: Final = 0x81  # a whole message of text
_SHORT, _MEDIUM = 125, 0xFFFF  # bytes that the two shorter heads can count


def framed(text: bytes) -> bytes:
    """A text of UTF-8 as a server sends it: unmasked, in one frame (RFC 6455, 5.2)."""
    size = len(text)
    if size <= _SHORT:
        return bytes((_TEXT, size)) + text
    if size <= _MEDIUM:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


class Wire(Protocol):
    """Takes frames past the server."""

    def write(self, frames: bytes) -> bool:
        """Write whole frames, or nothing where they would have to wait, or nobody is there."""


class FramedProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, which gives the application a `Wire`: its own way makes a frame for each client.

    Without extensions of WebSocket: a compressed frame is of one connection only.
    """

    async def run_asgi(self) -> None:
        """Run the application."""
        if not self.conn.extensions:
            cast("Any", self.scope)["extensions"][_NAME] = self
        await super().run_asgi()

    def write(self, frames: bytes) -> bool:
        """Write whole frames, or nothing where they would have to wait, or nobody is there."""
        if self.close_sent or self.disconnected or not self.writable.is_set():
            return False
        self.transport.write(frames)
        return True


def wire_of(scope: Scope) -> Wire | None:
    """The way past the server, None where it has none."""
    found: Wire | None = scope.get("extensions", {}).get(_NAME)
    return found
