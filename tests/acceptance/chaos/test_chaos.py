"""Seeded faults of real processes under a live stream: nothing lost, twice, different or stale."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.acceptance.chaos.play import run
from tests.acceptance.chaos.scripts import ALL, RUNS, script
from tests.acceptance.chaos.world import Ground, World, world


@dataclass(slots=True)
class Stage:
    """The world that runs share; after a failed one there is a new world."""

    ground: Ground
    stack: ExitStack = field(default_factory=ExitStack)
    now: World | None = None

    def world(self) -> World:
        """A world in which nothing has gone wrong yet."""
        if self.now is None or self.now.spoilt:
            self.stack.close()
            self.now = self.stack.enter_context(world(self.ground))
        return self.now


@pytest.fixture(scope="module")
def stage(ground: Ground) -> Iterator[Stage]:
    """Where the runs play."""
    made = Stage(ground)
    with made.stack:
        yield made


def _play(stage: Stage, seed: int) -> None:
    played, here = script(seed), stage.world()
    here.spoilt = True  # until it is known better
    verdict = asyncio.run(run(here, played))
    assert not verdict.faults(), f"{played}\n{verdict.faults()}\n{here.log_tail()}"
    here.spoilt = False


def test_the_first_seeds_bring_every_fault() -> None:
    """Each kind, faults that overlap and faults that follow each other, with and without poison."""
    scripts = [script(seed) for seed in range(1, RUNS + 1)]
    assert {fault.kind for one in scripts for fault in one.faults} == {*ALL}
    assert {one.together for one in scripts if len(one.faults) > 1} == {True, False}
    assert {one.poison > 0.0 for one in scripts} == {True, False}


@pytest.mark.timeout(300)
def test_chaos(stage: Stage, chaos_seed: int) -> None:
    """A seeded script of faults leaves every row once, bit for bit, and no stale latest value."""
    _play(stage, chaos_seed)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_chaos_for_long(stage: Stage, chaos_seed: int) -> None:
    """The same, three hundred times."""
    _play(stage, chaos_seed)
