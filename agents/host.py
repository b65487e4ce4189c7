"""The loop of the live path: decode and step, publish, commit, acknowledge; all at work at once.

While one batch is being committed the next one is stepped and published, each in the order of the
source, so whatever is visible is a beginning of the stream. No more than `_IN_HAND` are on their
way: what comes meanwhile waits with the source and makes one larger batch, which costs hardly more
than a small one. So few messages come out at once and many come out cheaply.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from agents.caching import CacheKeeper
from agents.claims import ask_for_the_end, claim
from agents.marks import Marks
from agents.ownership import Ownership, is_ours
from agents.ports import Arrived, Latest, Models, Own, Owned, Publish, Source, Stepped, Store
from agents.retries import insist, now
from agents.saving import Saver
from agents.swaps import offer_for
from pipeline.clock import monotonic, own_time
from pipeline.models.following import Offer
from pipeline.settings import WorkerSettings
from pipeline.store.live import PartitionBatch
from pipeline.waiting import ended

LOG: Final = structlog.get_logger()
_IN_HAND: Final = 5  # batches between the source and the acknowledgement: what bounds the memory
_WORTH: Final = 2000  # rows that are worth a second transaction at the same time
_HEAVY: Final = 64 * 1024  # bytes of messages whose step would hold up the event loop


@dataclass(frozen=True, slots=True)
class _Job:
    """Messages on their way: how many to acknowledge, what they made."""

    count: int
    stepped: Sequence[Stepped]


class Host:
    """Runs the chain over what the source delivers; at least once in, exactly once stored.

    Outputs are delivered before the transaction commits and the source is acknowledged after it, so
    a death at any point is followed by a repetition, never by a gap.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        source: Source,
        store: Store,
        publish: Publish,
        cache: Latest,
        own: Own,
        models: Models,
    ) -> None:
        self._settings = settings
        self._patience = settings.give_up_seconds
        self._source = source
        self._store = store
        self._publish = publish
        self._own = own
        self._models = models
        self._owned: dict[int, Owned] = {}
        self._doubted: set[int] = set()
        self._ownership = Ownership(store, settings.session_timeout, self._patience)
        self._marks = Marks()
        self._keeper = CacheKeeper(cache, store, f"{settings.group}:{settings.instance}")
        self._stepping = asyncio.Lock()
        self._saver = Saver(store, settings.snapshot_seconds, self._marks, self._stepping)
        self._room = asyncio.Semaphore(_IN_HAND)
        self._stepped: asyncio.Queue[_Job] = asyncio.Queue()
        self._published: asyncio.Queue[_Job] = asyncio.Queue()
        self.ticks = 0

    async def run(self) -> None:
        """Until the source ends; then what is on its way is finished.

        Raises:
            FencedError: another worker owns a partition of ours now.
            UnavailableError: a sink failed for longer than `worker.give_up_seconds`.
            StateError: the stored state cannot be continued.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._keeper.run(self._symbols)),
                    group.create_task(self._saver.run(self._owned.values)),
                    group.create_task(self._publish_jobs()),
                    group.create_task(self._commit_jobs()),
                ]
                await self._step_all()
                await self._stepped.join()
                await self._published.join()
                await ended(*tasks)
        except BaseExceptionGroup as group_error:  # the first trouble is the cause of the others
            raise group_error.exceptions[0] from group_error

    async def _step_all(self) -> None:
        batches = self._source.batches()
        while True:
            # Before asking: what comes while there is no room comes as one batch.
            await self._room.acquire()
            arrived = await anext(batches, None)
            if arrived is None:
                return
            for i, part in enumerate(_portions(arrived, self._settings.portion_bytes)):
                if i:
                    await self._room.acquire()
                self._stepped.put_nowait(await self._step(part))

    async def close(self) -> None:
        """Save the state once more, so that the next start has nothing to catch up."""
        for owned in self._owned.values():
            if self._marks.of(owned.partition) >= owned.next_offset - 1:
                await self._saver.save(owned)
        await self._keeper.flush()

    def _symbols(self) -> list[str]:
        return [symbol for owned in self._owned.values() for symbol in owned.symbols]

    async def _step(self, arrived: Sequence[Arrived]) -> _Job:
        by_partition: dict[int, list[Arrived]] = defaultdict(list)
        for one in arrived:
            by_partition[one.partition].append(one)
        await self._claim(by_partition)
        stepped = []
        for partition, messages in sorted(by_partition.items()):
            owned = self._owned[partition]
            made = await self._made(owned, await self._in_order(owned, messages))
            if made is not None:
                stepped.append(made)
            await asyncio.sleep(0)  # let the other jobs move
        return _Job(len(arrived), stepped)

    async def _made(self, owned: Owned, messages: Sequence[Arrived]) -> Stepped | None:
        """The step itself; a long one beside the event loop, which feeds the sinks meanwhile."""
        offer = offer_for(owned, messages, self._models.newest)
        if offer is not None:
            return await self._swapped(owned, messages, offer)
        return await self._stepped_by(owned, messages, None)

    async def _swapped(
        self, owned: Owned, messages: Sequence[Arrived], offer: Offer
    ) -> Stepped | None:
        """A step that other versions begin to speak with; what it takes holds up the stream."""
        began, busy = monotonic(), own_time()  # the loop's clock stands still while a step is done
        made = await self._stepped_by(owned, messages, offer)
        LOG.info(
            "model_activated",
            partition=owned.partition,
            offset=messages[0].message.offset,
            **offer.names(),
            seconds=round(monotonic() - began, 6),
            processor=round(own_time() - busy, 6),
        )
        return made

    async def _stepped_by(
        self, owned: Owned, messages: Sequence[Arrived], offer: Offer | None
    ) -> Stepped | None:
        if sum(len(one.message.value or b"") for one in messages) < _HEAVY:
            return owned.step(messages, offer)
        async with self._stepping:
            step = asyncio.ensure_future(asyncio.to_thread(owned.step, messages, offer))
            try:
                return await asyncio.shield(step)
            finally:
                # A thread cannot be cancelled: until it is done the state is half moved, and the
                # farewell of a worker that was told to stop might save it so.
                await asyncio.wait([step])

    async def _publish_jobs(self) -> None:
        while True:
            jobs = await _gathered(self._stepped)
            batches = [one.batch for job in jobs for one in job.stepped]
            await self._ownership.make_sure(batches)
            swaps = [batch for batch in batches if batch.activation is not None]
            if swaps:  # whoever makes these rows again must know by whom they speak
                await insist("plan", self._patience, lambda s=swaps: self._store.plan(s))  # type: ignore[misc]
            records = [record for job in jobs for one in job.stepped for record in one.records]
            if records:
                await insist("publish", self._patience, lambda r=records: self._publish.deliver(r))  # type: ignore[misc]
            for job in jobs:
                self._published.put_nowait(job)
                self._stepped.task_done()

    async def _commit_jobs(self) -> None:
        while True:
            jobs = await _gathered(self._published)
            batches = [one.batch for job in jobs for one in job.stepped]
            asked = now()
            shares = [
                insist("commit", self._patience, lambda b=share: self._store.commit(b))  # type: ignore[misc]
                for share in _shares(batches)
            ]
            await asyncio.gather(*shares)
            self._ownership.confirm(batches, asked)
            await self._marks.move((batch.partition, batch.mark) for batch in batches)
            await self._source.ack(sum(job.count for job in jobs))
            self.ticks += sum(len(batch.rows["ticks"]) for batch in batches)
            self._keeper.remember(batches)
            for _ in jobs:
                self._published.task_done()
                self._room.release()

    async def _claim(self, wanted: dict[int, list[Arrived]]) -> None:
        """Own the wanted partitions; one that was away is kept unless another claimed it."""
        self._doubted |= self._source.dealt() & self._owned.keys()
        for partition in self._doubted & wanted.keys():
            owned = self._owned[partition]
            if await is_ours(self._store, partition, owned.epoch, self._patience):
                # Claimed too late, when it was another's already, who then published?
                await ask_for_the_end(owned, self._source, self._patience)
            else:
                LOG.info("state_dropped", partition=partition, epoch=owned.epoch)
                del self._owned[partition]
            self._doubted.discard(partition)
        missing = [partition for partition in sorted(wanted) if partition not in self._owned]
        claims = [
            claim(partition, self._source, self._store, self._own, self._models, self._patience)
            for partition in missing
        ]
        for owned in await asyncio.gather(*claims):
            self._owned[owned.partition] = owned
            await self._marks.move([(owned.partition, owned.next_offset - 1)])
            self._keeper.refresh(owned.symbols)

    async def _in_order(self, owned: Owned, arrived: Sequence[Arrived]) -> Sequence[Arrived]:
        """What is new, each message once, with any that the source skipped but the topic has.

        After a rebalance a batch may hold a message of before it, then those from the committed
        offset on: repeats and gaps may be anywhere in it.
        """
        low = upcoming = owned.next_offset
        fresh: list[Arrived] = []
        for one in arrived:
            if one.message.offset >= upcoming:
                fresh.append(one)
                upcoming = one.message.offset + 1
        if upcoming - low == len(fresh):
            return fresh

        async def reread() -> list[Arrived]:
            parts = self._source.reread(owned.partition, low, upcoming)
            return [one async for part in parts for one in part]

        found = {one.message.offset: one for one in await insist("reread", self._patience, reread)}
        found.update((one.message.offset, one) for one in fresh)  # these have their keys
        LOG.warning(
            "gap_read_again", partition=owned.partition, low=low, high=upcoming, found=len(found)
        )
        return [found[offset] for offset in sorted(found)]


async def _gathered(queue: "asyncio.Queue[_Job]") -> list[_Job]:
    """All jobs that wait, at least one."""
    jobs = [await queue.get()]
    while not queue.empty():
        jobs.append(queue.get_nowait())
    return jobs


def _shares(batches: Sequence[PartitionBatch]) -> list[list[PartitionBatch]]:
    """The batches for one transaction, or for two of other partitions if there is much to store.

    A session of Postgres keeps one core busy at most.
    """
    rows: dict[int, int] = defaultdict(int)
    for batch in batches:
        rows[batch.partition] += sum(map(len, batch.rows.values()))
    if sum(rows.values()) < _WORTH or len(rows) == 1:
        return [list(batches)] if batches else []
    first: set[int] = set()
    ours = theirs = 0
    for partition in sorted(rows, key=lambda one: rows[one], reverse=True):
        if ours <= theirs:
            first.add(partition)
            ours += rows[partition]
        else:
            theirs += rows[partition]
    return [[one for one in batches if (one.partition in first) is mine] for mine in (True, False)]


def _portions(arrived: Sequence[Arrived], size: int) -> list[Sequence[Arrived]]:
    """The messages in order, in parts of at most `size` bytes or one message."""
    parts: list[Sequence[Arrived]] = []
    start = held = 0
    for i, one in enumerate(arrived):
        bytes_ = len(one.message.value or b"")
        if i > start and held + bytes_ > size:
            parts.append(arrived[start:i])
            start, held = i, 0
        held += bytes_
    parts.append(arrived[start:])
    return parts
