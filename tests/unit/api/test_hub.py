"""The fan-out of signals to clients."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import hub as module
from api.hub import Hub, Listener
from pipeline.errors import UnavailableError


def row(symbol: str, offset: int = 0) -> dict[str, Any]:
    """A signal, as far as the hub cares."""
    return {"symbol": symbol, "offset": offset}


async def nothing() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A feed that ends at once."""
    return
    yield "signals", {}  # makes it a generator


async def test_rows_go_to_those_who_want_them() -> None:
    """A client gets the symbols it asked for, or all, each row once, in order."""
    hub = Hub(nothing)
    with hub.subscribed(["A", "B"]) as two, hub.subscribed(None) as everything:
        for symbol in "ABC":
            hub.publish(row(symbol))
        assert [(await two.take())["symbol"] for _ in "AB"] == ["A", "B"]
        assert [(await everything.take())["symbol"] for _ in "ABC"] == ["A", "B", "C"]
        assert hub.clients == 2
    assert hub.clients == 0


async def test_a_slow_client_loses_the_oldest() -> None:
    """A full queue drops its oldest rows, counts them, and leaves other clients alone."""
    hub = Hub(nothing)
    with hub.subscribed(["A"]) as slow, hub.subscribed(["B"]) as other:
        for offset in range(module.QUEUE + 3):
            hub.publish(row("A", offset))
        hub.publish(row("B"))
        assert (await slow.take())["offset"] == 3
        assert slow.dropped == hub.dropped == 3
        assert other.dropped == 0


async def test_taking_waits_for_a_row() -> None:
    """A client that is ahead waits without turning the loop."""
    listener = Listener()
    waiting = asyncio.create_task(listener.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    listener.offer(row("A"))
    assert await waiting == row("A")


async def test_the_hub_listens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken feed, of whatever cause, is taken up again."""
    monkeypatch.setattr(module, "_PAUSES", (0.0,))
    troubles: list[Exception | None] = [UnavailableError("away"), ValueError("bad"), None]
    done = asyncio.Event()

    async def feed() -> AsyncIterator[tuple[str, dict[str, Any]]]:
        trouble = troubles.pop(0)
        if trouble is not None:
            raise trouble
        yield "signals", row("A")
        await done.wait()

    hub = Hub(feed)
    task = asyncio.create_task(hub.run())
    with hub.subscribed(None) as listener:
        assert await asyncio.wait_for(listener.take(), 5) == row("A")
    task.cancel()
