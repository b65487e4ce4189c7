"""One schedule from one seed: workers, messages, faults, a supervisor, and peace at the end."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final

from agents.host import Host
from pipeline.cache.latest import key_of
from pipeline.errors import FencedError, UnavailableError
from pipeline.settings import WorkerSettings
from schemas.arrivals import Message
from tests.simulation.faults import draw
from tests.simulation.group import Member
from tests.simulation.invariants import InvariantError, demand
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.ports import SimCache, SimModels, SimPublish, SimSource, SimStore, Wire
from tests.simulation.toy import ToyPartition
from tests.simulation.world import Postgres, World, is_cached

_SESSION: Final = 1.5  # virtual seconds of silence until the group drops a member
_RESTART: Final = (0.05, 2.0)
_HEARS: Final = (0.0, 0.05, 1.0)  # seconds until a worker hears of a promotion, at most
# Messages of a partition until it speaks by the newest version, at most: one after each rebalance
# is too early for that, and whoever died in the war joins again in peace.
_SWAPS: Final = 5
_PEACE: Final = (8.0, 60.0)  # virtual seconds in which all must be done once nothing fails
_PORTION: Final = 1024
_LAST: Final = len(_PEACE) + _SWAPS  # messages of a partition that come in peace
_LOOK: Final = 0.3
_SERVERS: Final = ("kafka", "postgres", "redis")
_ABSENCES: Final = (0.1, 1.0, 4.0)  # seconds


@dataclass(frozen=True, slots=True)
class Plant:
    """Where a test may plant a bug."""

    postgres: type[Postgres] = Postgres
    source: type[SimSource] = SimSource
    store: type[SimStore] = SimStore


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a schedule was; it held, or it would have raised."""

    messages: int
    workers: int
    turns: int
    seconds: float
    faults: Sequence[str]


@lru_cache(maxsize=16)
def _settings(instance: str) -> WorkerSettings:
    return WorkerSettings(
        group="simulated",
        instance=instance,
        portion_bytes=_PORTION,
        session_timeout=_SESSION,
        snapshot_seconds=0.4,
        give_up_seconds=2.0,
    )


