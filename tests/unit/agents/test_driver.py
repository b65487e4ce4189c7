"""The private parts of Faust and aiokafka that `agents.driver` rests on, held to one version."""

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer
from faust.transport.consumer import Consumer, ThreadDelegateConsumer
from faust.transport.drivers import aiokafka as stock
from faust.types import TP
from mode.threads import QueueServiceThread, ServiceThread

from agents import driver
from agents.app import make_app
from pipeline.settings import load_settings

READ: list[tuple[Callable[..., Any], str]] = [
    (Consumer.getmany, "4b168d84882a"),
    (Consumer._wait_next_records, "6218e1969a63"),
    (Consumer._drain_messages, "44a2500309e8"),
    (Consumer._add_gap, "4df2573ded7c"),
    (Consumer._new_offset, "1d2c7ea89a7a"),
    (Consumer._filter_committable_offsets, "dc5e9baf5d99"),
    (Consumer._commit_offsets, "1a6979904118"),
    (Consumer.ack, "5fcf41cf4515"),
    (Consumer.wait_empty, "e4662fe24f09"),
    (Consumer.on_stop, "45b1d2210ce2"),
    (Consumer.on_buffer_full, "c8961679e0bc"),
    (Consumer.on_buffer_drop, "4b57e8a418d5"),
    (stock.Consumer._new_consumer_thread, "0870ec53dea7"),
    (stock.AIOKafkaConsumerThread._create_worker_consumer, "c2701bfc3e6f"),
    (stock.AIOKafkaConsumerThread._fetch_records, "39a2c6c79fc1"),
    (ServiceThread.__init__, "82979878990c"),
    (ServiceThread.start, "f11841038a03"),
    (ServiceThread.stop, "32d026539c36"),
    (ServiceThread._serve, "67809eae0957"),
    (ServiceThread._shutdown_thread, "d7377862e734"),
    (ServiceThread._gather_remaining_tasks, "6f65b92dd101"),
    (QueueServiceThread.call_thread, "479edda75b54"),
    (ThreadDelegateConsumer.threadsafe_partitions_revoked, "6c55d67e9eb0"),
    (ThreadDelegateConsumer.threadsafe_partitions_assigned, "50fac26841ad"),
    (faust.App._new_transport, "42db531312dd"),
    (faust.App._on_partitions_revoked, "d5c895bbe57d"),
]
PLACE = TP("prices", 0)


def _digest(read: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(read).encode()).hexdigest()[:12]


def test_versions_are_the_ones_that_were_read() -> None:
    """A change of version is a change of what we override: read it again, then change this."""
    assert (version("faust-streaming"), version("aiokafka")) == ("0.15.3", "0.14.0")


@pytest.mark.parametrize(("read", "digest"), READ, ids=[read.__qualname__ for read, _ in READ])
def test_code_is_the_one_that_was_read(read: Callable[..., Any], digest: str) -> None:
    """Every function that the driver replaces, or whose working it takes for granted."""
    assert _digest(read) == digest, f"{read.__qualname__} has changed: read it anew"


def test_fetches_do_not_wait_for_idle_partitions() -> None:
    """The attribute that the driver sets is the one that a fetch request is made from."""
    assert "self._fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.start)


@pytest.fixture
async def app() -> Any:
    """An app that was never started."""
    return make_app(load_settings([]), "127.0.0.1:1")


async def test_the_consumer_has_no_thread(app: Any) -> None:
    """It lives in the loop of the app, where what it is asked for happens at once."""
    home = app.consumer._thread
    assert home.thread_loop is asyncio.get_running_loop()
    before = set(asyncio.all_tasks())

    async def position(number: int, *, more: int) -> tuple[int, set[Any]]:
        return number + more, asyncio.all_tasks() - before

    assert await home.call_thread(position, 1, more=2) == (3, set())
    assert await home.call_thread(max, 4, 5) == 5


