"""Values by kind and symbol: read through with one flight a key, forgotten by time and by order.

A latest row never goes back in time: it is written only if newer by identity, as the workers do,
whoever writes it. Figures (`metrics`) are values that anybody may compute again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from pipeline.cache.documents import refilled
from pipeline.cache.figures import CacheFigures
from pipeline.cache.frames import decode_value, encode_value, rows_of, table_of
from pipeline.cache.kinds import EVENTS, KINDS, METRICS, STAGE_OF, Key, escaped, parts_of, text_of
from pipeline.cache.latest import ABSENT, FAILURES, FORGOTTEN, Cache, entries
from pipeline.clock import monotonic
from pipeline.errors import UnavailableError

if TYPE_CHECKING:
    import pandas as pd

_SCANNED: Final = 500  # keys a step of SCAN looks at
_LEFT_ALONE: Final = 1.0  # seconds that a cache which failed is not asked again
_LEASE: Final = 30.0  # seconds that what one computes may be kept by it
_PATIENCE: Final = 5.0  # seconds that others wait for it
_LOOK: Final = 0.05
# Ends a lease, and keeps what was loaded if it is still ours: who invalidates takes it away, as
# what is being loaded may be from before. Keys: lease, value; arguments: token, value or nothing,
# seconds.
_END: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3]) end
return redis.call('DEL', KEYS[1])
"""
T = TypeVar("T")