class Worker:
    """A worker and its supervisor: it is started again whatever it dies of."""

    def __init__(self, name: str, world: World, plant: Plant) -> None:
        self.name = name
        self.processes: list[Process] = []
        self._world = world
        self._plant = plant
        self._member: Member | None = None
        self._host: Host | None = None
        self.models: SimModels | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def process(self) -> Process:
        """The current or the last life."""
        return self.processes[-1]

    def start(self) -> None:
        """Begin a new life."""
        world = self._world
        process = Process(f"{self.name}.{len(self.processes)}")
        self.processes.append(process)
        wire = Wire(world, process, lambda why: self._die(process, why))
        before, self._member = self._member, Member(process, world.faults)
        source = self._plant.source(wire, self._member)
        self.models = SimModels(wire)
        self.hear()
        self._host = Host(
            _settings(self.name),
            source,
            self._plant.store(wire),
            SimPublish(wire),
            SimCache(wire),
            ToyPartition,
            self.models,
        )
        world.note(process.name, "starts")
        self._running = world.loop.spawn(process, self._host.run())
        self._running.add_done_callback(self._ended, context=process.context)
        world.group.join(self._member, before)

    def hear(self) -> None:
        """Of the newest version, in a while."""
        world, models = self._world, self.models
        if models is not None and world.generation:
            delay = world.faults.chance.random() * world.faults.chance.choice(_HEARS)
            world.loop.serve(delay, models.hear, world.generation)

    def crash(self) -> None:
        """Die at this very moment."""
        if self.processes:
            self._die(self.process, "at any moment")

    def freeze(self, seconds: float) -> None:
        """Stand still; the group may give up on us meanwhile."""
        member, loop = self._member, self._world.loop
        if member is None or self.process.dead or self.process.frozen:
            return
        process = self.process
        self._world.note(process.name, "freezes", f"{seconds:.3f}")
        process.frozen = True
        loop.serve(seconds, self._thaw, process, member)
        if seconds > _SESSION:
            loop.serve(_SESSION, self._silent, member)

    def stop(self) -> None:
        """End by the order of the supervisor."""
        host, running = self._host, self._running
        if host is None or running is None or running.done():
            return
        process = self.process
        if process.dead or process.frozen:
            return
        self._world.note(process.name, "is told to stop")
        stopping = self._world.loop.spawn(process, _stop(host, running))
        stopping.add_done_callback(self._stopped, context=process.context)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self._world.over or task.cancelled():
            return
        error = task.exception()
        if not isinstance(error, FencedError | UnavailableError):
            raise InvariantError(f"{self.name} ended by {error!r}") from error
        self._die(self.process, f"by {type(error).__name__}")

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        if self._world.over:
            return
        error = task.exception()
        if error is not None and not isinstance(error, FencedError | UnavailableError):
            raise InvariantError(f"{self.name} stopped by {error!r}") from error
        self._die(self.process, "as told")

    def _die(self, process: Process, why: str) -> None:
        if process.dead or self._member is None:
            return
        world = self._world
        world.note(process.name, "dies", why)
        process.dead = True
        world.loop.serve(_SESSION, self._silent, self._member)
        world.loop.serve(world.faults.chance.uniform(*_RESTART), self.start)

    def _silent(self, member: Member) -> None:
        if member.process.dead or member.process.frozen:
            self._world.group.leave(member)

    def _thaw(self, process: Process, member: Member) -> None:
        if process.dead:
            return
        self._world.note(process.name, "continues")
        self._world.loop.thaw(process)
        if not self._world.group.knows(member):
            # Until it notices, a zombie goes on with what it has fetched.
            self._world.loop.serve(self._world.faults.chance.random(), self._rejoin, member)

    def _rejoin(self, member: Member) -> None:
        if not member.process.dead and not self._world.group.knows(member):
            member.revoked()
            self._world.group.join(member, None)


async def _stop(host: Host, running: "asyncio.Task[None]") -> None:
    """What `agents.worker` does when it is told to stop."""
    running.cancel()
    await asyncio.wait([running])
    await host.close()


def run(seed: int, *, plant: Plant | None = None, trace: list[str] | None = None) -> Outcome:
    """Run one schedule; `trace` takes a line for every event.

    Raises:
        InvariantError: a promise was broken.
        StuckError: nothing would ever happen again.
    """
    chance = Random(seed)  # noqa: S311 -- the seed is the point
    faults = draw(chance)
    loop = SimulatedLoop(chance)
    plant = plant or Plant()
    world = World(loop, faults, _messages(chance), plant.postgres)
    world.trace = trace
    kinds = [*faults.rates, *faults.counts]
    world.note("seed", str(seed), *kinds)
    workers = [Worker(f"w{i}", world, plant) for i in range(chance.randint(1, 3))]
    world.listeners = [worker.hear for worker in workers]
    try:
        war = _plan(world, workers)
        loop.run_until(war)
        _make_peace(world)
        _settle(world)
        _swap_all(world)
    finally:
        world.over = True
        loop.dispose([process for worker in workers for process in worker.processes])
    messages = sum(world.group.visible)
    return Outcome(messages, len(workers), loop.turns, loop.time(), kinds)


def _messages(chance: Random) -> list[list[Message]]:
    """What is published to each partition in the end; the last ones of each in peace."""
    log: list[list[Message]] = [[] for _ in range(chance.randint(2, 3))]
    for _ in range(int(chance.triangular(20, 60, 20))):
        messages = chance.choice(log)
        messages.append(_message(chance, len(messages)))
    for messages in log:
        messages += [_message(chance, len(messages) + i) for i in range(_LAST)]
    return log


def _message(chance: Random, offset: int) -> Message:
    value = None if chance.random() < 1 / 50 else chance.randbytes(4) * chance.choice((1, 10, 150))
    return Message(offset, 0, value)


