"""The loop of the live path: decode, step, publish, store, acknowledge, cache."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from agents.outputs import block_records, reject_records
from agents.partition import OwnedPartition
from agents.ports import Arrived, Latest, Publish, Source, Store
from pipeline.bus.publisher import Outgoing
from pipeline.cache.latest import Entry, entries, newest
from pipeline.clock import monotonic
from pipeline.errors import StateError, UnavailableError
from pipeline.settings import Settings
from pipeline.store.live import PartitionBatch, compress
from pipeline.store.pool import RETRYABLE
from schemas.blocks import STAGES

LOG: Final = structlog.get_logger()
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_CACHE_REST = 1.0  # seconds that a failing cache is left alone


class Host:
    """Runs the chain over what the source delivers; at least once in, exactly once stored.

    Outputs are delivered before the transaction commits and the source is acknowledged after it, so
    a death at any point is followed by a repetition, never by a gap.
    """

    def __init__(
        self, settings: Settings, source: Source, store: Store, publish: Publish, cache: Latest
    ) -> None:
        self._settings = settings
        self._source = source
        self._store = store
        self._publish = publish
        self._cache = cache
        self._owned: dict[int, OwnedPartition] = {}
        self._unsent: dict[str, Entry] = {}
        self._cache_rests_until = 0.0
        self._snapshot_due = monotonic() + settings.worker.snapshot_seconds
        self._saving: asyncio.Task[None] | None = None
        self.ticks = 0

    async def run(self) -> None:
        """Until the source ends.

        Raises:
            FencedError: another worker owns a partition of ours now.
            UnavailableError: a sink failed for longer than `worker.give_up_seconds`.
            StateError: the stored state cannot be continued.
        """
        async for arrived in self._source.batches():
            await self.process(arrived)
            await self._source.ack()
            await self._put_cache()
            await self._save_when_due()

    async def process(self, arrived: Sequence[Arrived]) -> None:
        """One batch up to its commit."""
        by_partition: dict[int, list[Arrived]] = defaultdict(list)
        for one in arrived:
            by_partition[one.partition].append(one)
        batches: list[PartitionBatch] = []
        records: list[Outgoing] = []
        for partition, messages in sorted(by_partition.items()):
            owned = self._owned.get(partition) or await self._claim(partition)
            stepped = owned.step(await self._without_gap(owned, messages))
            if stepped is None:
                continue
            batch, keys = stepped
            batches.append(batch)
            records.extend(block_records(partition, batch.rows))
            records.extend(reject_records(partition, batch.rejects, keys))
        if not batches:
            return
        await self._insist("publish", lambda: self._publish.deliver(records))
        await self._insist("commit", lambda: self._store.commit(batches))
        for batch in batches:
            self.ticks += len(batch.rows["ticks"])
            for stage, rows in batch.rows.items():
                self._remember(entries(stage, newest(rows)))

    async def close(self) -> None:
        """Save the state once more, so that the next start has nothing to catch up."""
        if self._saving is not None:
            await self._saving
        await self._save_all()

    async def _insist(self, what: str, action: Callable[[], Awaitable[None]]) -> None:
        """Repeat an action whose repetition is harmless until it succeeds or time is up."""
        deadline = monotonic() + self._settings.worker.give_up_seconds
        pause = _FIRST_PAUSE
        while True:
            try:
                return await action()
            except (UnavailableError, *RETRYABLE) as error:
                if monotonic() + pause > deadline:
                    raise UnavailableError(f"{what} failed for too long: {error}") from error
                LOG.warning("sink_failed", action=what, error=str(error), pause=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _claim(self, partition: int) -> OwnedPartition:
        """Own a partition: load its snapshot and replay the topic up to the stored mark."""
        start = monotonic()
        claimed = []

        async def claim() -> None:
            claimed.append(await self._store.claim(partition))

        await self._insist("claim", claim)
        claim_ = claimed[-1]
        owned = OwnedPartition(self._settings.chain, partition, claim_.epoch)
        if claim_.snapshot is not None:
            try:
                owned.restore(claim_.snapshot_offset, claim_.snapshot)
            except StateError as error:
                LOG.warning("snapshot_refused", partition=partition, error=str(error))
                owned.reset()
        first = owned.next_offset
        async for messages in self._source.reread(partition, first, claim_.mark + 1):
            owned.catch_up(messages)
        owned.next_offset = max(owned.next_offset, claim_.mark + 1)
        owned.settled()
        self._owned[partition] = owned
        await self._refresh_cache(owned)
        LOG.info(
            "partition_claimed",
            partition=partition,
            epoch=claim_.epoch,
            mark=claim_.mark,
            replayed=claim_.mark + 1 - first,
            seconds=round(monotonic() - start, 3),
        )
        return owned

    async def _without_gap(
        self, owned: OwnedPartition, arrived: Sequence[Arrived]
    ) -> Sequence[Arrived]:
        """The messages, preceded by any that the source skipped but the topic still has."""
        low, high = owned.next_offset, arrived[0].message.offset
        if high <= low:
            return arrived
        missed = [
            one async for part in self._source.reread(owned.partition, low, high) for one in part
        ]
        LOG.warning(
            "gap_read_again", partition=owned.partition, low=low, high=high, found=len(missed)
        )
        return [*missed, *arrived]

    def _remember(self, found: Sequence[Entry]) -> None:
        for entry in found:
            self._unsent[entry[0]] = entry

    async def _put_cache(self) -> None:
        """Write what is newest to the cache; what fails is kept, one value a key, for later."""
        if not self._unsent or monotonic() < self._cache_rests_until:
            return
        try:
            await self._cache.put(list(self._unsent.values()))
        except UnavailableError as error:
            self._cache_rests_until = monotonic() + _CACHE_REST
            LOG.warning("cache_failed", error=str(error), kept=len(self._unsent))
        else:
            self._unsent.clear()

    async def _refresh_cache(self, owned: OwnedPartition) -> None:
        """After a death between commit and cache, bring the cache up to what is stored."""
        if not owned.symbols:
            return
        for stage in STAGES:
            latest: list[Mapping[str, Mapping[str, object]]] = []

            async def read(stage: str = stage) -> None:
                latest.append(await self._store.latest(stage, owned.symbols))  # noqa: B023 -- awaited within the turn

            await self._insist("read", read)
            self._remember(entries(stage, latest[-1].values()))

    async def _save_when_due(self) -> None:
        if monotonic() < self._snapshot_due or (self._saving and not self._saving.done()):
            return
        if self._saving is not None:
            await self._saving  # raises what the last one met
        states = [(owned, owned.next_offset - 1, owned.snapshot()) for owned in self._moved()]
        self._saving = asyncio.create_task(self._save(states))
        self._snapshot_due = monotonic() + self._settings.worker.snapshot_seconds

    async def _save_all(self) -> None:
        await self._save([(o, o.next_offset - 1, o.snapshot()) for o in self._moved()])

    def _moved(self) -> list[OwnedPartition]:
        return [o for o in self._owned.values() if o.next_offset - 1 > o.snapshot_offset]

    async def _save(self, states: Sequence[tuple[OwnedPartition, int, bytes]]) -> None:
        for owned, offset, state in states:
            data = await asyncio.to_thread(compress, state)
            try:
                await self._store.save_snapshot(owned.partition, owned.epoch, offset, data)
                owned.snapshot_offset = offset
            except (UnavailableError, *RETRYABLE) as error:
                LOG.warning("snapshot_failed", partition=owned.partition, error=str(error))
