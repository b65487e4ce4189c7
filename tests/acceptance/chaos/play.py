"""One run: publish, do the faults, drain, check."""

import asyncio
import random
from contextlib import AsyncExitStack

from tests.acceptance.chaos.checks import Verdict, check
from tests.acceptance.chaos.faults import Scene, play
from tests.acceptance.chaos.feed import Feed
from tests.acceptance.chaos.scripts import Script
from tests.acceptance.chaos.watching import Database, watch_cache, watch_offsets
from tests.acceptance.chaos.world import World


async def run(world: World, script: Script) -> Verdict:
    """Play a script in a world and judge what came of it."""
    world.seen.ahead.clear()
    world.seen.backwards.clear()
    chance = random.Random(f"stream {script.seed}")  # noqa: S311 -- nothing secret
    feed = Feed(world.addresses.kafka, script.rate, script.ticks)
    messages = world.ground.market.messages(chance, script.poison)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(world.addresses.postgres))
        watchers = watched(world)
        stack.push_async_callback(cancelled, watchers)
        feeding = asyncio.create_task(feed.run(messages))
        stack.push_async_callback(cancelled, [feeding])
        await _faults(Scene(world, database, alone=not script.together), script)
        feed.enough.set()
        await feeding
        verdict = await check(world, database, feed.sent)
        for watcher in watchers:
            if watcher.done():  # it must not have ended by itself: say why
                await watcher
    return verdict


async def _faults(scene: Scene, script: Script) -> None:
    if script.together:
        async with asyncio.TaskGroup() as group:
            for fault in script.faults:
                group.create_task(play(scene, fault))
    else:
        for fault in script.faults:
            await play(scene, fault)


def watched(world: World) -> "list[asyncio.Task[None]]":
    """Tasks that keep the workers up and watch what must hold at every moment."""
    return [
        asyncio.create_task(world.supervise()),
        asyncio.create_task(watch_cache(world.addresses, world.seen)),
        asyncio.create_task(watch_offsets(world.addresses, world.group, world.seen)),
    ]


async def cancelled(tasks: "list[asyncio.Task[None]]") -> None:
    """End tasks."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