def _plan(world: World, workers: Sequence[Worker]) -> float:
    """Put everything that will happen on the calendar; returns when peace comes."""
    loop, chance, counts = world.loop, world.faults.chance, world.faults.counts
    war = chance.uniform(0.5, 6.0)
    for worker in workers:
        loop.serve(chance.choice((0.0, 0.0, chance.random() * war)), worker.start)
    burst = chance.choice((1, 4, 16))
    left = [p for p, messages in enumerate(world.group.log) for _ in messages[:-_LAST]]
    chance.shuffle(left)
    for start in range(0, len(left), burst):
        at = chance.random() * war
        for partition in left[start : start + burst]:
            loop.serve(at, world.group.publish, partition)
    for kind, happens in _EVENTS.items():
        for _ in range(counts.get(kind, 0)):
            loop.serve(chance.random() * war, happens, world, chance.choice(workers), war)
    return war


def _freeze(world: World, worker: Worker, war: float) -> None:
    chance = world.faults.chance
    seconds = chance.choice((0.1, 0.5, 4.0)) * chance.uniform(0.5, 1.5)
    worker.freeze(min(seconds, war - world.loop.time()))


def _wipe(world: World, _: Worker, __: float) -> None:
    world.note("redis", "comes back empty")
    world.redis.wipe()


def _leave(world: World, _: Worker, __: float) -> None:
    server, seconds = world.faults.chance.choice(_SERVERS), world.faults.chance.choice(_ABSENCES)
    world.note(server, "is away", f"{seconds:.1f}")
    world.away[server] = world.loop.time() + seconds


def _promote(world: World, _: Worker, __: float) -> None:
    world.generation += 1
    world.note("registry", "promotes", world.generation)
    for hear in world.listeners:
        hear()


_EVENTS: Final[Mapping[str, Callable[[World, Worker, float], None]]] = {
    "crash": lambda _, worker, __: worker.crash(),
    "stop": lambda _, worker, __: worker.stop(),
    "freeze": _freeze,
    "rebalance": lambda world, _, __: world.group.rebalance(),
    "wipe": _wipe,
    "away": _leave,
    "promote": _promote,
}


def _make_peace(world: World) -> None:
    world.note("peace", "begins")
    world.faults.end()
    world.away.clear()


def _settle(world: World) -> None:
    """All must end well now.

    The next message of a partition mends what waits for one: a worker claims the partition and so
    refreshes the cache after a death between commit and cache; a lost acknowledgement is followed
    by a greater one. The last turmoil may need such a message once more.
    """
    loop, left = world.loop, []
    for seconds in _PEACE:
        for partition in range(len(world.group.log)):
            world.group.publish(partition)
        deadline = loop.time() + seconds
        while (left := _unfinished(world)) and loop.time() < deadline:
            loop.run_until(loop.time() + _LOOK)
        if not left:
            break
    demand(not left, "stuck", *left)


def _swap_all(world: World) -> None:
    """In peace every partition comes to speak by the newest version, a few messages on."""
    for left in range(_SWAPS, -1, -1):
        spoken = [progress.planned[-1:] for progress in world.postgres.partitions]
        late = [
            number
            for number, last in enumerate(spoken)
            if max((one.generation for one in last), default=0) < world.generation
        ]
        if not late:
            return
        demand(left, "not swapped", world.generation, spoken)
        for number in late:
            world.group.publish(number)
        world.loop.run_until(world.loop.time() + _PEACE[0])
        unfinished = _unfinished(world)
        demand(not unfinished, "stuck", *unfinished)


def _unfinished(world: World) -> list[object]:
    """What is not stored, not acknowledged, or not shown by the cache."""
    ends = world.group.visible
    marks = [progress.mark + 1 for progress in world.postgres.partitions]
    left: list[object] = []
    if marks != ends:
        left.append(("stored", marks, ends))
    if world.group.committed != ends:
        left.append(("acknowledged", world.group.committed, ends))
    for symbol, (partition, row) in world.postgres.newest.items():
        value = world.redis.values.get(key_of("ticks", symbol))
        if value is None or not is_cached(value, partition, row):
            left.append(("cached", symbol, row[:2], value))
    return left
