"""A live run in which versions of gbdt are promoted, rolled back and killed, and what it left."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import lightgbm
import numpy as np

from pipeline.bus.publisher import Publisher
from pipeline.clock import monotonic
from pipeline.kernels.learners import CLIP
from pipeline.models import registry
from pipeline.servers import Addresses
from pipeline.settings import load_settings
from pipeline.sources.feed import publish_file
from schemas.blocks import VOL_REGIMES, Array
from tests.acceptance import evidence
from tests.acceptance.commands import Worker, naming, tickstream
from tests.acceptance.feeding import SYMBOLS, UntilTold
from tests.fixtures import boosted

CLOCK: Final = "ticks:2"
SETS: Final = (f"bars.clock={CLOCK}",)
CHAIN: Final = load_settings(SETS).chain
REGIMES: Final = ("low", "extreme")  # of the selection
RATE: Final = 2000.0  # ticks a second
PATIENCE: Final = 90.0  # seconds
_LOOK: Final = 0.002
_BITS: Final = 24  # of a place, for the index
_SPOKEN: Final = """
SELECT count(*) FROM activations a WHERE a.generation = $1 AND EXISTS (
       SELECT FROM predictions p WHERE p.partition = a.partition
          AND (p."offset", p."index") >= (a."offset", a."index"))"""


@dataclass(slots=True)
class Swapped:
    """What was done, and how long it took: seconds."""

    versions: list[str]
    rollback: float = 0.0  # from the mutation that asks for it to the first stored row
    by_command: float = 0.0  # from the start of `tickstream models rollback` to the same
    command: float = 0.0  # of it, until the command had ended
    ticks: int = 0
    killed_at: dict[int, int] = field(default_factory=dict)  # marks


async def register(addresses: Addresses) -> list[str]:
    """Three versions that have nothing to do with each other."""
    async with evidence.pool_of(addresses) as pool:
        bodies = [boosted.artifact(seed, chain=CHAIN) for seed in (1, 2, 3)]
        return [(await registry.register(pool, "gbdt", body)).version for body in bodies]


async def live(worker: Worker, addresses: Addresses, url: str, ticks: Path) -> Swapped:
    """Feed; promote, select by regime, promote and kill, set a shadow, go back, forth and back.

    Args: `url` is that of GraphQL, by which the selection and the last two are done.
    """
    told = Swapped(await register(addresses))
    pace = UntilTold(rate=RATE)
    async with Publisher(addresses.kafka) as publisher, asyncio.TaskGroup() as group:
        feeding = group.create_task(publish_file(ticks, publisher, pace=pace, frame=10))
        await evidence.until(lambda: _any_mark(addresses), PATIENCE)
        one, two, three = told.versions
        regimes = " ".join(REGIMES).upper()
        async with httpx.AsyncClient() as client:
            for generation, version in ((1, one), (2, two), (4, three)):
                if version == three:
                    asked = f'selectModel(version: "{one}", regimes: [{regimes}], '
                    await _mutation(client, url, asked)
                    await _spoken(addresses, generation - 1, len(SYMBOLS))
                if generation > 1:
                    await asyncio.sleep(1.0)
                await _command(addresses, "promote", version)
                if version == three:
                    await asyncio.to_thread(worker.kill)
                    told.killed_at = await evidence.marks(addresses)
                    worker.start()
                await _spoken(addresses, generation, len(SYMBOLS))
        await _command(addresses, "shadow", one)
        await _spoken(addresses, generation + 1, len(SYMBOLS))
        await asyncio.sleep(1.0)
        generation += 2
        began = monotonic()
        seen = group.create_task(_spoken(addresses, generation, 1))
        await _command(addresses, "rollback", "gbdt")
        told.command = monotonic() - began
        told.by_command = await seen - began
        await asyncio.sleep(1.0)
        async with httpx.AsyncClient() as client:
            await _mutation(client, url, f'promoteModel(version: "{told.versions[-1]}", ')
            await _spoken(addresses, generation + 1, len(SYMBOLS))
            await asyncio.sleep(1.0)
            seen = group.create_task(_spoken(addresses, generation + 2, 1))
            began = monotonic()
            await _mutation(client, url, 'rollbackModel(model: "gbdt", ')
            told.rollback = await seen - began
        await asyncio.sleep(1.0)
        pace.hurry.append(True)
        told.ticks = await feeding
        await evidence.until(lambda: evidence.drained(addresses), 2 * PATIENCE)
    return told


async def _any_mark(addresses: Addresses) -> bool:
    return bool(await evidence.marks(addresses))


async def _command(addresses: Addresses, *arguments: str) -> None:
    done = await asyncio.to_thread(
        tickstream, "models", *arguments, "--bar", CLOCK, values=naming(addresses)
    )
    assert done.returncode == 0, done.stderr


async def _mutation(client: httpx.AsyncClient, url: str, asked: str) -> None:
    query = f'mutation {{ {asked}reason: "a test") {{ changed }} }}'
    answer = (await client.post(url, json={"query": query})).json()
    assert "errors" not in answer, answer


async def _spoken(addresses: Addresses, generation: int, partitions: int) -> float:
    """Wait until so many partitions have stored a row by a generation; when that was."""
    async with evidence.connection_to(addresses) as connection:

        async def holds() -> bool:
            return int(await connection.fetchval(_SPOKEN, generation)) >= partitions

        await evidence.until(holds, PATIENCE, _LOOK)
        return monotonic()


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds that the worker says swaps took."""

    read: Sequence[float]  # an artifact, beside the stream
    held_up: Sequence[float]  # the event loop at most, meanwhile
    steps: Sequence[float]  # whole steps that began with a swap
    busy: Sequence[float]  # of these what the processor spent on them


