"""Latest row per symbol and stage: written only if newer by identity, fanned out by pub/sub."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final
from uuid import uuid4

import numpy as np
import orjson
import redis.asyncio as aioredis
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from pipeline.cache.connecting import make_prompt
from pipeline.errors import UnavailableError
from pipeline.settings import CacheSettings
from schemas.blocks import Rows, engines

KEYS: Final[Mapping[str, str]] = {
    "ticks": "price",
    "bars": "bar",
    "features": "features",
    "regimes": "regime",
    "predictions": "prediction",
    "signals": "signal",
    "fills": "fill",
    "equity": "equity",
}
PARITY: Final = "parity"  # the states of the scheduled checks
DRIFT: Final = "drift"
Entry = tuple[str, bytes, str]  # key, document, channel
FORGOTTEN: Final = "forgotten"  # the channel that tells which keys were dropped, as a JSON list
ABSENT: Final = b"null"  # there is no row: who knew that keeps it for a moment
_TOGETHER: Final = b'"p_up":'
_CHUNK: Final = 1000
IDENTITY: Final = b'{"at":"%05d-%020d-%010d",'
IDENTITY_WIDTH: Final = len(IDENTITY % (0, 0, 0))
FAILURES: Final = (RedisError, OSError, TimeoutError)


def key_of(stage: str, symbol: str, engine: str | None = None) -> str:
    """The key of a latest row; a prediction's combined row has engine `combined`."""
    key = f"{KEYS[stage]}:{symbol}"
    return f"{key}:{engine or 'combined'}" if stage == "predictions" else key


def channel_of(stage: str) -> str:
    """The pub/sub channel of a stage's latest rows."""
    return f"latest:{stage}"


def encode(document: Mapping[str, Any]) -> bytes:
    """A row's document, its identity first and in fixed width: text order is identity order."""
    identity = IDENTITY % (document["partition"], document["offset"], document["index"])
    return identity + orjson.dumps(document)[1:]


def last_rows(*parts: Rows) -> list[Rows]:
    """The last row of each symbol, of rows of a stage in order of identity."""
    seen: set[str] = set()
    found: list[Rows] = []
    for rows in reversed(parts):
        last = np.full(len(rows.symbols), -1)
        last[rows["symbol"]] = np.arange(len(rows))  # of equal codes the last one stays
        codes = [c for c in np.flatnonzero(last >= 0).tolist() if rows.symbols[c] not in seen]
        if codes:
            found.append(rows.take(last[codes]) if len(codes) < len(rows) else rows)
            seen.update(rows.symbols[code] for code in codes)
    return found


