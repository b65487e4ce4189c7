"""The simulated servers and the real ones keep one contract: what the live loop may rely on.

A simulation proves nothing about a store that behaves otherwise, so every rule below is held
against both.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.ports import Arrived, Latest, Publish, Source, Stepped, Store
from agents.source import FaustSource
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import read_ranges
from pipeline.bus.topics import ensure_topics, offset_bounds
from pipeline.cache.latest import Cache, Entry, entries, open_cache
from pipeline.errors import FencedError
from pipeline.servers import Addresses
from pipeline.settings import CacheSettings, TopicSettings
from pipeline.store.live import LiveStore, PartitionBatch, compress
from pipeline.store.pool import Pool
from schemas.arrivals import Message
from schemas.topics import PRICES
from tests.fixtures.rows import newest
from tests.simulation.faults import Faults
from tests.simulation.group import Member
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.ports import SimCache, SimPublish, SimSource, SimStore, Wire
from tests.simulation.toy import BLOCKS, ToyPartition, clean_replay, offer_of, rows_of
from tests.simulation.world import Postgres, Redis, World

# Values that make rows of several symbols, a refusal, and two rows of one message.
MESSAGES: Final = [Message(i, 0, b"message %d" % i) for i in range(12)]
LATE: Final = 10**9


def steps(epoch: int, *ends: int, partition: int = 0) -> list[Stepped]:
    """What the messages make, in batches that end before these offsets."""
    toy, start, made = ToyPartition(partition, epoch), 0, []
    for end in ends:
        arrived = [Arrived(partition, b"key", message) for message in MESSAGES[start:end]]
        stepped = toy.step(arrived)
        assert stepped is not None
        made.append(stepped)
        start = end
    return made


def planning(*stepped: Stepped, generation: int = 1) -> list[PartitionBatch]:
    """Batches that begin with an activation, each of a generation of its own."""
    return [
        replace(
            one.batch,
            activation=offer_of(generation + i).at(first_offset(one.batch)).activation,
        )
        for i, one in enumerate(stepped)
    ]


def first_offset(batch: PartitionBatch) -> int:
    """Of a message that made rows."""
    return rows_of(batch)[0][0]


def state_at(offset: int) -> bytes:
    """The packed state behind an offset."""
    return clean_replay(0, MESSAGES).states[offset].packed()


# The store.

StoreRule = Callable[[Store], Awaitable[None]]


async def a_claim_raises_the_epoch(store: Store) -> None:
    """The first has epoch 1, no mark and no snapshot; each partition counts for itself."""
    first, second = await store.claim(0), await store.claim(0)
    assert (first.epoch, first.mark, first.snapshot_offset, first.snapshot) == (1, -1, -1, None)
    assert second.epoch == 2
    assert not await store.holds(1, 1)
    assert (await store.claim(1)).epoch == 1
    assert [await store.holds(0, epoch) for epoch in (1, 2, 3)] == [False, True, False]


async def a_commit_moves_the_mark_once(store: Store) -> None:
    """A batch whose mark is stored is skipped, with another partition's new one beside it."""
    await store.claim(0)
    await store.claim(1)
    first, second = (stepped.batch for stepped in steps(1, 4, 9))
    other = steps(1, 3, partition=1)[0].batch
    for batches in ([first], [first], [first, other], [second], [first, other], []):
        await store.commit(batches)
    assert [(await store.claim(p)).mark for p in (0, 1)] == [8, 2]


async def several_batches_of_a_partition_are_one_commit(store: Store) -> None:
    """In their order; those that are stored already are skipped, the last one is the mark."""
    await store.claim(0)
    first, second, third = (stepped.batch for stepped in steps(1, 4, 9, 12))
    await store.commit([first, second])
    assert (await store.claim(0)).mark == 8
    later = [stepped.batch for stepped in steps(2, 4, 9, 12)]
    await store.commit(later)
    await store.commit(later)
    assert (await store.claim(0)).mark == third.mark
    found = await store.latest("ticks", [row[2] for row in clean_replay(0, MESSAGES).rows])
    assert max(row["offset"] for row in found.values()) == third.mark


