"""Frames that are made once, as another implementation reads them."""

import asyncio
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from api.frames import FramedProtocol, framed, wire_of


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_frames_are_those_of_the_protocol(size: int) -> None:
    """Texts of each width of head, and several in a row, are read as they were."""
    reader = ClientProtocol(parse_uri("ws://localhost/"), max_size=None)
    reader.state = reader.state.OPEN
    reader.reader.feed_data(b"")
    reader.parser = reader.parse()
    next(reader.parser)
    text = ("é" * size).encode()[:size] if size % 2 == 0 else b"x" * size
    reader.receive_data(framed(text) + framed(b"behind"))
    found = reader.events_received()
    assert [frame.opcode for frame in found if isinstance(frame, Frame)] == [Opcode.TEXT] * 2
    assert [bytes(frame.data) for frame in found if isinstance(frame, Frame)] == [text, b"behind"]


class Transport(asyncio.Transport):
    """Remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        """Take it."""
        self.written.append(data)

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("ending", ["close_sent", "disconnected"])
async def test_frames_do_not_pile_up(ending: str) -> None:
    """What the socket would have to keep is not written, nor what comes after the end."""
    protocol = FramedProtocol(Config(app=None, log_config=None), ServerState(), {})  # type: ignore[arg-type]  # is not run
    protocol.transport = transport = Transport()
    assert protocol.write(b"1")
    protocol.pause_writing()
    assert not protocol.write(b"2")
    protocol.resume_writing()
    assert protocol.write(b"3")
    setattr(protocol, ending, True)
    assert not protocol.write(b"4")
    assert transport.written == [b"1", b"3"]


@pytest.mark.parametrize("extensions", [[], ["permessage-deflate"]])
async def test_what_is_compressed_goes_its_own_way(extensions: list[Any]) -> None:
    """A connection with an extension has no wire, for its frames are its own."""
    found: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        found.append(wire_of(scope))

    config = Config(app=app, log_config=None)
    config.load()
    protocol = FramedProtocol(config, ServerState(), {})
    protocol.transport = Transport()
    protocol.handshake_complete = True
    protocol.scope = {"type": "websocket", "extensions": {}}  # type: ignore[typeddict-item]  # as far as is asked
    protocol.conn.extensions = extensions
    protocol.app = app  # without the middleware of a server
    await protocol.run_asgi()
    assert found == [None if extensions else protocol]


def test_another_server_has_no_wire() -> None:
    """Where the server does not offer it, everything goes its own way."""
    assert wire_of({"type": "websocket"}) is None
    assert wire_of({"type": "websocket", "extensions": {}}) is None