def entries(stage: str, documents: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Key, document and channel for the rows of a stage, one a symbol."""
    channel = channel_of(stage)
    found = []
    for document in documents:
        symbol = document["symbol"]
        found.append((key_of(stage, symbol), encode(document), channel))
        if stage == "predictions":
            for engine in engines():
                own = {**document, "engine": engine, "p_up": document[f"p_{engine}"]}
                key = key_of(stage, symbol, engine)
                found.append((key, encode(own), f"{channel}:{engine}"))
    return found


def row_entries(rows: Rows, texts_of: Callable[[Rows], Sequence[bytes]]) -> list[Entry]:
    """What `entries` makes of the documents of rows, by a writer of their JSON texts."""
    channel = channel_of(rows.stage)
    names = [rows.symbols[code] for code in rows["symbol"].tolist()]
    places = (rows[name].tolist() for name in ("partition", "offset", "index"))
    identities = [IDENTITY % place for place in zip(*places, strict=True)]
    texts = texts_of(rows)
    found = [
        (key_of(rows.stage, name), identity + text[1:], channel)
        for name, identity, text in zip(names, identities, texts, strict=True)
    ]
    if rows.stage == "predictions":
        parts = [
            (f":{engine}", b'"p_%b":' % text, b',"engine":"%b"}' % text, f"{channel}:{engine}")
            for engine, text in ((engine, engine.encode()) for engine in engines())
        ]
        for name, identity, text in zip(names, identities, texts, strict=True):
            found += _own(f"{KEYS[rows.stage]}:{name}", identity, text, parts)
    return found


def _own(
    key: str, identity: bytes, text: bytes, engines: Sequence[tuple[str, bytes, bytes, str]]
) -> Iterator[Entry]:
    """The documents of a prediction by each engine: its p in the place of the combined one.

    Other members follow on any p in the text, as do those that every document has at its end.
    """
    begin = text.index(_TOGETHER) + len(_TOGETHER)
    before, behind = identity + text[1:begin], text[text.index(b",", begin) : -1]
    for suffix, name, end, channel in engines:
        at = text.index(name) + len(name)
        says = text[at : text.index(b",", at)]
        yield key + suffix, b"%b%b%b%b" % (before, says, behind, end), channel


class Cache:
    """The async client with its pool."""

    def __init__(self, client: "aioredis.Redis", settings: CacheSettings) -> None:
        self.settings = settings
        self._client = client
        # Channels are those of the server, keys those of one of its logical databases.
        number = int(client.connection_pool.connection_kwargs.get("db") or 0)
        self._base = f"@{number}" if number else ""
        text = (files("pipeline.cache") / "latest.lua").read_text()
        self._if_newer = client.register_script(text)
        self._life = uuid4().bytes

    async def put(self, found: Sequence[Entry]) -> int:
        """Write entries where they are newer, one pipeline for all; returns how many were.

        Raises:
            UnavailableError: Redis is away or slow; nothing else is lost by that.
        """
        if not found:
            return 0
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for start in range(0, len(found), _CHUNK):
                    part = found[start : start + _CHUNK]
                    arguments: list[Any] = [IDENTITY_WIDTH]
                    for key, value, channel in part:
                        kind = key.partition(":")[0]
                        where = channel and channel + self._base
                        arguments += [value, where, self.settings.ttl_of(kind)]
                    await self._if_newer(
                        keys=[key for key, _, _ in part], args=arguments, client=pipe
                    )
                return sum(await pipe.execute())
        except FAILURES as error:
            raise away(error) from error

    async def is_new(self, name: str) -> bool:
        """Whether Redis was emptied, or asked by another client, since we asked under this name.

        What a dead process of that name asked may arrive late: its answer was ours, so ask again.

        Raises:
            UnavailableError: Redis is away or slow.
        """
        try:
            before = await self._client.set(f"known:{name}", self._life, get=True)
        except FAILURES as error:
            raise away(error) from error
        return before != self._life

    async def latest(
        self, stage: str, symbols: Sequence[str], engine: str | None = None
    ) -> dict[str, dict[str, Any]]:
        """The cached row of each symbol, by symbol; those without are left out.

        Raises:
            UnavailableError: Redis is away or slow: ask Postgres.
        """
        if not symbols:
            return {}
        try:
            values = await self._client.mget([key_of(stage, name, engine) for name in symbols])
        except FAILURES as error:
            raise away(error) from error
        return {
            name: orjson.loads(value)
            for name, value in zip(symbols, values, strict=True)
            if value not in {None, ABSENT}
        }

    def channel(self, name: str) -> str:
        """A channel of this logical database; of all but the first one the name has its number."""
        return name + self._base

    @property
    def client(self) -> "aioredis.Redis":
        """The driver's client, for this room."""
        return self._client

    async def set_many(
        self, texts: Mapping[str, bytes], seconds: int, *, if_missing: bool = False
    ) -> None:
        """Set keys for some time, all of them or those that are not there; raises the driver's."""
        async with self._client.pipeline(transaction=False) as pipe:
            for key, text in texts.items():
                pipe.set(key, text, ex=seconds, nx=if_missing)
            await pipe.execute()

    async def keep_state(self, name: str, state: Mapping[str, Any], seconds: float) -> None:
        """Say how something stands, as a JSON document that is gone after so many seconds.

        Raises:
            UnavailableError: Redis is away or slow.
        """
        try:
            await self._client.set(f"state:{name}", orjson.dumps(state), ex=max(1, round(seconds)))
        except FAILURES as error:
            raise away(error) from error

    async def state(self, name: str) -> dict[str, Any] | None:
        """What was said last of how something stands; None: nothing, or too long ago.

        Raises:
            UnavailableError: Redis is away or slow.
        """
        try:
            found = await self._client.get(f"state:{name}")
        except FAILURES as error:
            raise away(error) from error
        return None if found is None else orjson.loads(found)

    async def ping(self) -> None:
        """Ask whether Redis is there.

        Raises:
            UnavailableError: it is not.
        """
        try:
            await self._client.ping()
        except FAILURES as error:
            raise away(error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def away(error: BaseException) -> UnavailableError:
    """What a failure of the driver is to others."""
    return UnavailableError(f"Redis does not answer: {' '.join(str(error).split()) or 'timeout'}")


def open_cache(url: str, settings: CacheSettings) -> Cache:
    """A client; it connects when first used.

    Raises:
        UnavailableError: the address cannot be read.
    """
    try:
        pool = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=settings.pool_max,
            timeout=settings.timeout,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
            health_check_interval=30,
            # With notices of maintenance on, the pool lends connections that died while idle.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError:
        # Neither the address nor what the parser says of it: parts of a password may be in both.
        message = "TICKSTREAM_REDIS cannot be read: it is like redis://:PASSWORD@HOST:6379/0"
        raise UnavailableError(message) from None
    make_prompt(pool)
    return Cache(aioredis.Redis.from_pool(pool), settings)
