"""Token buckets that all processes share, by one script of Redis."""

from importlib.resources import files
from typing import NamedTuple

from pipeline.cache.latest import FAILURES, Cache
from pipeline.errors import UnavailableError


class Grant(NamedTuple):
    """What a bucket gave."""

    tokens: int
    wait: float
    """Seconds until it has the next token."""


class Buckets:
    """Leases of tokens; time is that of Redis, so that clocks of processes do not matter."""

    def __init__(self, cache: Cache) -> None:
        text = (files("pipeline.cache") / "buckets.lua").read_text()
        self._lease = cache.client.register_script(text)

    async def lease(self, name: str, rate: float, burst: int, wanted: int) -> Grant:
        """Take up to `wanted` tokens from a bucket that fills by `rate` a second up to `burst`.

        Raises:
            UnavailableError: Redis is away or slow.
        """
        try:
            tokens, wait = await self._lease(keys=[f"rate:{name}"], args=[rate, burst, wanted])
        except FAILURES as error:
            raise UnavailableError("Redis does not answer") from error
        return Grant(int(tokens), wait / 1000)
