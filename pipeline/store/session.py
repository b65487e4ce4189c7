"""A session of Postgres that takes a whole transaction in one go.

asyncpg waits for an answer after each statement and twice in each COPY: some twenty waits a batch,
each a turn of two event loops, and no client library can send a COPY before the answer to what
stands before it. The protocol can: statements without a Sync between them are one transaction,
which the Sync commits, and after the first error the server skips all that is left. So asyncpg
connects and authenticates, then its line is ours.

This rests on one private name of asyncpg, `Connection._transport`;
tests/integration/store/test_session.py fails if that changes.
"""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import asyncpg

_HEAD: Final = struct.Struct(">ci")  # kind and length of a message; the length counts itself
_LENGTH: Final = 4
_SYNC: Final = _HEAD.pack(b"S", _LENGTH)
_COPY_DONE: Final = _HEAD.pack(b"c", _LENGTH)
_EXECUTE: Final = _HEAD.pack(b"E", _LENGTH + 5) + bytes(5)  # the unnamed portal, all rows
_BINARY: Final = struct.pack(">hh", 1, 1)  # all parameters
_ERROR, _READY = b"E"[0], b"Z"[0]


@dataclass(frozen=True, slots=True)
class Step:
    """A statement of a transaction.

    Args:
        sql: one statement; parameters are $1, $2, ...
        parameters: its parameters in binary (`pipeline.store.parameters`).
        copied: for COPY FROM STDIN: what is copied, in parts.
    """

    sql: str
    parameters: Sequence[bytes] = ()
    copied: Sequence[bytes] = ()


class Session(asyncio.Protocol):
    """A connection for transactions in one go, one at a time; after any trouble it is closed."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection  # it warns if it is forgotten while open
        transport: asyncio.Transport = cast("Any", connection)._transport  # noqa: SLF001
        self._transport = transport
        self._buffer = bytearray()
        self._answer: asyncio.Future[None] | None = None
        self._error: asyncpg.PostgresError | None = None
        self.closed = False
        transport.set_protocol(self)

    async def transact(self, steps: Sequence[Step], seconds: float) -> None:
        """Run statements as one transaction: all of them, or none.

        Raises:
            asyncpg.PostgresError: what the server said about the first that failed.
            ConnectionError: the line broke; whether it was committed is not known.
            TimeoutError: no answer in so many seconds; the server may still commit it.
        """
        if self.closed:
            raise ConnectionResetError("the session is closed")
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.writelines(_messages(steps))
            async with asyncio.timeout(seconds):
                await self._answer
        except BaseException:
            self.close()
            raise
        finally:
            self._answer = None

    def data_received(self, data: bytes) -> None:
        """Only errors and the end of a transaction are of interest."""
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._buffer, at)
            if len(self._buffer) - at <= length:
                break
            if kind[0] == _ERROR and self._error is None:
                self._error = _error(bytes(self._buffer[at + _HEAD.size : at + 1 + length]))
            elif kind[0] == _READY:
                self._finish()
            at += 1 + length
        del self._buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """An error that came before tells more: the server said why."""
        self.close()
        if self._error is None:
            reason = str(exc) if exc else "the server closed the connection"
            self._fail(ConnectionResetError(reason))
        self._finish()

    def close(self) -> None:
        """Cut the line: what the server was not given yet will not be done."""
        if not self.closed:
            self.closed = True
            self._connection.terminate()

    def _finish(self) -> None:
        if self._error is not None:
            self._fail(self._error)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def open_session(dsn: str, **options: Any) -> Session:
    """Connect as `asyncpg.connect` does with these options.

    Raises:
        asyncpg.PostgresError, OSError, TimeoutError: as it does.
    """
    return Session(await asyncpg.connect(dsn, **options))


def _messages(steps: Sequence[Step]) -> list[bytes]:
    found = []
    for step in steps:
        sql = step.sql.encode()
        # An unnamed statement and portal each time: nothing to keep, behind any pooler.
        found.append(_HEAD.pack(b"P", _LENGTH + len(sql) + 4) + b"\0" + sql + bytes(3))
        parameters = [struct.pack(">i", len(one)) + one for one in step.parameters]
        bound = b"".join((bytes(2), _BINARY, struct.pack(">h", len(parameters)), *parameters))
        found.append(_HEAD.pack(b"B", _LENGTH + len(bound) + 2) + bound + bytes(2))
        found.append(_EXECUTE)
        if step.copied:
            size = sum(map(len, step.copied))
            found += (_HEAD.pack(b"d", _LENGTH + size), *step.copied, _COPY_DONE)
    found.append(_SYNC)
    return found


def _error(body: bytes) -> asyncpg.PostgresError:
    fields = {one[:1].decode(): one[1:].decode(errors="replace") for one in body.split(b"\0")}
    return asyncpg.PostgresError.new(fields)
