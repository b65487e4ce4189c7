"""The fan-out of signals to clients."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api import hub as module
from api.hub import Hubs, LatestHub, Listener
from pipeline.cache.latest import encode


def row(symbol: str, offset: int = 0) -> dict[str, Any]:
    """A row, as far as the hub cares."""
    return {"symbol": symbol, "partition": 0, "offset": offset, "index": 0}


def text(symbol: str, offset: int = 0) -> bytes:
    """The same as it is published."""
    return encode(row(symbol, offset))


async def test_rows_go_to_those_who_want_them() -> None:
    """A client gets the symbols it asked for, or all, each row once, in order."""
    hub = LatestHub()
    with hub.subscribed(["A", "B"]) as two, hub.subscribed(None) as everything:
        for symbol in "ABC":
            hub.publish(text(symbol))
        assert [(await two.take())["symbol"] for _ in "AB"] == ["A", "B"]
        assert [(await everything.take())["symbol"] for _ in "ABC"] == ["A", "B", "C"]
        assert hub.clients == 2
    assert hub.clients == 0


async def test_a_slow_client_loses_the_oldest() -> None:
    """A full queue drops its oldest rows, counts them, and leaves other clients alone."""
    hub = LatestHub()
    with hub.subscribed(["A"]) as slow, hub.subscribed(["B"]) as other:
        for offset in range(module.QUEUE + 3):
            hub.publish(text("A", offset))
        hub.publish(text("B"))
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


async def test_a_row_is_told_once() -> None:
    """What an emptied cache is given again was told before; an older row begins anew."""
    hub = LatestHub()
    with hub.subscribed(None) as listener:
        for offset in (5, 5, 6, 6, 2, 5):
            hub.publish(text("A", offset))
        hub.publish(text("B", 5))
        found = [await listener.take() for _ in range(5)]
    assert [(one["symbol"], one["offset"]) for one in found] == [
        ("A", 5), ("A", 6), ("A", 2), ("A", 5), ("B", 5),
    ]  # fmt: skip
    assert not listener._rows


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the symbol that had the longest no new row it is forgotten what was told."""
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    hub = LatestHub()
    with hub.subscribed(None) as listener:
        for symbol in "ABACAB":
            hub.publish(text(symbol))
        assert [(await listener.take())["symbol"] for _ in range(5)] == list("ABCAB")
    assert len(hub._last) == 2


async def test_what_nobody_wants_is_not_read() -> None:
    """The text of a row is only read for who wants it; what is no row raises."""
    hub = LatestHub()
    broken = text("A")[:-1]
    hub.publish(broken)
    with hub.subscribed(["B"]):
        hub.publish(text("A", 1)[:-1])
    with hub.subscribed(["A"]) as listener:
        for wrong in (text("A", 2)[:-1], b"null", b""):
            with pytest.raises(ValueError):  # noqa: PT011 -- the feed takes any
                hub.publish(wrong)
        hub.publish(text("A", 3))
        assert await listener.take() == {"at": "00000-00000000000000000003-0000000000"} | row(
            "A", 3
        )


async def test_a_stage_is_held_while_somebody_listens() -> None:
    """Each stage has a hub of its own, and is followed for as long as it has listeners."""
    held: list[str] = []

    @contextmanager
    def hold(stage: str) -> Iterator[None]:
        held.append(stage)
        yield
        held.remove(stage)

    hubs = Hubs(hold)
    with hubs.subscribed("bars", None) as bars, hubs.subscribed("ticks", ["A"]) as ticks:
        assert held == ["bars", "ticks"]
        assert (hubs.clients, hubs["bars"].clients, hubs["signals"].clients) == (2, 1, 0)
        for stage, offset in (("bars", 1), ("ticks", 1), ("features", 1), ("bars", 2)):
            hubs.publish(stage, text("A", offset))
        assert [(await bars.take())["offset"] for _ in range(2)] == [1, 2]
        assert (await ticks.take())["offset"] == 1
        assert not bars._rows
        assert not ticks._rows
    assert held == []
    assert hubs.clients == 0