async def an_older_owner_writes_nothing(store: Store) -> None:
    """All or nothing: a fenced partition takes the others of its commit with it."""
    await store.claim(0)
    await store.claim(1)
    first, second = (stepped.batch for stepped in steps(1, 4, 9))
    other = steps(1, 3, partition=1)[0].batch
    await store.commit([first])
    await store.claim(0)
    for batches in ([second], [other, second], [second, other], [first]):
        with pytest.raises(FencedError):
            await store.commit(batches)
    assert [(await store.claim(p)).mark for p in (0, 1)] == [3, -1]
    assert await store.latest("ticks", ["A1", "B1", "C1"]) == {}


async def latest_is_the_row_of_highest_identity(store: Store) -> None:
    """Of the symbols asked for, those that have rows."""
    await store.claim(0)
    for stepped in steps(1, 4, 12):
        await store.commit([stepped.batch])
    expected = {row[2]: row for row in clean_replay(0, MESSAGES).rows}
    found = await store.latest("ticks", [*expected, "NONE"])
    shown = {
        symbol: (row["offset"], row["index"], row["symbol"], int(row["price"]))
        for symbol, row in found.items()
    }
    assert shown == expected
    assert await store.latest("bars", list(expected)) == {}


async def a_snapshot_is_the_newest_of_the_owner(store: Store) -> None:
    """A claim brings the newest one; an older owner saves none, not even over its own."""
    await store.claim(0)
    for stepped in steps(1, 4, 9):
        await store.commit([stepped.batch])
        await store.save_snapshot(0, 1, stepped.batch.mark, compress(state_at(stepped.batch.mark)))
    claim = await store.claim(0)
    assert (claim.snapshot_offset, claim.snapshot) == (8, state_at(8))
    await store.save_snapshot(0, 1, 7, compress(b"a zombie's"))
    await store.save_snapshot(0, 1, 8, compress(b"a zombie's"))
    await store.save_snapshot(0, 2, 6, compress(state_at(6)))
    claim = await store.claim(0)
    assert (claim.snapshot_offset, claim.snapshot) == (8, state_at(8))


async def what_is_planned_comes_with_a_claim(store: Store) -> None:
    """In the order of the places, also behind the mark; twice the same is once; each for itself."""
    await store.claim(0)
    await store.claim(1)
    batches = planning(*steps(1, 4, 9))
    other = planning(*steps(1, 3, partition=1), generation=7)
    await store.plan(batches)
    await store.commit(batches[:1])
    await store.plan([*batches[1:], *other])
    claim = await store.claim(0)
    assert claim.mark == batches[0].mark
    assert list(claim.activations) == [one.activation for one in batches]
    assert list((await store.claim(1)).activations) == [other[0].activation]
    assert [one.generation for one in claim.activations] == [1, 2]


async def an_older_owner_plans_nothing(store: Store) -> None:
    """All or nothing, like its commits."""
    await store.claim(0)
    await store.claim(1)
    first, second = planning(*steps(1, 4, 9))
    (other,) = planning(*steps(1, 3, partition=1))
    await store.plan([first])
    await store.claim(0)
    for batches in ([second], [other, second], [first]):
        with pytest.raises(FencedError):
            await store.plan(batches)
    assert list((await store.claim(0)).activations) == [first.activation]
    assert list((await store.claim(1)).activations) == []


STORE_RULES: Final[Sequence[StoreRule]] = (
    a_claim_raises_the_epoch,
    a_commit_moves_the_mark_once,
    several_batches_of_a_partition_are_one_commit,
    an_older_owner_writes_nothing,
    latest_is_the_row_of_highest_identity,
    a_snapshot_is_the_newest_of_the_owner,
    what_is_planned_comes_with_a_claim,
    an_older_owner_plans_nothing,
)


# The cache: of two workers with the same name, and what empties it.


