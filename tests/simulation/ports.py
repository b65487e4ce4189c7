"""The ports of one simulated worker: every call is a message with a fate of its own."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from agents.ports import Arrived
from pipeline.bus.publisher import Outgoing
from pipeline.cache.latest import Entry
from pipeline.errors import FencedError, UnavailableError
from pipeline.models.following import Offer
from pipeline.stages.boosted import Activated
from pipeline.store.live import Claim, PartitionBatch
from schemas.models import Activation
from tests.simulation.faults import Fate
from tests.simulation.group import Member
from tests.simulation.loop import Process
from tests.simulation.toy import offer_of
from tests.simulation.world import World

T = TypeVar("T")
_COMMITS: Final = 0.05  # longest virtual seconds from an acknowledgement to the group's commit
_TAKEN: Final = 10  # messages of one batch, at most


@dataclass(slots=True)
class Wire:
    """What connects one life of a worker with the servers."""

    world: World
    process: Process
    die: Callable[[str], None]

    async def call(
        self, server: str, what: str, effect: Callable[[], T], part: Callable[[], object] = bool
    ) -> T:
        """Ask a server for an effect; `part` is what may be left of it when the call fails.

        The server acts in its own time: also when the worker is frozen or dead by then.

        Raises:
            UnavailableError: the server is away, or the call failed before or after the effect.
        """
        if self.world.over:
            raise asyncio.CancelledError
        reply: asyncio.Future[T] = self.world.loop.create_future()
        fate = self.world.faults.fate()
        delay = self.world.faults.delay()

        def arrive() -> None:
            self._arrive(server, what, fate, effect, part, reply)

        self.world.loop.serve(delay, arrive)
        return await reply

    def _arrive(
        self,
        server: str,
        what: str,
        fate: Fate,
        effect: Callable[[], T],
        part: Callable[[], object],
        reply: "asyncio.Future[T]",
    ) -> None:
        world = self.world
        if self.process.dead and not world.faults.hits("arrives"):
            return
        if world.faults.over:  # what was sent before arrives well too
            fate = Fate.FINE
        world.note(self.process.name, what, "" if fate is Fate.FINE else fate.name)
        if fate is Fate.DIE_BEFORE:
            self.die(f"before {what}")
            return
        if world.is_away(server):
            _fail(reply, UnavailableError(f"{server} is away"))
            return
        if fate is Fate.BEFORE:
            part()
            _fail(reply, UnavailableError(f"{what} failed"))
            return
        try:
            result = effect()
        except FencedError as error:
            world.note(self.process.name, "is fenced")
            _fail(reply, error)
            return
        if fate is Fate.DIE_AFTER:
            self.die(f"after {what}")
        elif fate is Fate.AFTER:
            _fail(reply, UnavailableError(f"the answer to {what} was lost"))
        elif not reply.done():
            reply.set_result(result)


def _fail(reply: "asyncio.Future[Any]", error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)


class SimSource:
    """`agents.ports.Source` over the simulated group."""

    def __init__(self, wire: Wire, member: Member) -> None:
        self._wire = wire
        self._world = wire.world
        self._member = member
        self._given: deque[Arrived] = deque()
        self._acked: dict[int, int] = {}
        self._waiting: asyncio.Future[None] | None = None
        member.wake = self._wake

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def batches(self) -> AsyncIterator[Sequence[Arrived]]:
        """Messages with arbitrary bounds, for as long as the worker lives."""
        chance, fetched = self._world.faults.chance, self._member.fetched
        while True:
            if not fetched or chance.random() < 1 / 2:
                self._world.group.fetch(self._member)
            if not fetched:
                self._waiting = self._world.loop.create_future()
                await self._waiting
                continue
            taken = min(len(fetched), chance.randint(1, _TAKEN))
            batch = [fetched.popleft() for _ in range(taken)]
            self._given.extend(batch)
            self._world.note(self._wire.process.name, "takes", *map(_place, batch))
            yield batch
            await asyncio.sleep(0)

    async def ack(self, count: int) -> None:
        """Note it; the group hears of it a little later, once for many."""
        due = not self._acked
        for _ in range(count):
            one = self._given.popleft()
            self._acked[one.partition] = one.message.offset + 1
        faults = self._world.faults
        if due:
            self._world.loop.serve(faults.chance.random() * _COMMITS, self._commit)
        await asyncio.sleep(0)

    def _commit(self) -> None:
        acked = self._acked
        self._acked = {}
        faults = self._world.faults
        if self._wire.process.dead and not faults.hits("arrives"):
            return
        if faults.hits("lag"):
            return
        if self._world.group.commit(self._member, acked):
            self._world.note(self._wire.process.name, "acknowledged", acked)

    def dealt(self) -> set[int]:
        """Partitions taken away or given since the last call."""
        dealt = set(self._member.dealt)
        self._member.dealt.clear()
        return dealt

    async def end(self, partition: int) -> int:
        """How many messages there are."""
        return await self._wire.call(
            "kafka", f"end of {partition}", lambda: self._world.group.visible[partition]
        )

    async def reread(self, partition: int, low: int, high: int) -> AsyncIterator[Sequence[Arrived]]:
        """Messages again, in arbitrary pieces; it may fail after any of them."""
        chance = self._world.faults.chance
        while low < high:
            end = min(high, low + chance.randint(1, _TAKEN))

            def read(low: int = low, end: int = end) -> Sequence[Arrived]:
                return self._world.group.read(partition, low, end)

            found = await self._wire.call("kafka", f"reread {partition}: {low}..{end}", read)
            if found:
                yield found
            low = end


def _place(one: Arrived) -> str:
    return f"{one.partition}:{one.message.offset}"


class SimStore:
    """`agents.ports.Store` over the simulated Postgres."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._postgres = wire.world.postgres

    async def claim(self, partition: int) -> Claim:
        """Raise the epoch; the snapshot may have been damaged."""
        claim = await self._wire.call(
            "postgres", f"claim {partition}", lambda: self._postgres.claim(partition)
        )
        if claim.snapshot is not None and self._wire.world.faults.hits("damaged"):
            return replace(claim, snapshot=claim.snapshot[:-1] + b"?")
        return claim

    async def holds(self, partition: int, epoch: int) -> bool:
        """Whether an epoch is the newest."""
        return await self._wire.call(
            "postgres",
            f"holds {partition}@{epoch}",
            lambda: self._postgres.holds(partition, epoch),
        )

    async def plan(self, batches: Sequence[PartitionBatch]) -> None:
        """One transaction."""
        told = " ".join(f"{b.partition}:{b.activation}@{b.epoch}" for b in batches)
        await self._wire.call("postgres", f"plan {told}", lambda: self._postgres.plan(batches))

    async def commit(self, batches: Sequence[PartitionBatch]) -> None:
        """One transaction."""
        told = " ".join(f"{b.partition}:..{b.mark}@{b.epoch}" for b in batches)
        await self._wire.call("postgres", f"commit {told}", lambda: self._postgres.commit(batches))

    async def save_snapshot(self, partition: int, epoch: int, offset: int, data: bytes) -> None:
        """Keep a state."""
        await self._wire.call(
            "postgres",
            f"snapshot {partition}:{offset}@{epoch}",
            lambda: self._postgres.save_snapshot(partition, epoch, offset, data),
        )

    async def latest(self, stage: str, symbols: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """The newest rows."""
        wanted = list(symbols)
        return await self._wire.call(
            "postgres", f"latest {stage}", lambda: self._postgres.latest(stage, wanted)
        )


class SimModels:
    """`agents.ports.Models`: a worker hears of a promotion sooner or later."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.newest: Offer | None = None

    def hear(self, generation: int) -> None:
        """Of a promotion; older news change nothing."""
        if generation > (self.newest.generation if self.newest else 0):
            self._wire.world.note(self._wire.process.name, "hears of", generation)
            self.newest = offer_of(generation)

    async def activated(self, planned: Sequence[Activation]) -> Sequence[Activated]:
        """What was planned, with its versions."""
        if not planned:
            return []
        return await self._wire.call(
            "postgres",
            "read models",
            lambda: [offer_of(one.generation).at(*one.place) for one in planned],
        )


class SimPublish:
    """`agents.ports.Publish` over the simulated output topics."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def deliver(self, records: Iterable[Outgoing]) -> None:
        """Append records; after a failure a beginning of them may be there."""
        sent = list(records)
        chance = self._wire.world.faults.chance

        def some() -> None:
            self._append(sent[: chance.randint(0, len(sent))])

        await self._wire.call("kafka", f"publish {len(sent)}", lambda: self._append(sent), some)

    def _append(self, records: Sequence[Outgoing]) -> None:
        world = self._wire.world
        for record in records:
            world.outputs.append(record)
            if world.faults.hits("duplicate"):
                world.outputs.append(record)


class SimCache:
    """`agents.ports.Latest` over the simulated Redis."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._redis = wire.world.redis

    async def put(self, found: Sequence[Entry]) -> int:
        """Write what is newer; after a failure some of it may be there."""
        if not found:
            return 0
        chance = self._wire.world.faults.chance

        def some() -> None:
            self._redis.put(found[: chance.randint(0, len(found))])

        return await self._wire.call(
            "redis", f"put {len(found)}", lambda: self._redis.put(found), some
        )

    async def is_new(self, name: str) -> bool:
        """Whether it was emptied."""
        life = self._wire.process.name.encode()
        return await self._wire.call("redis", "is it new", lambda: self._redis.is_new(name, life))
