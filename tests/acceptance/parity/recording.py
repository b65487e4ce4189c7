"""A live run with kills: real servers, real workers with another batch size after each death."""

import asyncio
import random
import re
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from pipeline.clock import monotonic
from pipeline.servers import Addresses
from pipeline.settings import load_settings
from tests.acceptance import evidence, forked
from tests.acceptance.chaos.feed import Feed
from tests.acceptance.chaos.outputs import ends_of
from tests.acceptance.chaos.play import cancelled
from tests.acceptance.chaos.watching import Database
from tests.acceptance.chaos.world import fresh
from tests.acceptance.commands import Worker
from tests.acceptance.parity.tapes import MEAN_FRAME, Sample, messages

LARGEST: Final = 1024  # messages of a batch
_SESSION: Final = 3.0  # seconds until the partitions of a dead worker may go to another one
_START: Final = 180.0  # the first one on a machine compiles
_DRAIN: Final = 600.0
_NUMBERS: Final = count(1)
_WORTH: Final = 10  # messages in a state that is worth to be resumed
_EARLY: Final = 0.2  # share of kills of workers that are not back at work
_CLAIMED: Final = re.compile(r"partition_claimed .*mark=(\d+) .*replayed=(\d+)")


@dataclass(frozen=True, slots=True)
class Script:
    """A run: its partitions, workers, stream and kills; `sets` are the settings of its chain."""

    partitions: int
    workers: int
    ticks: int
    rate: float
    kills: int
    restarts: int  # polite ones: the state is kept where the life ends
    sets: tuple[str, ...]


@dataclass(slots=True)
class Recording:
    """What a run leaves behind."""

    script: Script
    addresses: Addresses
    sets: tuple[str, ...]
    ends: dict[int, int] = field(default_factory=dict)
    ticks: int = 0
    batches: list[int] = field(default_factory=list)
    kills: int = 0
    resumed: int = 0  # partitions taken over in the middle, by a stored state
    seconds: float = 0.0

    def __str__(self) -> str:
        messages = sum(self.ends.values())
        return (
            f"{self.script.partitions} partitions, {self.script.workers} workers: {self.ticks:,} "
            f"ticks in {messages:,} messages, {self.kills} kills, {self.script.restarts} restarts, "
            f"{self.resumed} states resumed, batches of at most "
            f"{sorted(self.batches)} messages, {self.seconds:.0f} s"
        )


def _batches(chance: random.Random, lives: int) -> list[int]:
    """Sizes from 1 to 1,024, both among them; the last lives drain what smaller batches left."""
    sizes = [1, LARGEST, *(round(2 ** chance.uniform(0, 10)) for _ in range(lives - 2))]
    first = sizes[:1] + sizes[2:]
    chance.shuffle(first)
    return [*first, LARGEST]


async def record(
    addresses: Addresses, script: Script, samples: list[Sample], home: Path, seed: int
) -> Recording:
    """Play a script to its end: everything published is stored."""
    chance = random.Random(f"{seed} {script.partitions}")  # noqa: S311 -- nothing secret
    name = f"parity{next(_NUMBERS)}"
    live = (f"topics.partitions={script.partitions}", f"worker.session_timeout={_SESSION}")
    own = await fresh(addresses, name, load_settings((*live, f"worker.group={name}")))
    recording = Recording(script, own, (*script.sets, f"worker.group={name}"))
    begin = monotonic()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(own.postgres))
        feed = Feed(own.kafka, script.rate, script.ticks)
        stream = messages(samples, script.partitions, chance)
        feeding = asyncio.create_task(feed.run(stream))
        stack.push_async_callback(cancelled, [feeding])
        crew = stack.enter_context(_Crew(recording, (*live, "worker.snapshot_seconds=0.5"), home))
        await _live_and_die(crew, database, chance)
        feed.enough.set()
        await feeding
        recording.ticks = sum(len(one.places) for one in feed.sent)
        recording.ends = {p: end for (_, p), end in (await ends_of(own.kafka, ("prices",))).items()}
        await _drained(database, name, recording.ends, crew)
        crew.finish()
    recording.seconds = monotonic() - begin
    return recording


class _Crew(ExitStack):
    """The workers; each life of one has the next size of batches."""

    def __init__(self, recording: Recording, sets: tuple[str, ...], home: Path) -> None:
        super().__init__()
        self.recording = recording
        script = recording.script
        chance = random.Random(recording.sets[-1])  # noqa: S311 -- nothing secret
        self._sizes = iter(_batches(chance, script.workers + script.kills + script.restarts))
        self._sets = (*recording.sets, *sets)
        self._home = home
        self._workers: dict[int, Worker] = {}
        for number in range(script.workers):
            self.start(number)

    def start(self, number: int) -> None:
        """A new life."""
        size = next(self._sizes)
        self.recording.batches.append(size)
        own = (f"worker.batch={size}", f"worker.instance=worker-{number}")
        log = self._home / f"{self.recording.sets[-1].partition('=')[2]}-{number}.log"
        self._workers[number] = self.enter_context(
            Worker(self.recording.addresses, log, *self._sets, *own, begin=forked.worker)
        )

    def kill(self, number: int) -> None:
        """End a life by kill -9."""
        self._workers[number].kill()
        self.recording.kills += 1

    def look(self) -> None:
        """Nobody may have ended by itself."""
        for worker in self._workers.values():
            assert worker.alive, worker.log.read_text()[-3000:]

    def stop(self, number: int) -> None:
        """End a life politely."""
        worker = self._workers[number]
        assert worker.stop() == 0, worker.log.read_text()[-3000:]

    def finish(self) -> None:
        """End all of them, and count what their logs tell."""
        for number, worker in self._workers.items():
            self.stop(number)
            claims = _CLAIMED.findall(worker.log.read_text())
            held = [int(mark) + 1 - int(again) for mark, again in claims]
            self.recording.resumed += sum(messages >= _WORTH for messages in held)


async def _live_and_die(crew: _Crew, database: Database, chance: random.Random) -> None:
    """Mostly in the middle of a life's work, some before: who is not yet back is killed again."""
    script = crew.recording.script
    group = crew.recording.sets[-1].partition("=")[2]
    work = script.ticks / MEAN_FRAME / (script.kills + script.restarts + 2)  # messages of a life
    deaths = [True] * script.kills + [False] * script.restarts
    chance.shuffle(deaths)
    for by_kill in deaths:
        before = sum((await database.marks(group)).values())
        if by_kill and chance.random() < _EARLY:
            await asyncio.sleep(chance.uniform(0.0, 2.0))
        else:
            goal = before + work * chance.uniform(0.5, 1.0)
            await evidence.until(lambda g=goal: _beyond(database, group, g, crew), _START, 0.02)  # type: ignore[misc]
        number = chance.randrange(script.workers)
        await asyncio.to_thread(crew.kill if by_kill else crew.stop, number)
        crew.start(number)


async def _beyond(database: Database, group: str, goal: float, crew: _Crew) -> bool:
    crew.look()
    return sum((await database.marks(group)).values()) > goal


async def _drained(database: Database, group: str, ends: dict[int, int], crew: _Crew) -> None:
    async def drained() -> bool:
        crew.look()
        marks = await database.marks(group)
        return all(marks.get(partition, -1) + 1 == end for partition, end in ends.items())

    await evidence.until(drained, _DRAIN)