@dataclass(frozen=True, slots=True)
class Caches:
    """Two clients of one cache."""

    ours: Latest
    theirs: Latest
    wipe: Callable[[], Awaitable[None]]


CacheRule = Callable[[Caches], Awaitable[None]]


def cached(*ends: int) -> list[list[Entry]]:
    """Entries of batches, older before newer."""
    return [entries("ticks", newest(stepped.batch.rows["ticks"])) for stepped in steps(1, *ends)]


async def only_newer_values_are_written(caches: Caches) -> None:
    """Repeats and older values change nothing, whoever brings them."""
    older, newer = cached(6, 12)
    keys = {key for key, _, _ in older} | {key for key, _, _ in newer}
    assert await caches.ours.put(newer) == len(newer)
    assert await caches.theirs.put(newer) == 0
    assert await caches.theirs.put(older) == len(keys) - len(newer)
    assert await caches.ours.put([]) == 0


async def an_emptied_cache_is_new(caches: Caches) -> None:
    """At first, after it was emptied, and when another life of that name has asked meanwhile."""
    ours, theirs = caches.ours, caches.theirs
    assert [await ours.is_new("w") for _ in range(3)] == [True, False, False]
    assert await ours.is_new("v")
    await caches.wipe()
    assert [await ours.is_new("w") for _ in range(2)] == [True, False]
    assert await theirs.is_new("w")
    assert [await ours.is_new("w") for _ in range(2)] == [True, False]
    (values,) = cached(12)
    await ours.put(values)
    await caches.wipe()
    assert await ours.put(values) == len(values)


CACHE_RULES: Final[Sequence[CacheRule]] = (only_newer_values_are_written, an_emptied_cache_is_new)


# The topics.

Read = Callable[[], Awaitable[list[bytes]]]


async def records_lie_in_the_order_of_delivery(
    publish: Publish, records: Sequence[Outgoing], read: Read
) -> None:
    """Delivered means readable; what is delivered again is there again."""
    values = [record.value for record in records]
    await publish.deliver(records)
    assert await read() == values
    await publish.deliver(iter(records[:1]))
    await publish.deliver([])
    assert await read() == [*values, values[0]]


async def a_range_is_read_exactly(source: Source, base: int) -> None:
    """Low <= offset < high of what is there, in order; then it ends."""
    end = len(MESSAGES)
    assert await source.end(0) == base + end
    for low, high in ((0, end), (2, 5), (5, 5), (7, 3), (end - 1, end + 50), (end, end + 9)):
        parts = source.reread(0, base + low, base + high)
        found = [one async for part in parts for one in part]
        assert [one.message.offset - base for one in found] == list(range(low, min(high, end)))
        assert [one.message.value for one in found] == [m.value for m in MESSAGES[low:high]]
        assert all(one.partition == 0 for one in found)


# The simulated ones.


class Simulated:
    """A world without faults, in which one process may ask anything."""

    def __init__(self) -> None:
        chance = Random(1)  # noqa: S311 -- an order, no secret
        self.loop = SimulatedLoop(chance)
        self.world = World(self.loop, Faults(chance), [MESSAGES, MESSAGES])
        self.process = Process("asker")
        clean = self.world.clean
        # Each port is judged alone: what was never published may be stored, cached what was not.
        self.world.postgres = Postgres(clean, lambda _, __: None, lambda _, __: None)
        self.world.redis = Redis(clean, lambda _: LATE)

    def wire(self, name: str = "asker") -> Wire:
        """A connection of a life of this name."""
        process = Process(name)
        return Wire(self.world, process, pytest.fail)

    def run(self, rule: Any) -> None:
        """Let a rule speak to the world."""
        task = self.loop.spawn(self.process, rule)
        self.loop.serve(LATE, bool)
        while not task.done():
            self.loop.run_until(self.loop.time() + 1.0)
        task.result()


@pytest.fixture
def simulated() -> Simulated:
    """A world of its own."""
    return Simulated()


@pytest.mark.parametrize("rule", STORE_RULES, ids=lambda rule: rule.__name__)
def test_the_simulated_store_keeps_the_contract(simulated: Simulated, rule: StoreRule) -> None:
    """The model of Postgres."""
    simulated.run(rule(SimStore(simulated.wire())))


