"""Models swapped under load: no tick missed, each row by the version that is stored for it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.stack import prepare
from pipeline.servers import Addresses, start_servers
from pipeline.settings import load_settings
from schemas.blocks import STAGES, VOL_REGIMES
from tests.acceptance import evidence, swapping
from tests.acceptance.commands import Worker, naming, served, tickstream
from tests.acceptance.feeding import three_symbols
from tests.acceptance.parity.tables import apart
from tests.acceptance.swapping import CLOCK, SETS, Swapped

TICKS = 120_000
SELECTED = 2  # the activation from which on versions are selected
SHADOWED = range(1, 7)  # activations with a shadow

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Survived:
    """The stores after the run."""

    addresses: Addresses
    told: Swapped
    log: str


@pytest.fixture(scope="module")
def survived(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survived]:
    """2,000 ticks a second while versions are promoted, go back, and the worker is killed."""
    home = tmp_path_factory.mktemp("swap")
    ticks = three_symbols(sample, home / "ticks.csv")
    with start_servers(home / "data") as fleet:
        asyncio.run(prepare(fleet.addresses, load_settings(SETS)))
        with Worker(fleet.addresses, home / "worker.log", *SETS) as worker:
            with served(fleet.addresses, *SETS) as url:
                told = asyncio.run(swapping.live(worker, fleet.addresses, url, ticks))
            assert worker.stop() == 0
        yield Survived(fleet.addresses, told, worker.log.read_text())


def test_no_tick_is_missed(survived: Survived, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is stored once, each row has its own identity; how long swaps took is told."""
    assert survived.told.ticks == TICKS
    tables = asyncio.run(evidence.counts(survived.addresses))
    assert tables["ticks"] == (TICKS, TICKS)
    for stage in STAGES:
        rows, own = tables[stage]
        assert rows == own > 0, stage
    took = swapping.pauses(survived.log)
    assert len(took.steps) >= 4
    with capsys.disabled():
        print(  # noqa: T201 -- the figures are asked for
            f"\n{len(took.steps)} swaps of partitions at {swapping.RATE:,.0f} ticks/s:"
            f" the step with the swap {np.median(took.steps) * 1e3:.2f} ms in the middle,"
            f" {max(took.steps) * 1e3:.2f} ms at most, of which the processor was on it"
            f" {max(took.busy) * 1e3:.2f} ms at most; reading a version"
            f" {max(took.read) * 1e3:.0f} ms, which held up the event loop for"
            f" {max(took.held_up) * 1e3:.2f} ms at most; rollback: first row stored"
            f" {survived.told.rollback:.2f} s after the mutation was sent, and"
            f" {survived.told.by_command:.2f} s after `tickstream models rollback` was started,"
            f" which itself took {survived.told.command:.2f} s"
        )


def test_each_row_is_by_the_version_stored_for_it(survived: Survived) -> None:
    """p_gbdt and shadow_p are what LightGBM's own predict says of the stored features, bit for bit.

    So they are behind the kill. The shadow is the version before each promotion, or one of its own;
    versions are selected by regime from before the kill to the end.
    """
    said = asyncio.run(swapping.said(survived.addresses))
    for p, expected in ((said.p, said.expected), (said.shadow_p, said.shadow_expected)):
        np.testing.assert_array_equal(p, expected)
        assert p.tobytes() == expected.tobytes()
    assert set(range(-1, 8)) <= set(said.which.tolist())
    own = said.regime >= 0
    assert {VOL_REGIMES[int(code)] for code in said.regime[own]} == set(swapping.REGIMES)
    assert set(said.which[own].tolist()) == set(range(SELECTED, 8))
    assert 0.1 < own[said.which > SELECTED].mean() < 0.9
    assert (np.isfinite(said.p) == (said.which >= 0)).mean() > 0.99
    beside = np.isin(said.which, SHADOWED)
    assert (np.isfinite(said.shadow_p) == beside).mean() > 0.99


def test_every_row_equals_a_replay(survived: Survived, tmp_path: Path) -> None:
    """By `tickstream parity`, and by files that `tickstream replay` writes, which name versions."""
    values = naming(survived.addresses)
    done = tickstream("parity", "--bar", CLOCK, values=values, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bit-equal: ticks 120,000")
    out = tmp_path / "replay"
    command = ("replay", "kafka:prices", "--out", out, "--bar", CLOCK)
    done = tickstream(*command, "--set", "replay.block=997", values=values, timeout=300)
    assert done.returncode == 0, done.stderr
    for stage in STAGES:
        assert asyncio.run(apart(survived.addresses.postgres, stage, out)) == []
    spoken = json.loads((out / "manifest.json").read_text())["models"]["gbdt"]
    one, two, three = survived.told.versions
    for partition in {row["partition"] for row in spoken}:
        mine = [row["version"] for row in spoken if row["partition"] == partition]
        assert mine == [one, two, two, three, three, two, three, two]
        beside = [row["shadow"] for row in spoken if row["partition"] == partition]
        assert beside == [None, one, one, two, one, one, two, None]
        selected = [row["selected"] for row in spoken if row["partition"] == partition]
        assert selected == [{}] * SELECTED + [dict.fromkeys(swapping.REGIMES, one)] * 6


def test_topics_hold_the_same_rows(survived: Survived) -> None:
    """Whatever was published, before the kill or after it, carries the values that are stored."""

    async def look() -> None:
        stored = await evidence.stored_rows(survived.addresses, "predictions")
        published = await evidence.published_rows(survived.addresses, "predictions")
        for row in published:
            identity = (row["partition"], row["offset"], row["index"])
            assert evidence.same_bits(row, stored[identity]), row
        assert len(published) >= len(stored)

    asyncio.run(look())