class CacheManager:
    """All that is cached, over one client; calls raise nothing when it is only being read."""

    def __init__(self, cache: Cache) -> None:
        self.figures = CacheFigures()
        self._cache = cache
        self._settings = cache.settings
        self._again = 0.0
        self._flights: dict[str, asyncio.Task[Any]] = {}
        self._end = cache.client.register_script(_END)

    @property
    def away(self) -> bool:
        """Whether it failed a moment ago, so that it is not asked now."""
        return monotonic() < self._again

    def ttl(self, kind: str) -> int:
        """Seconds that a value of a kind is kept."""
        return self._settings.ttl_of(kind)

    async def get_many(self, kind: str, symbols: Sequence[str], part: str = "") -> dict[str, Any]:
        """The values of symbols, by symbol; None where it is known that there is none.

        Raises:
            UnavailableError: Redis is away or slow, or was a moment ago.
        """
        keys = [text_of((kind, symbol, part)) for symbol in symbols]
        texts = await self._ask(lambda: self._cache.client.mget(keys)) if keys else []
        found = {
            symbol: decode_value(text)
            for symbol, text in zip(symbols, texts, strict=True)
            if text is not None
        }
        self.figures.hits[kind] += len(found)
        self.figures.misses[kind] += len(keys) - len(found)
        self.figures.absences[kind] += sum(value is None for value in found.values())
        return found

    async def get(self, kind: str, symbol: str, part: str = "") -> Any:
        """A value, None without; raises as `get_many`."""
        return (await self.get_many(kind, [symbol], part)).get(symbol)

    async def set_many(self, kind: str, values: Mapping[str, Any], part: str = "") -> int:
        """Keep values, by symbol; returns how many were kept.

        A latest row is kept only if it is newer; of predictions that of each engine with it.

        Raises:
            UnavailableError: Redis is away or slow, or was a moment ago.
            ValueError: a value cannot be said in JSON.
        """
        if kind in STAGE_OF:
            # It is no news: the worker publishes it, or has done so.
            rows = entries(STAGE_OF[kind], values.values())
            found = [(key, refilled(text), "") for key, text, _ in rows]
            return await self._ask(lambda: self._cache.put(found))
        texts = {text_of((kind, s, part)): encode_value(value) for s, value in values.items()}
        await self._ask(lambda: self._cache.set_many(texts, self.ttl(kind)))
        return len(texts)

    async def set(self, kind: str, symbol: str, value: Any, part: str = "") -> bool:
        """Keep a value; whether it was kept. Raises as `set_many`."""
        return bool(await self.set_many(kind, {symbol: value}, part))

    async def set_absent(self, kind: str, symbols: Sequence[str], part: str = "") -> None:
        """Keep for a few seconds that there is no value; one that came meanwhile stays.

        Raises:
            UnavailableError: Redis is away or slow, or was a moment ago.
        """
        texts = dict.fromkeys((text_of((kind, symbol, part)) for symbol in symbols), ABSENT)
        seconds = self._settings.absent_ttl
        await self._ask(lambda: self._cache.set_many(texts, seconds, if_missing=True))

    async def get_frame(self, kind: str, symbols: Sequence[str], part: str = "") -> "pd.DataFrame":
        """The latest rows of symbols as a table, one row each, those without left out.

        Raises:
            UnavailableError: Redis is away or slow, or was a moment ago.
        """
        found = await self.get_many(kind, symbols, part)
        return table_of(row for row in found.values() if row is not None)

    async def set_frame(self, kind: str, frame: "pd.DataFrame") -> int:
        """Keep rows of a table of latest rows, as `get_frame` gives it. Raises as `set_many`."""
        return await self.set_many(kind, {row["symbol"]: row for row in rows_of(frame)})

    async def read(
        self, kind: str, symbol: str, load: Callable[[], Awaitable[Any]], part: str = ""
    ) -> Any:
        """A value from the cache, or loaded and kept: by one at a time, whoever else asks for it.

        Of several tasks one loads, of several processes one within five seconds. What is None is
        kept for a few seconds as absent. Without Redis it is loaded; what `load` raises is raised.
        What is invalidated while it is being loaded is not kept.
        """
        key = text_of((kind, symbol, part))
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._flown((kind, symbol, part), load))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        else:
            self.figures.shared[kind] += 1
        return await asyncio.shield(flight)  # who leaves does not take it from the others

    async def invalidate(self, kind: str, symbol: str, part: str = "") -> int:
        """Forget a value, of a prediction those of all engines; returns how many there were.

        Raises:
            UnavailableError: Redis is away or slow, or was a moment ago.
        """
        return await self._dropped([text_of((kind, symbol, one)) for one in parts_of(kind, part)])

    async def invalidate_pattern(self, pattern: str) -> int:
        """Forget the values whose keys fit a pattern of Redis, found by SCAN.

        Raises:
            UnavailableError: Redis is away or slow, or was a moment ago.
        """
        count, place = 0, 0
        while True:
            at = place
            place, keys = await self._ask(
                lambda at=at: self._cache.client.scan(at, match=pattern, count=_SCANNED)  # type: ignore[misc]  # a default binds the loop's value
            )
            count += await self._dropped(keys)
            if not place:
                return count

    async def invalidate_symbol(self, symbol: str) -> int:
        """Forget all of a symbol. Raises as `invalidate_pattern`."""
        return await self._forgotten(KINDS, symbol)

    async def invalidate_event(self, event: str, symbol: str | None = None) -> int:
        """Forget what an event has changed, of a symbol or of all (`EVENTS`).

        Raises:
            KeyError: there is no such event.
            UnavailableError: Redis is away or slow, or was a moment ago.
        """
        return await self._forgotten(EVENTS[event], symbol)

    async def _forgotten(self, kinds: Sequence[str], symbol: str | None) -> int:
        count = 0
        for kind in kinds:
            if symbol is None:
                count += await self.invalidate_pattern(f"{kind}:*")
            elif kind == METRICS:
                count += await self.invalidate_pattern(f"{kind}:{escaped(symbol)}:*")
            else:
                count += await self.invalidate(kind, symbol)
        return count

    async def _dropped(self, keys: Sequence[str | bytes]) -> int:
        """Unlink keys and tell who keeps copies of them."""
        if not keys:
            return 0
        names = [key if isinstance(key, str) else key.decode(errors="replace") for key in keys]
        for name in names:
            self._flights.pop(name, None)  # who asks from now on does not get what it brings

        async def drop() -> int:
            async with self._cache.client.pipeline(transaction=True) as pipe:
                pipe.unlink(*keys)
                pipe.unlink(*(f"lease:{name}" for name in names))
                pipe.publish(self._cache.channel(FORGOTTEN), encode_value(names))
                count, *_ = await pipe.execute()
            return int(count)

        return await self._ask(drop)

    def _landed(self, key: str, flight: "asyncio.Task[Any]") -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _flown(self, key: Key, load: Callable[[], Awaitable[Any]]) -> Any:
        kind, symbol, part = key
        try:
            found = await self.get_many(kind, [symbol], part)
            if symbol in found:
                return found[symbol]
            token = uuid4().hex
            mine = await self._leased(text_of(key), token)
            if not mine:
                found = await self._awaited(key)
                if symbol in found:
                    self.figures.shared[kind] += 1
                    return found[symbol]
        except UnavailableError:
            mine, token = False, ""
        self.figures.loads[kind] += 1
        text = b""
        try:
            value = await load()
            if kind in STAGE_OF:
                await self._keep(key, value)
            else:
                text = ABSENT if value is None else encode_value(value)
        finally:
            if mine:
                await self._ended(key, token, text)
        return value

    async def _keep(self, key: Key, row: Any) -> None:
        """Keep a latest row that was loaded, if it is newer than what is there."""
        kind, symbol, part = key
        try:
            if row is None:
                await self.set_absent(kind, [symbol], part)
            else:
                await self.set(kind, symbol, row, part)
        except UnavailableError:
            pass  # it is loaded again the next time

    async def _ended(self, key: Key, token: str, text: bytes) -> None:
        seconds = self._settings.absent_ttl if text == ABSENT else self.ttl(key[0])
        keys = [f"lease:{text_of(key)}", text_of(key)]
        with suppress(UnavailableError):  # then it ends by itself
            await self._ask(lambda: self._end(keys, [token, text, seconds]))

    async def _leased(self, name: str, token: str) -> bool:
        lease = round(_LEASE * 1000)
        return bool(
            await self._ask(
                lambda: self._cache.client.set(f"lease:{name}", token, nx=True, px=lease)
            )
        )

    async def _awaited(self, key: Key) -> dict[str, Any]:
        """What the process that has the lease keeps; nothing when it lets go or takes too long."""
        _, symbol, _ = key
        until = monotonic() + _PATIENCE
        while monotonic() < until:
            await asyncio.sleep(_LOOK)
            going = await self._ask(lambda: self._cache.client.exists(f"lease:{text_of(key)}"))
            texts = await self._ask(lambda: self._cache.client.mget([text_of(key)]))
            if texts[0] is not None:
                return {symbol: decode_value(texts[0])}
            if not going:
                break
        return {}

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.away:
            raise UnavailableError("the cache was away a moment ago")
        try:
            return await call()
        except FAILURES as error:
            self._again = monotonic() + _LEFT_ALONE
            self.figures.failed += 1
            raise UnavailableError(f"Redis does not answer: {error}") from error
        except UnavailableError:
            self._again = monotonic() + _LEFT_ALONE
            self.figures.failed += 1
            raise
