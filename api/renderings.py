"""One rendering for all who subscribe to the same with the same rights; each has its own queue."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from graphql import ExecutionResult

from api.encoding import encode
from api.frames import Wire, framed
from api.hub import QUEUE, Listener
from pipeline.waiting import ended

_TURN: Final = 64  # results that are given at once at most
_log: Final = structlog.get_logger("api")
Results = AsyncGenerator[ExecutionResult, None]
Describe = Callable[[Exception], dict[str, Any]]


@dataclass(slots=True)
class Tally:
    """What a process counts of its subscribers."""

    subscribers: int = 0
    dropped: int = 0
    """Rows that they lost."""


class Batch:
    """The payloads of a turn of the loop, and their frames by what stands before a payload."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads
        self._frames: dict[bytes, bytes] = {}

    def frames(self, head: bytes) -> bytes:
        """The frames for those of an operation: its id is all that differs."""
        found = self._frames.get(head)
        if found is None:
            found = b"".join([framed(head + payload + b"}") for payload in self.payloads])
            self._frames[head] = found
        return found


class Outbox:
    """What one subscriber is sent: written at once where its socket takes it, else it waits here.

    When too much waits the oldest gives way and is counted, which the next message tells.
    """

    def __init__(self, name: str, wire: Wire | None, tally: Tally) -> None:
        self.head = b'{"id":%b,"type":"next","payload":' % encode(name)
        self.errors: list[Any] | None = None
        """Why it ended, where it ended by errors."""
        self.dropped = 0
        self._told = 0
        self._wire = wire
        self._tally = tally
        self._waiting: deque[bytes] = deque()
        self._sending = False
        self._ended = False
        self._news = asyncio.Event()

    def lose(self, count: int) -> None:
        """So many rows were lost, here or before they came here."""
        self.dropped += count
        self._tally.dropped += count

    def offer(self, batch: Batch, most: int) -> None:
        """Send payloads, or have them wait, at most so many of all."""
        at_once = not (self._waiting or self._sending or self.dropped > self._told)
        if at_once and self._wire is not None and self._wire.write(batch.frames(self.head)):
            return
        self._waiting.extend(batch.payloads)
        while len(self._waiting) > most:
            self._waiting.popleft()
            self.lose(1)
        self._news.set()

    def end(self, errors: list[Any] | None) -> None:
        """There will be nothing more."""
        self.errors, self._ended = errors, True
        self._news.set()

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """What has to wait, message by message; the next one is asked for when one was sent."""
        while True:
            self._sending = bool(self._waiting)
            if self._waiting:
                yield self.head + self._marked(self._waiting.popleft()) + b"}"
            elif self._ended:
                return
            else:
                self._news.clear()
                await self._news.wait()

    def _marked(self, payload: bytes) -> bytes:
        if self.dropped == self._told:
            return payload
        self._told = self.dropped
        return b'%b,"extensions":{"dropped":%d}}' % (payload[:-1], self._told)


class Rendering:
    """The results of an operation for all who asked for it."""

    def __init__(self, results: Results, listeners: Sequence[Listener], describe: Describe) -> None:
        self.forget: Callable[[], None] = lambda: None
        """Called when nobody can join any more."""
        self._results = results
        self._listeners = listeners
        self._describe = describe
        self._members: dict[Outbox, None] = {}
        self._payloads: list[bytes] = []
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def joined(self, name: str, wire: Wire | None, tally: Tally) -> AsyncIterator[Outbox]:
        """It is given to one more for the length of a block; with the last one it ends."""
        outbox = Outbox(name, wire, tally)
        self._members[outbox] = None
        tally.subscribers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            yield outbox
        finally:
            del self._members[outbox]
            tally.subscribers -= 1
            if outbox.dropped:
                _log.warning("subscriber_lagged", dropped=outbox.dropped)
            if not self._members:
                self.forget()
                await ended(self._task)

    async def _run(self) -> None:
        errors: list[Any] | None = None
        loop = asyncio.get_running_loop()
        try:
            async with aclosing(self._results):
                async for result in self._results:
                    if not self._payloads:
                        loop.call_soon(self._give)
                    self._payloads.append(self._rendered(result))
                    if len(self._payloads) >= _TURN:
                        await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - clients are told, masked, and the log more
            errors = [self._describe(error)]
        self.forget()
        self._give()
        for outbox in self._members:
            outbox.end(errors)

    def _rendered(self, result: ExecutionResult) -> bytes:
        payload: dict[str, Any] = {"data": result.data}
        if result.errors:
            payload["errors"] = [self._describe(error) for error in result.errors]
        return encode(payload)

    def _give(self) -> None:
        """All that a turn of the loop has brought, to all."""
        payloads, self._payloads = self._payloads, []
        if not payloads:
            return
        dropped = sum(listener.dropped for listener in self._listeners)
        if dropped > self._dropped:
            for outbox in self._members:
                outbox.lose(dropped - self._dropped)
            self._dropped = dropped
        most = max((listener.size for listener in self._listeners), default=QUEUE)
        batch = Batch(payloads)
        for outbox in self._members:
            outbox.offer(batch, most)


class Renderings:
    """The renderings of a process, by what was asked for and the rights of who asked."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._found: dict[Hashable, Rendering] = {}

    async def get(
        self, key: Hashable, begin: Callable[[], Awaitable[Rendering | list[Any]]]
    ) -> Rendering | list[Any]:
        """The rendering that is under way, or a new one, or the errors that it came to."""
        found = self._found.get(key)
        if found is not None:
            return found
        begun = await begin()
        if isinstance(begun, Rendering):
            begun.forget = partial(self._forget, key, begun)
            self._found[key] = begun
        return begun

    def _forget(self, key: Hashable, rendering: Rendering) -> None:
        if self._found.get(key) is rendering:  # two may have begun at once
            del self._found[key]