async def test_a_consumer_that_cannot_start_says_so(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a thread would: who starts it is told, and nothing of it goes on."""
    home = app.consumer._thread

    async def refuse() -> None:
        raise OSError("no broker")

    monkeypatch.setattr(home, "on_start", refuse)
    monkeypatch.setattr(home, "on_crash", lambda *_: None)
    with pytest.raises(OSError, match="no broker"):
        await home.start()
    await home.stop()
    assert home._shutdown.is_set()


def _record(offset: int) -> SimpleNamespace:
    return SimpleNamespace(offset=offset)


def _fetching(
    app: Any, monkeypatch: pytest.MonkeyPatch, fetched: Any, active: set[TP]
) -> list[driver.Bundle]:
    """What a fetch that brings this delivers; ready to be awaited by `_fetch`."""
    delivered: list[driver.Bundle] = []

    async def brought(_: float) -> tuple[Any, set[TP]]:
        return fetched, active

    async def take(bundle: driver.Bundle) -> None:
        delivered.append(bundle)

    monkeypatch.setattr(app.consumer, "_wait_next_records", brought)
    monkeypatch.setattr(app.consumer, "callback", take)
    return delivered


async def _fetch(app: Any) -> None:
    assert [bundle async for bundle in app.consumer.getmany(1.0)] == []


async def test_a_fetch_becomes_one_bundle_a_partition(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its size; the offset is the last one's, the generation the group's."""
    app.consumer_generation_id = 7
    other, revoked = TP("prices", 1), TP("prices", 2)
    fetched = {PLACE: [_record(3), _record(4)], other: [_record(9)], revoked: [_record(1)]}
    delivered = _fetching(app, monkeypatch, fetched, {PLACE, other})
    await _fetch(app)
    found = [(b.tp, b.offset, b.records, b.generation_id) for b in delivered]
    assert found == [(PLACE, 4, fetched[PLACE], 7), (other, 9, fetched[other], 7)]
    assert app.consumer._read_offset[PLACE] == 4
    assert app.consumer._read_offset[other] == 9


async def test_what_was_read_is_not_delivered_again(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch that was on its way when the position went on."""
    delivered = _fetching(app, monkeypatch, {PLACE: [_record(3), _record(4)]}, {PLACE})
    app.consumer._read_offset[PLACE] = 5
    await _fetch(app)
    assert delivered == []
    app.consumer._read_offset[PLACE] = 4
    await _fetch(app)
    assert [bundle.offset for bundle in delivered] == [4]


async def test_a_new_generation_ends_a_fetch(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched for an older one is not delivered: it will be fetched again."""
    other = TP("prices", 1)
    fetched = {PLACE: [_record(0)], other: [_record(0)]}
    _fetching(app, monkeypatch, fetched, {PLACE, other})
    seen = []

    async def take(bundle: driver.Bundle) -> None:
        seen.append(bundle.tp)
        app.consumer_generation_id += 1

    monkeypatch.setattr(app.consumer, "callback", take)
    await _fetch(app)
    assert seen == [PLACE]
    assert app.consumer._read_offset[other] is None


async def test_a_rebalance_does_not_wait_for_a_full_stream(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flow control interrupts a delivery; what was not delivered is not noted as read."""
    _fetching(app, monkeypatch, {PLACE: [_record(0)]}, {PLACE})

    async def full(_: driver.Bundle) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app.consumer, "callback", full)
    fetch = asyncio.ensure_future(_fetch(app))
    await asyncio.sleep(0.05)
    assert not fetch.done()
    app.consumer.suspend_flow.set()
    async with asyncio.timeout(5):
        await fetch
    assert app.consumer._read_offset[PLACE] is None


async def test_the_offset_to_commit_is_behind_the_last_acknowledged(app: Any) -> None:
    """In stock Faust a bundle would look like a gap, and one gap holds back every commit."""
    consumer = app.consumer
    app.topics._acking_topics.add(PLACE.topic)
    assert consumer._new_offset(PLACE) is None
    for offset in (4, 9):
        consumer.ack(driver.Bundle(PLACE, [_record(offset)], 0))
    assert consumer._filter_committable_offsets([PLACE]) == {PLACE: 10}
    assert consumer._filter_committable_offsets([PLACE]) == {}


async def test_a_goodbye_waits_for_what_is_in_hand(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only as long as the group would wait; then it commits what is done."""
    consumer: Any = app.consumer
    told: list[object] = []

    async def settle(seconds: float) -> None:
        told.append(seconds)

    async def commit() -> None:
        told.append("commit")

    app.settle = settle
    monkeypatch.setattr(consumer, "commit_and_end_transactions", commit)
    kept = driver.Bundle(PLACE, [_record(0)], 0)
    consumer._unacked_messages.add(kept)
    async with asyncio.timeout(1):
        await consumer.wait_empty()
    assert told == [app.conf.broker_session_timeout / 2, "commit"]
