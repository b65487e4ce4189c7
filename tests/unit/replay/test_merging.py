"""Several partitions in one order: what stepping tick by tick gives, however it is portioned."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.replay.merging import Merged, Portions, merged
from pipeline.stages.chain import Chain, ChainSettings
from schemas.arrivals import Arrivals, Reject
from schemas.blocks import COLUMNS, STAGES, Array, Rows
from schemas.ticks import Reason
from tests.fixtures.ticks import Bits, arrivals_of, frame, settings_of, values, walk

SETTINGS = settings_of(bars={"clock": "time:5s"})
N = 400


def arrived(partition: int, seed: int, symbols: Sequence[str]) -> Arrivals:
    """Ticks of a partition, three a message; some are late, one is far ahead, one is negative."""
    table = walk(N, symbols, seed)
    place = np.arange(N)
    table["ts"] = table["ts"] // 4_000_000_000 * 4_000_000_000  # many at the same time
    table["ts"] += np.where(place == 50, 20 * 10**9, 0)
    table["ts"] -= np.where((place >= 120) & (place < 126), 30 * 10**9, 0)
    table.loc[200, "price"] = -1.0
    came = arrivals_of(table.assign(offset=np.arange(N) // 3))
    columns = {**came.columns, "index": (np.arange(N) % 3).astype(np.int32)}
    return Arrivals(partition, columns, came.symbols)


CAME = {0: arrived(0, 1, ["A", "B"]), 3: arrived(3, 2, ["B", "C"]), 4: arrived(4, 3, ["D"])}
UNREAD = {n: [Reject(n * 7, -1, Reason.UNDECODABLE, "x"), Reject(90, -1, Reason.UNDECODABLE, "y")]
          for n in CAME}  # fmt: skip


async def portions(partition: int, edges: Sequence[int]) -> Portions:
    """The partition cut at these places; what could not be read stands in its place."""
    came, left = CAME[partition], list(UNREAD[partition])
    for low, high in itertools.pairwise([0, *edges, N]):
        stop = int(came["offset"][high]) if high < N else N
        now = [reject for reject in left if reject.offset <= stop]
        left = left[len(now) :]
        yield came.slice(low, high), now


async def run(cuts: dict[int, Sequence[int]], settings: ChainSettings = SETTINGS) -> list[Merged]:
    """All steps of a merge."""
    return [step async for step in merged({n: portions(n, c) for n, c in cuts.items()}, settings)]


def bits(steps: Sequence[Merged]) -> Bits:
    """All rows as bytes by stage and column, symbols as words."""
    found: Bits = {}
    for stage in STAGES:
        table = pd.concat([frame(step.rows[stage]) for step in steps if stage in step.rows])
        found[stage] = {str(name): _bytes(table[name].to_numpy()) for name in table}
    return found


def _bytes(values: Any) -> bytes:
    array: Array = values
    return array.astype("U32").tobytes() if array.dtype == object else array.tobytes()


def by_tick() -> Bits:
    """The expected order: each partition tick by tick, rows sorted by event time and identity."""
    parts: dict[str, list[tuple[Rows, int]]] = {stage: [] for stage in STAGES}
    for partition, came in CAME.items():
        chain = Chain(SETTINGS, partition)
        last = -(2**63)
        for i in range(N):
            rows = chain.step(came.slice(i, i + 1)).rows
            if len(rows["ticks"]):
                last = max(last, int(rows["ticks"]["ts"][0]))
            for stage in STAGES:
                if len(rows[stage]):
                    parts[stage].append((rows[stage], last))
    found: Bits = {}
    for stage, came_by in parts.items():
        table = pd.DataFrame(
            {
                column.name: np.concatenate([values(rows, column.name) for rows, _ in came_by])
                for column in COLUMNS[stage]
            }
        )
        table["key"] = np.repeat([key for _, key in came_by], [len(rows) for rows, _ in came_by])
        table = table.sort_values(["key", "partition", "offset", "index"], kind="stable")
        found[stage] = {str(n): _bytes(table[n].to_numpy()) for n in table if n != "key"}
    return found


async def test_rows_come_by_event_time_and_identity() -> None:
    """Every stage in the order of (event time, partition, offset, index), bit for bit."""
    steps = await run({n: range(40, N, 40) for n in CAME})
    assert bits(steps) == by_tick()
    assert len(steps) > 10
    assert steps[-1].ticks == 3 * N


@pytest.mark.parametrize("seed", range(4))
async def test_portions_leave_no_trace(seed: int) -> None:
    """Any portions give the rows and rejects of whole partitions, in the same order."""
    rng = np.random.default_rng(seed)
    whole = await run(dict.fromkeys(CAME, ()))
    cuts: dict[int, Sequence[int]] = {
        n: np.unique(rng.integers(1, N, int(rng.integers(0, 60)))).tolist() for n in CAME
    }
    cut = await run(cuts)
    assert bits(cut) == bits(whole)
    told = [[reject for step in steps for reject in step.rejects] for steps in (cut, whole)]
    assert told[0] == told[1]
    assert len(told[0]) == sum(map(len, UNREAD.values())) + 3 + sum(
        1 for _, reject in told[0] if reject.reason is Reason.LATE
    )


async def test_one_partition_is_the_chain_itself() -> None:
    """A single partition keeps the order in which it came."""
    steps = await run({3: [100]})
    rows = Chain(SETTINGS, 3).step(CAME[3]).rows
    for stage in STAGES:
        table = pd.concat([frame(step.rows[stage]) for step in steps if stage in step.rows])
        assert table["offset"].tolist() == rows[stage]["offset"].tolist()


async def test_nothing_is_an_answer_too() -> None:
    """No partitions, and partitions without a message, end at once."""

    async def none() -> Portions:
        return
        yield CAME[0], ()

    assert [len(step.rows) for step in await run({})] == [0]
    steps = [step async for step in merged({0: none(), 1: none()}, SETTINGS)]
    assert sum(step.ticks for step in steps) == 0


async def test_a_partition_that_is_behind_is_waited_for() -> None:
    """No more than one portion of each is held: the one ahead is not read on."""
    read: list[int] = []

    async def watched(partition: int, shift: int) -> Portions:
        came = CAME[partition]
        columns = {**came.columns, "ts": came["ts"] + shift}
        for start in range(0, N, 50):
            read.append(partition)
            yield Arrivals(partition, columns, came.symbols).slice(start, start + 50), ()

    day = 86_400 * 10**9
    sources = {0: watched(0, day), 4: watched(4, 0)}
    async for _ in merged(sources, SETTINGS):
        pass
    assert read == [0, *[4] * 8, *[0] * 7]
