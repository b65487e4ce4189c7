"""A worker that is paused for longer than its session, while another one takes its place."""

import asyncio
import random
import signal
from contextlib import AsyncExitStack

import pytest

from agents.worker import GAVE_UP
from tests.acceptance import evidence
from tests.acceptance.chaos.checks import Verdict, check
from tests.acceptance.chaos.feed import Feed
from tests.acceptance.chaos.play import cancelled, watched
from tests.acceptance.chaos.watching import Database
from tests.acceptance.chaos.world import Ground, World, world

SEED = 5
SHARE = 2  # partitions of each of two workers
BOTH_STILL = 1.5  # seconds: shorter than a session, so that nobody is given anything

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("attempt", range(2))
def test_a_zombie_writes_nothing(ground: Ground, attempt: int) -> None:
    """It gives up with exit code 70 or joins again, and never moves what has a newer owner."""
    with world(ground) as here:
        verdict = asyncio.run(_play(here, SEED + attempt))
    assert not verdict.faults(), verdict.faults()


async def _play(here: World, seed: int) -> Verdict:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(here.addresses.postgres))
        feed = Feed(here.addresses.kafka, rate=800.0, ticks=3000)
        chance = random.Random(seed)  # noqa: S311 -- nothing secret
        feeding = asyncio.create_task(feed.run(here.ground.market.messages(chance, 0.0)))
        stack.push_async_callback(cancelled, [feeding])
        await asyncio.to_thread(here.workers[1].start)
        await _until_claimed(here, 1, SHARE)
        await asyncio.sleep(chance.random())
        here.signal(0, signal.SIGSTOP)
        await _until_claimed(here, 1, 2 * SHARE)
        await _continue(here, database)
        # From here on they are looked after, whichever way the zombie chose.
        here.running.add(1)
        stack.push_async_callback(cancelled, watched(here))
        feed.enough.set()
        await feeding
        return await check(here, database, feed.sent)


async def _until_claimed(here: World, number: int, count: int) -> None:
    async def claimed() -> bool:
        return here.claims(number) >= count

    await evidence.until(claimed, 60, 0.02)


async def _continue(here: World, database: Database) -> None:
    """Both owners meet, and the newer one holds still: nothing may move but by a newer claim."""
    service = here.workers[0]
    told = len(here.log_tail(0, 0))
    successor = here.signal(1, signal.SIGSTOP)
    before = await _progress(database, here.group)
    pid = here.signal(0, signal.SIGCONT)
    await asyncio.sleep(BOTH_STILL)
    after = await _progress(database, here.group)
    for partition, (epoch, mark) in before.items():
        assert after[partition] == (epoch, mark) or after[partition][0] > epoch, (before, after)
    assert here.signal(1, signal.SIGCONT) == successor
    log = here.log_tail(0, 0)[told:]
    if service.pid != pid:
        child = service._child
        assert child is not None
        assert child.code == GAVE_UP, log
        assert "FencedError" in log


async def _progress(database: Database, group: str) -> dict[int, tuple[int, int]]:
    rows = await database.fetch(
        "SELECT partition, epoch, mark FROM progress WHERE service = $1", group
    )
    return {row["partition"]: (row["epoch"], row["mark"]) for row in rows}
