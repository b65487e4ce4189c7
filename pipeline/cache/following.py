"""What becomes the latest, followed over one connection that tells whether all of it has come."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Protocol

import orjson
import structlog

from pipeline.cache.latest import FAILURES, FORGOTTEN, Cache, away, channel_of
from pipeline.clock import monotonic
from pipeline.errors import UnavailableError
from pipeline.waiting import ended, set_within

PROVEN_EVERY: Final = 0.25  # seconds
_DEAD: Final = 1.0  # seconds without a word, though it was asked
_UNWANTED: Final = 60.0  # seconds that a stage is followed after it was last asked for
_TURN: Final = 64  # messages between which others may have the loop
_PAUSES: Final = (0.1, 0.25, 0.5, 1.0, 2.0)  # seconds between attempts; the last one repeats
_log: Final = structlog.get_logger("cache")


class Follower(Protocol):
    """Who is told."""

    def take(self, stage: str, text: bytes) -> None:
        """The text of a row's document that has become the latest of its symbol.

        Raises:
            ValueError, KeyError, TypeError: it is none, and passed over.
        """

    def forget(self, keys: Collection[str]) -> None:
        """Keys that were dropped from the cache."""


class Feed:
    """One subscription to the cache, made again whenever the cache comes back.

    It pings through the connection that brings the messages. As the server answers in order, the
    answer proves that all that was published before the ping has been taken. What was published
    while there was no connection is never told: that is a gap, and a stage that is followed again
    has another `life`.
    """

    def __init__(self, cache: Cache, follower: Follower, always: Collection[str] = ()) -> None:
        self._cache = cache
        self._follower = follower
        self._always = frozenset(always)
        self._wanted: dict[str, float] = {}
        self._holders: Counter[str] = Counter()
        self._lives: dict[str, int] = {}
        self._numbers = count(1)
        self._proven = float("-inf")
        self._pings: dict[bytes, float] = {}
        self._news = asyncio.Event()

    def want(self, stage: str) -> None:
        """Follow a stage, from soon on, for a minute at least."""
        if stage not in self._wanted:
            self._news.set()
        self._wanted[stage] = monotonic()

    @contextmanager
    def holding(self, stage: str) -> Iterator[None]:
        """Follow a stage, from soon on, for the length of a block."""
        self._holders[stage] += 1
        if self._holders[stage] == 1:
            self._news.set()
        try:
            yield
        finally:
            self._holders[stage] -= 1
            if not self._holders[stage]:
                del self._holders[stage]

    def life(self, stage: str) -> int:
        """While it stays the same, no row of the stage has been missed; 0: it is not followed."""
        return self._lives.get(stage, 0)

    def age(self) -> float:
        """Since so many seconds it is not proven that nothing is missing."""
        return monotonic() - self._proven

    async def run(self) -> None:
        """Follow until cancelled."""
        attempt = 0
        while True:
            try:
                await self._follow()
            except UnavailableError as error:
                if attempt == 0 or self._proven > 0:
                    _log.warning("feed_broken", error=str(error))
                    attempt = 0
            except Exception:  # noqa: BLE001 - a fault in one message must not end the feed for good
                _log.exception("feed_failed")
            finally:
                self._lives.clear()
                self._pings.clear()
                self._proven = float("-inf")
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def _follow(self) -> None:
        try:
            async with self._cache.client.pubsub() as pubsub:
                await pubsub.subscribe(self._cache.channel(FORGOTTEN))
                asking = asyncio.create_task(self._ask(pubsub))
                try:
                    await self._listen(pubsub, asking)
                finally:
                    await ended(asking)
        except FAILURES as error:
            raise away(error) from error

    async def _listen(self, pubsub: Any, asking: "asyncio.Task[None]") -> None:
        base = self._cache.channel("")
        for number in count(1):
            message = await pubsub.get_message(timeout=_DEAD)
            if asking.done():
                asking.result()
            if message is None:
                oldest = min(self._pings.values(), default=monotonic())
                if monotonic() - oldest > _DEAD:
                    raise UnavailableError("Redis does not answer: the subscription is dead")
                continue
            name = (message["channel"] or b"").decode().removesuffix(base)
            self._received(message["type"], name.removeprefix(channel_of("")), message["data"])
            if number % _TURN == 0:
                await asyncio.sleep(0)

    def _received(self, kind: str, stage: str, data: Any) -> None:
        if kind == "message" and stage in self._lives:
            try:
                self._follower.take(stage, data)
            except (ValueError, KeyError, TypeError) as error:
                _log.warning("message_ignored", stage=stage, error=str(error))
        elif kind == "message" and stage == FORGOTTEN:
            self._forget(data)
        elif kind == "subscribe" and stage != FORGOTTEN:
            # Anew, where the driver opens the connection again by itself.
            self._lives[stage] = next(self._numbers)
        elif kind == "unsubscribe":
            self._lives.pop(stage, None)
        elif kind == "pong" and data in self._pings:
            self._proven = self._pings[data]
            self._pings = {name: at for name, at in self._pings.items() if at > self._proven}

    def _forget(self, data: bytes) -> None:
        try:
            keys = [str(key) for key in orjson.loads(data)]
        except (ValueError, TypeError) as error:
            _log.warning("message_ignored", stage=FORGOTTEN, error=str(error))
        else:
            self._follower.forget(keys)

    async def _ask(self, pubsub: Any) -> None:
        """Subscribe to what is wanted and no more, and ping."""
        followed: frozenset[str] = frozenset()
        for number in count():
            self._news.clear()
            limit = monotonic() - _UNWANTED
            self._wanted = {stage: at for stage, at in self._wanted.items() if at > limit}
            wanted = self._always | self._wanted.keys() | self._holders.keys()
            if fresh := wanted - followed:
                await pubsub.subscribe(*map(self._channel, fresh))
            if left := followed - wanted:
                for stage in left:
                    self._lives.pop(stage, None)
                await pubsub.unsubscribe(*map(self._channel, left))
            followed = wanted
            name = str(number)
            self._pings[name.encode()] = monotonic()
            await pubsub.ping(name)
            await set_within(self._news, PROVEN_EVERY)

    def _channel(self, stage: str) -> str:
        return self._cache.channel(channel_of(stage))
