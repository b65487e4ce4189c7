"""The faults, each done to real processes; each returns the moment from which work may go on."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg

from pipeline.clock import monotonic, today
from pipeline.store.migrate import leaf
from schemas.blocks import STAGES
from tests.acceptance import evidence
from tests.acceptance.chaos import scripts
from tests.acceptance.chaos.scripts import Fault
from tests.acceptance.chaos.watching import Database, cached_keys
from tests.acceptance.chaos.world import SESSION, World

_PATIENCE: Final = 60.0
_FIRST, _SECOND = 0, 1
_LEAVES: Final = "SELECT to_regclass($1) IS NOT NULL"
_CUT: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'tickstream' AND datname = current_database()"
)
_WAITING: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tickstream'"
    " AND datname = current_database() AND wait_event_type = 'Lock'"
)
_DISK_FULL: Final = """
CREATE OR REPLACE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault plays."""

    world: World
    database: Database
    alone: bool  # no other fault at the same time: its recovery can be measured


async def play(scene: Scene, fault: Fault) -> None:
    """Wait, do it, wait until work goes on, and note how long that took."""
    await asyncio.sleep(fault.wait)
    begin = await FAULTS[fault.kind](scene, fault)
    if fault.kind == scripts.VALKEY:
        await evidence.until(lambda: _cached(scene.world), _PATIENCE, 0.02)
    else:
        await _moved(scene, begin)
    if scene.alone:
        scene.world.ground.recoveries.seconds[fault.kind].append(monotonic() - begin)


async def _moved(scene: Scene, begin: float) -> None:
    """Wait for a transaction that began after `begin` and moved a mark."""
    now = await scene.database.value("SELECT clock_timestamp()")
    since = now - timedelta(seconds=monotonic() - begin)

    async def moved() -> bool:
        found = await scene.database.value(
            "SELECT max(moved_at) FROM progress WHERE service = $1", scene.world.group
        )
        return found is not None and bool(found > since)

    await evidence.until(moved, _PATIENCE, 0.02)


async def _cached(world: World) -> bool:
    async with evidence.redis_of(world.addresses) as client:
        return bool(await client.exists(*cached_keys()))


async def _runs(world: World, number: int) -> None:
    async def runs() -> bool:
        return world.workers[number].pid is not None

    await evidence.until(runs, _PATIENCE, 0.01)


async def _kill(scene: Scene, _: Fault) -> float:
    await _runs(scene.world, _FIRST)
    scene.world.signal(_FIRST, signal.SIGKILL)
    return monotonic()


async def _kill_in_commit(scene: Scene, fault: Fault) -> float:
    """A table is locked, so that the worker dies in the middle of its transaction."""
    table = await _table(scene, fault, ("progress",))
    killed: list[float] = []
    # The lock goes with its server, should another fault take that away.
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        async with (
            evidence.connection_to(scene.world.addresses) as connection,
            evidence.connection_to(scene.world.addresses) as watch,
            connection.transaction(),
        ):
            await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")

            async def waits() -> bool:
                # Not over the locking connection: within a transaction the view never changes.
                return connection.is_closed() or bool(await watch.fetchval(_WAITING))

            await evidence.until(waits, _PATIENCE, 0.01)
            await asyncio.sleep(fault.hold / 4)
            killed.append(await _kill(scene, fault))
    return killed[0] if killed else await _kill(scene, fault)


async def _table(scene: Scene, fault: Fault, more: tuple[str, ...]) -> str:
    """A table that the worker writes to; those of today may have to be made first."""
    name = random.Random(fault.dice).choice((*STAGES, *more))  # noqa: S311 -- nothing secret
    if name not in STAGES:
        return name
    table = leaf(name, today())

    async def there() -> bool:
        return bool(await scene.database.value(_LEAVES, table))

    await evidence.until(there, _PATIENCE)
    return table


async def _pause(scene: Scene, fault: Fault) -> float:
    """Now and then for longer than the broker waits."""
    await _runs(scene.world, _FIRST)
    pid = scene.world.signal(_FIRST, signal.SIGSTOP)
    await asyncio.sleep(fault.hold + (SESSION if fault.dice % 4 == 0 else 0.0))
    _go_on(scene.world, _FIRST, pid)
    return monotonic()


def _go_on(world: World, number: int, pid: int) -> None:
    """Continue a paused worker, unless another fault has ended it."""
    if world.workers[number].pid == pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _second_joins(world: World) -> None:
    claims = world.claims(_SECOND)
    world.running.add(_SECOND)

    async def claimed() -> bool:
        return world.claims(_SECOND) > claims

    await evidence.until(claimed, _PATIENCE, 0.05)


async def _second_leaves(scene: Scene, fault: Fault) -> float:
    """By kill -9 or politely; its partitions are served again when its session is over."""
    world = scene.world
    world.running.discard(_SECOND)
    if fault.dice % 3 and world.workers[_SECOND].pid is not None:
        world.signal(_SECOND, signal.SIGKILL)
    begin = monotonic()
    await asyncio.to_thread(world.workers[_SECOND].stop)
    return begin


async def _join(scene: Scene, fault: Fault) -> float:
    await _second_joins(scene.world)
    await asyncio.sleep(fault.hold)
    return await _second_leaves(scene, fault)


async def _zombie(scene: Scene, fault: Fault) -> float:
    """The first worker is paused past its session, the second takes over, the first goes on."""
    world = scene.world
    await _second_joins(world)
    await _runs(world, _FIRST)
    claims = world.claims(_SECOND)
    pid = world.signal(_FIRST, signal.SIGSTOP)

    async def taken_over() -> bool:
        return world.claims(_SECOND) > claims

    try:
        await evidence.until(taken_over, _PATIENCE, 0.02)
        await asyncio.sleep(fault.hold / 4)
    finally:
        _go_on(world, _FIRST, pid)
    await asyncio.sleep(fault.hold)
    return await _second_leaves(scene, fault)


def _restart(name: str) -> "Callable[[Scene, Fault], Awaitable[float]]":
    async def restart(scene: Scene, fault: Fault) -> float:
        fleet = scene.world.ground.fleet
        await asyncio.to_thread(fleet.kill, name)
        await asyncio.sleep(fault.hold)
        begin = monotonic()
        await asyncio.to_thread(fleet.restart, name)
        return begin

    return restart


async def _cut(scene: Scene, fault: Fault) -> float:
    """Once, or several times in a row."""
    chance = random.Random(fault.dice)  # noqa: S311 -- nothing secret
    for _ in range(chance.choice((1, 1, 2, 4))):
        await scene.database.fetch(_CUT)
        begin = monotonic()
        await asyncio.sleep(chance.uniform(0.0, 0.2))
    return begin


async def _full(scene: Scene, fault: Fault) -> float:
    """COPY into one of the tables, or the move of the mark, fails as on a full disk."""
    table = await _table(scene, fault, ("progress", "snapshots"))
    await scene.database.fetch(_DISK_FULL)
    await scene.database.fetch(
        f"CREATE OR REPLACE TRIGGER disk_full BEFORE INSERT OR UPDATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION disk_full()"
    )
    await asyncio.sleep(fault.hold)
    await scene.database.fetch(f"DROP TRIGGER IF EXISTS disk_full ON {table}")
    return monotonic()


FAULTS: Final[Mapping[str, Callable[[Scene, Fault], Awaitable[float]]]] = {
    scripts.KILL: _kill,
    scripts.KILL_IN_COMMIT: _kill_in_commit,
    scripts.PAUSE: _pause,
    scripts.JOIN: _join,
    scripts.ZOMBIE: _zombie,
    scripts.KAFKA: _restart("kafka"),
    scripts.POSTGRES: _restart("postgres"),
    scripts.VALKEY: _restart("redis"),
    scripts.CUT: _cut,
    scripts.FULL: _full,
}
