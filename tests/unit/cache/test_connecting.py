"""Commands to Redis as bytes."""

from typing import Any

import pytest
import redis.asyncio as aioredis

from pipeline.cache.connecting import make_prompt

COMMANDS = [
    ("GET", "\u00fc"),
    ("CONFIG GET", "maxmemory"),
    (b"CLIENT SETNAME", "x"),
    ("SET", b"key", -3, "EX", 1.5, b"\x00\r\n", ""),
    ("EVALSHA", "ab", 0, *(b"x" * 7000 for _ in range(3))),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost", "unix:///none"])
def test_they_are_what_the_library_writes(url: str, command: tuple[Any, ...]) -> None:
    """Whatever the connection runs over; redis-py's own writer is held against ours."""
    pool: Any = aioredis.ConnectionPool.from_url(url)
    plain = pool.make_connection()
    make_prompt(pool)
    ours = pool.make_connection()
    assert isinstance(ours, type(plain))
    assert len(ours.pack_command(*command)) == 1
    assert b"".join(ours.pack_command(*command)) == b"".join(plain.pack_command(*command))
