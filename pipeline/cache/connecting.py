"""Connections to Redis whose calls end when they are cancelled, and whose commands cost little."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import hiredis
import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    _Base: TypeAlias = aioredis.Connection
else:
    _Base = object  # goes before any class of connections


class _Prompt(_Base):
    """Sends within `socket_timeout`, as redis-py's own, but never drops a cancellation.

    redis-py waits for what it sends by `asyncio.wait_for`, which does so in Python 3.11: a task
    cancelled in the moment in which its command is sent would go on as if nothing had been said.
    Commands are written by hiredis, as those of redis-py's blocking client are: one of 500 rows in
    a sixth of the time.
    """

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()  # type: ignore[no-untyped-call]
        text = command.encode() if isinstance(command, str) else command
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command([text] if isinstance(text, bytes) else text)
        except BaseException as error:
            # What was sent in part cannot be taken back: nothing else may follow on this line.
            await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Timeout writing to socket") from None
            if isinstance(error, OSError):
                raise RedisConnectionError(f"Error while writing to socket. {error}.") from error
            raise

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        words = (name.encode() if isinstance(name, str) else name).split()  # as of CONFIG GET
        return [hiredis.pack_command((*words, *rest))]


def make_prompt(pool: aioredis.ConnectionPool) -> None:
    """Have a pool open such connections from now on, whatever they run over."""
    kind: Any = pool.connection_class
    pool.connection_class = type(kind.__name__, (_Prompt, kind), {})