def pauses(log: str) -> Pauses:
    """By the log of the worker."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log)

    def found(event: str, name: str) -> list[float]:
        lines = [line for line in plain.splitlines() if event in line]
        values = [re.search(rf"\b{name}=([0-9.e-]+)", line) for line in lines]
        return [float(value[1]) for value in values if value is not None]

    return Pauses(
        found("model_offered", "seconds"),
        found("model_offered", "held_up"),
        found("model_activated", "seconds"),
        found("model_activated", "processor"),
    )


@dataclass(frozen=True, slots=True)
class Said:
    """Of each stored row what is stored, what LightGBM says, and by which activation: (n,).

    The activation is its number in the partition, -1 before the first.
    """

    p: Array  # p_gbdt
    expected: Array
    shadow_p: Array
    shadow_expected: Array
    which: Array
    regime: Array  # codes, -1 where the active version or nobody spoke


async def said(addresses: Addresses) -> Said:
    """Hold the stored rows against the versions that are stored for them."""
    async with evidence.connection_to(addresses) as connection:
        versions = await connection.fetch(
            "SELECT version, features, convert_from(body, 'UTF8') AS body"
            " FROM model_versions JOIN artifacts ON hash = artifact"
        )
        activations = await connection.fetch(
            'SELECT "partition", "offset", "index", version, shadow, selected FROM activations'
            ' ORDER BY "partition", "offset", "index"'
        )
        (features,) = {tuple(row["features"]) for row in versions}
        columns = ", ".join(f'{"b" if name == "close" else "f"}."{name}"' for name in features)
        rows = await connection.fetch(
            'SELECT p."partition", p."offset", p."index", p.p_gbdt, p.shadow_p, b.stale,'  # noqa: S608 -- names of columns
            f" coalesce(array_position($1, p.gbdt_regime), 0) - 1, {columns}"
            ' FROM predictions p JOIN features f USING ("partition", "offset", "index")'
            ' JOIN bars b USING ("partition", "offset", "index")',
            list(VOL_REGIMES),
        )
    table = np.array([tuple(row) for row in rows], np.float64)
    models = {
        row["version"]: lightgbm.Booster(model_str=json.loads(row["body"])["trees"])
        for row in versions
    }
    return _by_version(table, activations, models)


def _by_version(table: Array, activations: Sequence[Any], models: Mapping[str, Any]) -> Said:
    expected, which = np.full((2, len(table)), np.nan), np.full(len(table), -1)
    places = (table[:, 1].astype(np.int64) << _BITS) + table[:, 2].astype(np.int64)
    for partition in np.unique(table[:, 0]):
        mine = np.flatnonzero(table[:, 0] == partition)
        told = [one for one in activations if one["partition"] == partition]
        starts = np.array([(one["offset"] << _BITS) + one["index"] for one in told], np.int64)
        which[mine] = np.searchsorted(starts, places[mine], "right") - 1
        for number, one in enumerate(told):
            selected = json.loads(one["selected"])
            for code in np.unique(table[mine, 6]).astype(np.int64).tolist():
                now = (which[mine] == number) & (table[mine, 5] == 0) & (table[mine, 6] == code)
                if not now.any():
                    continue
                spoke = one["version"] if code < 0 else selected[VOL_REGIMES[code]]
                for name, out in zip((spoke, one["shadow"]), expected, strict=True):
                    if name is not None:
                        p = models[name].predict(table[mine[now], 7:], num_threads=1)
                        out[mine[now]] = np.clip(p, CLIP, 1.0 - CLIP)
    return Said(table[:, 3], expected[0], table[:, 4], expected[1], which, table[:, 6])