@pytest.mark.parametrize("rule", CACHE_RULES, ids=lambda rule: rule.__name__)
def test_the_simulated_cache_keeps_the_contract(simulated: Simulated, rule: CacheRule) -> None:
    """The model of Redis."""

    async def wipe() -> None:
        simulated.world.redis.wipe()

    ours, theirs = (SimCache(simulated.wire(name)) for name in ("ours", "theirs"))
    simulated.run(rule(Caches(ours, theirs, wipe)))


def test_the_simulated_topics_keep_the_contract(simulated: Simulated) -> None:
    """The model of the output topics."""
    values = simulated.world.outputs.values

    async def read() -> list[bytes]:
        return list(values[BLOCKS, 0])

    rule = records_lie_in_the_order_of_delivery(SimPublish(simulated.wire()), _blocks(), read)
    simulated.run(rule)


def test_the_simulated_source_keeps_the_contract(simulated: Simulated) -> None:
    """The model of reading `prices` again."""
    for _ in MESSAGES:
        simulated.world.group.publish(0)
    wire = simulated.wire()
    source = SimSource(wire, Member(wire.process, simulated.world.faults))
    simulated.run(a_range_is_read_exactly(source, 0))


def _blocks() -> list[Outgoing]:
    return [r for made in steps(1, 2, 5, 9, 12) for r in made.records if r.topic == BLOCKS]


# The real ones.


@pytest.mark.integration
@pytest.mark.parametrize("rule", STORE_RULES, ids=lambda rule: rule.__name__)
async def test_postgres_keeps_the_contract(pool: Pool, rule: StoreRule) -> None:
    """`LiveStore` on a real Postgres."""
    await rule(LiveStore(pool, "worker", "f" * 32))


@pytest.mark.integration
@pytest.mark.parametrize("rule", CACHE_RULES, ids=lambda rule: rule.__name__)
async def test_valkey_keeps_the_contract(
    cache: Cache, addresses: Addresses, rule: CacheRule
) -> None:
    """`Cache` on a real Valkey."""

    async def wipe() -> None:
        await cache._client.flushdb()

    theirs = open_cache(addresses.redis.rsplit("/", 1)[0] + "/15", CacheSettings())
    try:
        await rule(Caches(cache, theirs, wipe))
    finally:
        await theirs.close()


@pytest.fixture
async def topic(addresses: Addresses) -> AsyncIterator[str]:
    """A fresh topic of one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses.kafka)
    await admin.start()
    name = f"test-{os.urandom(6).hex()}"
    await admin.create_topics([NewTopic(name, 1, 1)])
    yield name
    await admin.delete_topics([name])
    await admin.close()


@pytest.mark.integration
async def test_kafka_keeps_the_contract_of_topics(addresses: Addresses, topic: str) -> None:
    """`Publisher` on a real broker."""

    async def read() -> list[bytes]:
        bounds = await offset_bounds(addresses.kafka, topic)
        ranges = read_ranges(addresses.kafka, topic, bounds)
        return [m.value or b"" async for _, messages in ranges for m in messages]

    records = [replace(record, topic=topic) for record in _blocks()]
    async with Publisher(addresses.kafka) as publisher:
        await records_lie_in_the_order_of_delivery(publisher, records, read)


@pytest.mark.integration
async def test_kafka_keeps_the_contract_of_the_source(addresses: Addresses) -> None:
    """`FaustSource.reread` on a real broker, behind whatever is in `prices` already."""
    await ensure_topics(addresses.kafka, TopicSettings(partitions=3))
    base = (await offset_bounds(addresses.kafka, PRICES))[0][1]
    async with Publisher(addresses.kafka) as publisher:
        for message in MESSAGES:
            await publisher.deliver([Outgoing(PRICES, message.value or b"", partition=0)])
    await a_range_is_read_exactly(FaustSource(None, addresses.kafka, 1), base)
