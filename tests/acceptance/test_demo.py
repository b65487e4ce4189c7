"""The demo from its first line to the stores it leaves behind, and what parity says of them."""

import asyncio
import json
import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from pipeline.bus.blocks import count_rows
from pipeline.servers import Addresses
from schemas.blocks import COLUMNS, STAGES
from schemas.times import format_rfc3339
from tests.acceptance import evidence
from tests.acceptance.commands import Up, only_line, tickstream, up

TICKS, BARS, SIGNALS, FILLS, EQUITY = 120_000, 7_519, 2_754, 1_552, 1_823
ROWS = {
    "ticks": TICKS,
    **dict.fromkeys(("bars", "features", "regimes", "predictions"), BARS),
    "signals": SIGNALS,
    "fills": FILLS,
    "equity": EQUITY,
}
KEYS = {
    "ticks": "price:ES",
    "bars": "bar:ES",
    "features": "features:ES",
    "regimes": "regime:ES",
    "predictions": "prediction:ES:combined",
    "signals": "signal:ES",
    "fills": "fill:ES",
    "equity": "equity:ES",
}
FIELDS = {
    "ticks": "price",
    "bars": "bar",
    "features": "features",
    "regimes": "regime",
    "predictions": "prediction",
    "signals": "signal",
    "fills": "fill",
    "equity": "equity",
}
_LABELS = {c.name for columns in COLUMNS.values() for c in columns if c.kind == "label"}

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True, slots=True)
class Played:
    """A demo that ended, and what a second one on its directory said."""

    directory: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]
    replayed: subprocess.CompletedProcess[str]

    @property
    def facts(self) -> dict[str, Any]:
        """Its summary."""
        found: dict[str, Any] = json.loads(self.first.stdout)
        return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A demo at full speed, another one on its directory, and a parity that brings the servers."""
    directory = tmp_path_factory.mktemp("demo") / "data"
    arguments = ("demo", "--exit", "--json", "--data-dir", directory)
    first = tickstream(*arguments)
    second = tickstream(*arguments)
    replayed = tickstream("parity", "--json", "--data-dir", directory)
    return Played(directory, first, second, replayed)


@pytest.fixture(scope="module")
def alive(played: Played) -> Iterator[Up]:
    """`tickstream up` on the directory of the demo."""
    with up(played.directory, played.directory.parent / "up.log") as running:
        yield running


def test_the_demo_stores_everything(played: Played) -> None:
    """120,000 ticks become 7,519 bars, none is rejected, no worker falls over, soon enough."""
    assert played.first.returncode == 0, played.first.stderr
    facts = played.facts
    assert facts["published"] == TICKS
    assert facts["rejected"] == 0
    assert {stage: facts[stage] for stage in STAGES} == ROWS
    assert facts["worker restarts"] == 0
    assert facts["topics"] == "the same rows"
    assert 0 < facts["first signal after s"] < 60


def test_the_demo_names_its_addresses(played: Played) -> None:
    """Every address that it serves is printed, and no password."""
    for name in ("GraphQL", "kafka", "postgres", "redis", "data"):
        assert re.search(rf"^{name} +\S", played.first.stderr, re.MULTILINE), played.first.stderr


def test_a_second_demo_on_the_directory_is_refused(played: Played) -> None:
    """Its ticks would all be late: one line that names a way out, exit code 2."""
    line = only_line(played.second, 2)
    assert str(played.directory) in line
    assert "another directory" in line


def test_a_second_demo_meanwhile_is_refused(played: Played, alive: Up) -> None:
    """While another process uses the directory: one line that names it, exit code 1."""
    assert alive.process.pid
    line = only_line(tickstream("demo", "--exit", "--data-dir", played.directory), 1)
    assert f"in use by process {alive.process.pid}" in line


def test_parity_starts_the_servers_itself(played: Played) -> None:
    """With nothing running, every stored row of every stage is bit-equal to a replay."""
    assert played.replayed.returncode == 0, played.replayed.stderr
    found = json.loads(played.replayed.stdout)
    assert found["difference"] is None
    assert found["rows"] == ROWS


def test_topics_hold_the_same_rows(alive: Up) -> None:
    """Each table has each identity once, and each topic as many rows as its table."""

    async def look() -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
        on_topics = {s: await count_rows(alive.addresses.kafka, s) for s in STAGES[1:]}
        return await evidence.counts(alive.addresses), on_topics

    tables, topics = asyncio.run(look())
    assert tables == {stage: (n, n) for stage, n in ROWS.items()}
    assert topics == {stage: n for stage, n in ROWS.items() if stage != "ticks"}


def test_topics_carry_the_bits_of_the_tables(alive: Up) -> None:
    """Every row on a topic equals the stored row of its identity, doubles bit by bit."""

    async def look(stage: str) -> None:
        stored = await evidence.stored_rows(alive.addresses, stage)
        for row in await evidence.published_rows(alive.addresses, stage):
            same = stored[row["partition"], row["offset"], row["index"]]
            if stage == "signals":
                assert row == evidence.document_of(same)
            else:
                assert evidence.same_bits(row, same), f"{stage}: {row} is not {same}"

    for stage in STAGES[1:]:
        asyncio.run(look(stage))


async def _late_tick(addresses: Addresses) -> None:
    """A tick that will be rejected: it makes a worker take up the partition, and changes no row."""
    async with AIOKafkaProducer(bootstrap_servers=addresses.kafka) as producer:
        tick = b'{"symbol": "ES", "ts": 1378072800000000000, "price": 1640.0}'
        await producer.send_and_wait("prices", tick, key=b"ES")


async def _cached(addresses: Addresses, patience: float = 30.0) -> dict[str, evidence.Row]:
    async with evidence.redis_of(addresses) as client, asyncio.timeout(patience):
        while True:
            values = await client.mget(list(KEYS.values()))
            if all(value is not None for value in values):
                return {s: evidence.decoded(v) for s, v in zip(KEYS, values, strict=True)}
            await asyncio.sleep(0.1)


def test_redis_is_rebuilt_from_postgres(alive: Up) -> None:
    """The cache of the demo is gone; the first message of a partition brings its rows back."""

    async def look() -> None:
        await _late_tick(alive.addresses)
        cached = await _cached(alive.addresses)
        for stage, document in cached.items():
            row = await evidence.latest_stored(alive.addresses, stage, "ES")
            assert document == evidence.document_of(row), stage

    asyncio.run(look())


def _camel(name: str) -> str:
    """The field of GraphQL for a column."""
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _expected(row: evidence.Row) -> evidence.Row:
    """A stored row as GraphQL shows it."""
    shown: evidence.Row = {}
    for name, value in row.items():
        if name.endswith("ts") or name == "known_at":
            shown[_camel(name)] = None if value < 0 else format_rfc3339(value)
        elif name in {"offset", "id"}:
            shown[_camel(name)] = None if value < 0 else str(value)
        elif name in _LABELS:
            shown[_camel(name)] = None if value is None else value.upper()
        else:
            shown[_camel(name)] = value
    return shown


def test_graphql_agrees_with_postgres(alive: Up) -> None:
    """The latest row of each stage, every column, over HTTP; doubles with all their digits."""
    for stage in STAGES:
        row = _expected(asyncio.run(evidence.latest_stored(alive.addresses, stage, "ES")))
        query = f'{{ symbol(name: "ES") {{ {FIELDS[stage]} {{ {" ".join(row)} }} }} }}'
        answer = httpx.post(alive.api, json={"query": query}, timeout=30)
        assert answer.status_code == 200, answer.text
        found = json.loads(answer.text)
        assert "errors" not in found, found
        assert found["data"]["symbol"][FIELDS[stage]] == row, stage


async def _flip(addresses: Addresses, offset: int, index: int) -> float:
    """Change the lowest bit of one stored double; its value before."""
    async with evidence.connection_to(addresses) as connection:
        where = 'WHERE "offset" = $1 AND "index" = $2'
        before = await connection.fetchval(
            f"SELECT rsi_14 FROM features {where}",  # noqa: S608 -- our own words
            offset,
            index,
        )
        (bits,) = struct.unpack("<q", struct.pack("<d", before))
        (after,) = struct.unpack("<d", struct.pack("<q", bits ^ 1))
        done = await connection.execute(
            f"UPDATE features SET rsi_14 = $3 {where}",  # noqa: S608 -- our own words
            offset,
            index,
            after,
        )
        assert done == "UPDATE 1"
    return float(before)


def test_parity_names_a_flipped_bit(played: Played, alive: Up) -> None:
    """One bit of one double among 6 million: exit code 1, and stage, row and column are named."""

    async def some_row() -> evidence.Row:
        rows = await evidence.stored_rows(alive.addresses, "features")
        return rows[sorted(rows)[4321]]

    row = asyncio.run(some_row())
    before = asyncio.run(_flip(alive.addresses, row["offset"], row["index"]))
    try:
        line = only_line(tickstream("parity", "--data-dir", played.directory), 1)
    finally:
        again = asyncio.run(_flip(alive.addresses, row["offset"], row["index"]))
    where = f"partition {row['partition']} offset {row['offset']} index {row['index']} (ES)"
    assert f"features, row at {where}, column rsi_14" in line
    assert before.hex() in line
    assert again.hex() in line
    done = tickstream("parity", "--data-dir", played.directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bit-equal: ticks 120,000, bars 7,519, features 7,519")
