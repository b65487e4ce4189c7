"""The loop itself, where neither the simulator nor real processes look closely enough."""

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.host import Host
from agents.ports import Arrived
from pipeline.models.following import Offer
from pipeline.settings import WorkerSettings
from schemas.arrivals import Message


class Slow:
    """A partition whose step takes until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go, self.done = threading.Event(), threading.Event(), False

    def step(self, _: Sequence[Arrived], __: Offer | None) -> None:
        """Move the state."""
        self.begun.set()
        assert self.go.wait(10)
        self.done = True


async def test_a_step_in_a_thread_outlives_no_cancellation() -> None:
    """A worker that is told to stop saves no state that is half moved: the step ends first."""
    nobody: Any = None
    none: Any = SimpleNamespace(newest=None)
    host = Host(WorkerSettings(), nobody, nobody, nobody, nobody, nobody, none)
    owned = Slow()
    heavy = [Arrived(0, None, Message(0, 0, b"x" * 100_000))]
    stepping = asyncio.ensure_future(host._made(cast("Any", owned), heavy))
    assert await asyncio.to_thread(owned.begun.wait, 10)
    stepping.cancel()
    await asyncio.sleep(0.05)
    assert not stepping.done()
    assert host._stepping.locked()
    owned.go.set()
    with pytest.raises(asyncio.CancelledError):
        await stepping
    assert owned.done
    assert not host._stepping.locked()
