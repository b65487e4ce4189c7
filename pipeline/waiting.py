"""Waits that end when they should.

Python 3.11's `asyncio.wait_for` drops a cancellation that comes in the moment in which what it
waits for is done. We do not use it; libraries do,
and a task group does not pass on what it is told twice.
"""

import asyncio
from typing import Any, Final

_AGAIN: Final = 1.0  # seconds that a task has for its end before it is told once more


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait so many seconds at most; whether the event is set."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks until they are over; what they raise is left to who asks for their results."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # it was seen
