"""Faust's Kafka driver with four changes: batches, no thread, no long waits, no endless goodbyes.

Stock Faust makes an event, a queue entry and a stream step of every record (20,000 records a second
at best). Here the records that one fetch brought for a partition travel as one event, and those of
a fetch go to the stream together, so flow control, rebalances and acknowledgements stay Faust's and
cost nothing a record. The consumer lives in the loop of the app: to a thread of its own each fetch
is asked for and handed over through two wake-ups and the interpreter's lock, which at 10,000
ticks/s is a quarter of the latency. Nothing here holds up the loop for as long as a heartbeat may
be late. Fetches wait for `FETCH_WAIT_MS` instead of a hard-coded 1.5 s: while one waits for an idle
partition, aiokafka cannot ask the same broker for a busy one. And a rebalance waits for what is in
hand only so long.

This rests on private parts of one version of Faust; tests/unit/agents/test_driver.py names them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, cast

import faust
from faust.transport.drivers import aiokafka as stock
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.utils.futures import maybe_async

FETCH_WAIT_MS: Final = 10
# Of the session timeout; beyond it the group goes on without us anyway.
_PATIENCE: Final = 0.5


class Bundle(ConsumerMessage):
    """The records of one fetch and one partition; its offset is the last one's."""

    __slots__ = ("records",)

    def __init__(self, tp: TP, records: "list[Any]", generation: int) -> None:
        super().__init__(
            tp.topic, tp.partition, records[-1].offset, 0.0, 0, None, None, b"", None,
            tp=tp, generation_id=generation,
        )  # fmt: skip
        self.records = records


class _Task:
    """What Faust makes a thread of: the service runs as a task of the app's loop."""

    def __init__(self, service: "_Home") -> None:
        self._service = service

    def start(self) -> None:
        """Begin; a crash is told to the app by the service itself."""
        self._serving = asyncio.ensure_future(self._service._serve())  # noqa: SLF001 -- as the thread does
        self._serving.add_done_callback(_heard)

    def stop(self) -> None:
        """The service was told to stop and has: there is no thread to join."""


def _heard(serving: "asyncio.Future[None]") -> None:
    if not serving.cancelled():
        serving.exception()


class _Home(stock.AIOKafkaConsumerThread):
    """Where aiokafka's consumer lives."""

    Worker: Any = _Task

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call at once: no queue, no wake-up."""
        return await maybe_async(fun(*args, **kwargs))

    async def _gather_remaining_tasks(self) -> None:
        """The loop has other tasks than ours, which a thread's loop has not."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001 -- no argument for it
        return consumer


class Consumer(stock.Consumer):
    """Delivers bundles; acknowledged in order, a partition's last one is where to go on."""

    def _new_consumer_thread(self) -> _Home:
        return _Home(self, loop=self.loop, thread_loop=self.loop, beacon=self.beacon)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 -- as Faust calls it
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Deliver what one fetch brought, a bundle a partition; nothing is left to yield."""
        records, active = await self._wait_next_records(timeout)
        if not records or self.should_stop:
            return
        generation = self.app.consumer_generation_id
        if not self.flow_active:
            await self.perform_seek()
            return
        bundles = [
            Bundle(tp, found, generation)
            for tp, found in records.items()
            if found and (not active or tp in active)
        ]
        await self.wait_first(self._deliver(bundles, generation), self.suspend_flow.wait())
        left: tuple[tuple[TP, ConsumerMessage], ...] = ()
        for one in left:
            yield one

    async def _deliver(self, bundles: "Sequence[Bundle]", generation: int) -> None:
        """What `_drain_messages` does with each that `getmany` yields, four tasks a message."""
        for bundle in bundles:
            if self._stale(generation):
                return
            read = self._read_offset[bundle.tp]
            if read is None or bundle.offset >= read:
                await self.callback(bundle)
                self._read_offset[bundle.tp] = bundle.offset

    def _stale(self, generation: int) -> bool:
        return not self.flow_active or self.app.consumer_generation_id != generation

    def on_buffer_full(self, tp: TP) -> None:
        """A full queue makes the fetch loop wait; stock Faust would sleep for a second."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps are none: the offsets of a bundle, or those that the topic does not have."""

    def _new_offset(self, tp: TP) -> int | None:
        """Behind the last acknowledged message: they are acknowledged in order."""
        acked = self._acked[tp]
        if not acked:
            return None
        last = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return int(last) + 1

    async def wait_empty(self) -> None:
        """Let what is in hand be finished, what only waits be read again; then commit."""
        app = cast("App", self.app)
        await app.settle(_PATIENCE * app.conf.broker_session_timeout)
        self._unacked_messages.clear()
        await self.commit_and_end_transactions()


class Transport(stock.Transport):
    """The transport of our consumer."""

    Consumer = Consumer


async def _nothing_in_hand(_: float, /) -> None:
    return


class App(faust.App):
    """An app whose consumer delivers bundles; who takes them sets `settle`."""

    settle: Callable[[float], Awaitable[None]] = staticmethod(_nothing_in_hand)

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)
