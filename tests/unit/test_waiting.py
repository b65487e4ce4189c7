"""Waits that have an end."""

import asyncio

import pytest

from pipeline.waiting import ended, set_within


async def test_it_tells_whether_the_event_was_set() -> None:
    """In time, before, and not."""
    event = asyncio.Event()
    assert not await set_within(event, 0.01)
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await set_within(event, 10)
    assert await set_within(event, 0)


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_beside_the_event_is_kept(turns: int) -> None:
    """Whoever is cancelled ends, in whichever turn of the loop after the event that comes."""
    event = asyncio.Event()
    waits = 0

    async def again_and_again() -> None:
        nonlocal waits
        while True:
            await set_within(event, 0.05)
            waits += 1
            event.clear()

    task = asyncio.create_task(again_and_again())
    await asyncio.sleep(0)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    assert await asyncio.wait([task], timeout=1) == ({task}, set())
    assert waits <= 1


async def test_a_task_that_dropped_its_cancellation_is_told_again() -> None:
    """As a library does that waits by `asyncio.wait_for` in Python 3.11."""
    dropped = 0

    async def deaf() -> None:
        nonlocal dropped
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                dropped += 1
                if dropped > 1:
                    raise

    async def failing() -> None:
        raise ValueError("seen by nobody")

    tasks = [asyncio.create_task(deaf()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await ended(*tasks)
    assert dropped == 2
    assert tasks[0].cancelled()
