"""Topics followed from the moment that somebody asks on, by a consumer of no group."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from pipeline.bus.topics import bounds, partitions_of, reader
from pipeline.errors import UnavailableError
from pipeline.waiting import ended
from schemas.arrivals import Message

OPEN_SECONDS: Final = 5.0  # that who wants to follow is kept waiting for the broker
_ANSWER: Final = 2.0  # seconds until a broker that does not answer is away
_LINGER: Final = 10.0  # seconds that a topic is followed after the last one left
_POLL_MS: Final = 500
_RECORDS: Final = 500
_PAUSES: Final = (0.1, 0.25, 0.5, 1.0, 2.0)  # seconds between attempts; the last one repeats
_log: Final = structlog.get_logger("bus")
# Takes a message of a partition; it yields where others may have the loop.
Take = Callable[[int, Message], Iterator[None]]


class TopicFeed:
    """What is published on a topic, in the order of its partitions, while somebody holds it.

    Who holds it misses nothing from then on: where the broker goes away, following goes on at the
    place where it was, for as long as the topic still has it.

    Args:
        bootstrap: The broker.
        topic: The topic.
        take: Is given each message; a ValueError passes it over.
        renewed: Is told that offsets begin anew: the topic was made again.
    """

    def __init__(self, bootstrap: str, topic: str, take: Take, renewed: Callable[[], None]) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._take = take
        self._renewed = renewed
        self._holders = 0
        self._next: dict[int, int] = {}
        self._here = asyncio.Event()
        self._away = False
        self._attempt = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def answers(self) -> bool | None:
        """Whether the broker does; None while nobody follows."""
        return self._here.is_set() if self._task is not None else None

    @asynccontextmanager
    async def holding(self, seconds: float = OPEN_SECONDS) -> AsyncIterator[None]:
        """Follow for the length of a block, which is entered once nothing will be missed.

        Raises:
            UnavailableError: the broker did not answer in this time.
        """
        self._holders += 1
        if self._task is None:
            self._next, self._here = {}, asyncio.Event()  # an earlier task may still be ending
            self._renewed()
            self._task = asyncio.create_task(self._run())
        try:
            try:
                async with asyncio.timeout(seconds):
                    await self._here.wait()
            except TimeoutError as error:
                raise UnavailableError(f"Kafka at {self._bootstrap} does not answer") from error
            yield
        finally:
            self._holders -= 1
            asyncio.get_running_loop().call_later(_LINGER, self._leave)

    async def close(self) -> None:
        """End at once."""
        task, self._task = self._task, None
        if task is not None:
            await ended(task)

    def _leave(self) -> None:
        if not self._holders and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                async with reader(self._bootstrap) as consumer:
                    await self._follow(consumer)
            except UnavailableError as error:
                self._lost(str(error))
            except Exception:  # noqa: BLE001 - whatever the driver raises, it is begun again
                _log.exception("topic_failed", topic=self._topic)
                self._lost("it failed")
            await asyncio.sleep(_PAUSES[min(self._attempt, len(_PAUSES) - 1)])
            self._attempt += 1

    async def _follow(self, consumer: Any) -> None:
        places = await partitions_of(consumer, self._topic)
        consumer.assign(places)
        self._place(consumer, places, await bounds(consumer, places), opened=True)
        self._found()
        while True:
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS)
            for place, records in batches.items():
                await self._tell(place.partition, records)
            if batches:
                self._found()
                continue
            try:  # the client would wait for a dead broker without a word
                async with asyncio.timeout(_ANSWER):
                    edges = await bounds(consumer, places)
            except TimeoutError:
                self._lost(f"no answer within {_ANSWER:g} s")
            else:
                self._place(consumer, places, edges)
                self._found()

    def _place(
        self,
        consumer: Any,
        places: list[Any],
        edges: Mapping[int, tuple[int, int]],
        *,
        opened: bool = False,
    ) -> None:
        """Go where following goes on: at first to the end, in later partitions to the start."""
        begun = bool(self._next)
        for place in places:
            first, last = edges[place.partition]
            before = self._next.get(place.partition, first if begun else last)
            after = before
            if before > last:
                self._renewed()
                after = first
            elif before < first:
                _log.warning("messages_missed", topic=self._topic, count=first - before)
                after = first
            if opened or after != before:
                consumer.seek(place, after)
                self._next[place.partition] = after

    async def _tell(self, partition: int, records: list[Any]) -> None:
        if records[0].offset < self._next[partition]:
            self._renewed()
        for record in records:
            message = Message(record.offset, record.timestamp * 1_000_000, record.value)
            try:
                for _ in self._take(partition, message):
                    await asyncio.sleep(0)
            except ValueError as error:
                _log.warning("message_ignored", topic=self._topic, error=str(error))
            except Exception:  # noqa: BLE001 - a fault in one message must not end the others
                _log.exception("message_failed", topic=self._topic)
            self._next[partition] = record.offset + 1
            await asyncio.sleep(0)

    def _found(self) -> None:
        if self._away:
            _log.info("topic_found", topic=self._topic)
        self._away, self._attempt = False, 0
        self._here.set()

    def _lost(self, why: str) -> None:
        if not self._away:
            _log.warning("topic_lost", topic=self._topic, error=why)
        self._away = True
        self._here.clear()
