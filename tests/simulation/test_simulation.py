"""The real loop in a world that fails in every way: no promise breaks, planted bugs are found."""

import asyncio
import gc
import re
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Final

import pytest

from agents.ports import Arrived
from pipeline.store.live import Claim, PartitionBatch
from tests.simulation.faults import KINDS
from tests.simulation.invariants import InvariantError
from tests.simulation.ports import SimSource, SimStore
from tests.simulation.quiet import quiet
from tests.simulation.schedule import Plant, run
from tests.simulation.world import Postgres

_FIRST: Final = 0
_SOAKED: Final = 1_000_000  # far from the seeds of every day
_LONG: Final = 100_000
_FOUND_WITHIN: Final = 2000
_TOGETHER: Final = 200  # schedules between two collections of garbage


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """The loop's own warnings would be many thousands."""
    with quiet():
        yield


def _seeds(config: pytest.Config, first: int, n: int) -> Sequence[int]:
    seed = config.getoption("--simulation-seed")
    if seed is not None:
        return [seed]
    return range(first, first + (config.getoption("--simulation-schedules") or n))


def _hold(seeds: Sequence[int]) -> set[str]:
    """Run schedules; returns the faults that they met."""
    met: set[str] = set()
    gc.disable()
    gc.freeze()  # what there is already is not looked through each time
    try:
        for i, seed in enumerate(seeds):
            try:
                met.update(run(seed).faults)
            except AssertionError as error:
                raise AssertionError(
                    f"seed {seed}: {error}; replay it with `python -m tests.simulation {seed}`"
                ) from error
            if i % _TOGETHER == 0:
                gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()
    return met


@pytest.mark.timeout(600)
def test_every_promise_holds_at_every_step(request: pytest.FixtureRequest) -> None:
    """Nothing lost, nothing twice, nothing acknowledged too early, whatever fails and when."""
    seeds = _seeds(request.config, _FIRST, 2000)
    met = _hold(seeds)
    assert len(seeds) < _TOGETHER or met == set(KINDS)


@pytest.mark.soak
def test_every_promise_holds_for_long(request: pytest.FixtureRequest) -> None:
    """The same with seeds that nobody has seen."""
    _hold(_seeds(request.config, _SOAKED, _LONG))


def test_a_seed_replays_exactly() -> None:
    """Two runs of a seed are the same to the last event, so a failure can be looked at again."""
    for seed in range(20):
        first: list[str] = []
        again: list[str] = []
        assert run(seed, trace=first) == run(seed, trace=again)
        assert first == again
        assert len(first) > 20


class _EarlyAck(SimSource):
    """Planted: what is taken is acknowledged before anything of it is stored."""

    async def batches(self) -> AsyncIterator[Sequence[Arrived]]:
        """Acknowledge, then deliver."""
        async for batch in super().batches():
            await super().ack(len(batch))
            yield batch

    async def ack(self, count: int) -> None:
        """Too late."""


class _MarkApart(SimStore):
    """Planted: rows in one transaction, the mark in the next, a death between them possible."""

    async def commit(self, batches: Sequence[PartitionBatch]) -> None:
        """Two transactions."""
        postgres = self._postgres

        def insert() -> Sequence[PartitionBatch]:
            fresh = postgres._fresh(batches)
            for batch in fresh:
                postgres._insert(batch)
            return fresh

        def move() -> None:
            for batch in fresh:
                postgres._move(batch)
                postgres._check(batch.partition)

        fresh = await self._wire.call("postgres", "insert", insert)
        await self._wire.call("postgres", "move the mark", move)


class _Unfenced(Postgres):
    """Planted: whoever comes may write, however old its epoch."""

    def _fenced(self, batch: PartitionBatch) -> bool:
        del batch
        return False


class _SwapAnywhere(SimSource):
    """Planted: a new owner swaps versions where an older one may have published."""

    async def end(self, partition: int) -> int:
        """As if nobody had ever published anything."""
        await super().end(partition)
        return 0


class _PlansForgotten(SimStore):
    """Planted: of what an older owner has planned a new one learns only what is stored."""

    async def claim(self, partition: int) -> Claim:
        """Leave out what lies behind the mark."""
        claim = await super().claim(partition)
        known = [one for one in claim.activations if one.offset <= claim.mark]
        return replace(claim, activations=known)


class _PlannedInTheCommit(SimStore):
    """Planted: an activation is stored with its rows, which are published by then."""

    async def plan(self, batches: Sequence[PartitionBatch]) -> None:
        """Later."""
        del batches
        await asyncio.sleep(0)

    async def commit(self, batches: Sequence[PartitionBatch]) -> None:
        """One transaction."""

        def both() -> None:
            self._postgres.plan(batches)
            self._postgres.commit(batches)

        await self._wire.call("postgres", "plan and commit", both)


@pytest.mark.parametrize(
    ("plant", "promise"),
    [
        pytest.param(Plant(source=_EarlyAck), "acknowledged beyond the mark", id="early-ack"),
        pytest.param(Plant(store=_MarkApart), "other rows stored|other rejects", id="mark-apart"),
        pytest.param(
            Plant(postgres=_Unfenced), "other rows stored|other rejects|swapped", id="unfenced"
        ),
        pytest.param(
            Plant(source=_SwapAnywhere), "swapped behind|a repeat differs", id="swap-anywhere"
        ),
        pytest.param(
            Plant(store=_PlansForgotten),
            "swapped behind|a repeat differs|published wrongly",
            id="plans-forgotten",
        ),
        pytest.param(
            Plant(store=_PlannedInTheCommit), "published wrongly", id="planned-in-the-commit"
        ),
    ],
)
def test_a_planted_bug_is_found(plant: Plant, promise: str) -> None:
    """Each of the classical mistakes breaks its promise within 2,000 schedules."""
    for seed in range(_FOUND_WITHIN):
        broken = _broken(seed, plant)
        if broken:
            sys.stdout.write(f"found by seed {seed}: {broken}\n")
            assert re.match(promise, broken)
            return
    pytest.fail(f"not found within {_FOUND_WITHIN} schedules")


def _broken(seed: int, plant: Plant) -> str:
    """The promise that a schedule broke; empty if it held."""
    try:
        run(seed, plant=plant)
    except InvariantError as error:
        return str(error)
    return ""
