"""Replays from a real broker, from what is kept of it, and from a real Postgres."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import Limits, Request
from pipeline.errors import MisuseError, TickstreamError, UnavailableError
from pipeline.replay.backtest import analyse
from pipeline.replay.engine import replay_stored, replay_topic
from pipeline.replay.kept import open_topic
from pipeline.replay.shared_ticks import TicksWriter
from pipeline.replay.sharing import share_stored, share_topic
from pipeline.replay.splits import Window
from pipeline.replay.trial import Trial, run
from pipeline.servers import Addresses
from pipeline.settings import Settings, load_settings
from pipeline.store.pool import Pool
from schemas.blocks import STAGES
from schemas.codec import tick_bytes
from schemas.times import DAY
from tests.fixtures.stored import stored
from tests.fixtures.ticks import walk

SETTINGS = load_settings(["bars.clock=time:10s"])
N = 1200
NOWHERE = "127.0.0.1:1"
Make = Callable[[int], Awaitable[str]]


def ticks(partition: int) -> list[dict[str, Any]]:
    """Ticks of a partition: a spike, a split, a rejected price, some late ones among them."""
    table = walk(N, [f"P{partition}", f"Q{partition}"], partition)
    table["price"] *= np.where(np.arange(N) == 400, 3.0, 1.0)
    table.loc[500, "price"] = -1.0
    table["ts"] -= np.where((np.arange(N) >= 600) & (np.arange(N) < 604), 60 * 10**9, 0)
    rows = [{k: v for k, v in row.items() if v == v and v is not None}  # noqa: PLR0124 -- NaN is null
            for row in table.to_dict("records")]  # fmt: skip
    rows[700] |= {"factor": 0.5, "volume_factor": 2.0}
    rows[900] |= {"factor": 0.9871}
    for number, row in enumerate(rows):
        row["id"] = number
    return [{str(name): value for name, value in row.items()} for row in rows]


@pytest.fixture
async def make(addresses: Addresses) -> AsyncIterator[Make]:
    """Makes topics with messages of 7 ticks, one undecodable; they are deleted afterwards."""
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses.kafka)
    await admin.start()
    made: list[str] = []

    async def topic(partitions: int) -> str:
        name = f"test-{os.urandom(6).hex()}"
        await admin.create_topics([NewTopic(name, partitions, 1)])
        made.append(name)
        await fill(addresses.kafka, name, range(partitions))
        return name

    yield topic
    await admin.delete_topics(made)
    await admin.close()


async def fill(kafka: str, topic: str, partitions: Sequence[int], other: int = 0) -> None:
    """Publish the ticks of partitions, the last of them empty where there are several."""
    async with Publisher(kafka) as publisher:
        for partition in partitions[: max(1, len(partitions) - 1)]:
            rows = ticks(partition + other)
            values = [tick_bytes(rows[at : at + 7]) for at in range(0, N, 7)]
            values[3:3] = [b"not a tick"]
            await publisher.deliver(Outgoing(topic, v, partition=partition) for v in values)


async def replayed(
    kafka: str | None,
    request: Request,
    out: Path,
    settings: Settings = SETTINGS,
    home: Path | None = None,
) -> dict[str, Any]:
    """A replay of what is asked for."""
    stretch, read = await open_topic(kafka, request, home)
    return await replay_topic(kafka or "", stretch.ranges, out, settings, read=read)


def orders(out: Path, stage: str) -> pd.DataFrame:
    """Times and identities of a stage."""
    names = ["ts", "partition", "offset", "index"]
    found: pd.DataFrame = pq.read_table(out / f"{stage}.parquet", columns=names).to_pandas()
    return found


async def test_partitions_are_merged(addresses: Addresses, make: Make, tmp_path: Path) -> None:
    """By event time, then partition; blocks leave no trace; each partition is the chain's own."""
    topic = await make(3)
    whole = await replayed(addresses.kafka, Request(topic), tmp_path / "out")
    seven = load_settings(["bars.clock=time:10s", "replay.block=7"])
    again = await replayed(addresses.kafka, Request(topic), tmp_path / "seven", seven)
    assert again["sha256"] == whole["sha256"]
    assert again["inputs"] == whole["inputs"]
    assert [one["messages"] for one in whole["inputs"]] == [173, 173, 0]
    found = orders(tmp_path / "out", "ticks")
    late = found["ts"].groupby(found["partition"]).cummax()
    expected = found.assign(key=late).sort_values(
        ["key", "partition", "offset", "index"], kind="stable"
    )
    assert expected.index.tolist() == list(range(len(found)))
    assert set(found["partition"]) == {0, 1}
    for partition in (0, 1):
        one = Request(topic, offsets={partition: (None, None)})
        await replayed(addresses.kafka, one, tmp_path / "one")
        for stage in STAGES:
            both = pq.read_table(tmp_path / "out" / f"{stage}.parquet").to_pandas()
            mine = both[both["partition"] == partition].reset_index(drop=True)
            alone = pq.read_table(tmp_path / "one" / f"{stage}.parquet").to_pandas()
            pd.testing.assert_frame_equal(mine, alone, check_exact=True)
    assert whole["rejected"]["undecodable"] == 2
    assert whole["rejected"]["non_positive"] == 2


async def test_offsets_bound_a_replay(addresses: Addresses, make: Make, tmp_path: Path) -> None:
    """Low <= offset < high; an empty range is an empty answer; what is not there is refused."""
    topic = await make(2)
    kafka = addresses.kafka
    cases: list[tuple[Limits, int, int]] = [
        ((10, 20), 10, 20),
        ((None, 5), 0, 5),
        ((170, None), 170, 173),
    ]
    for limits, low, high in cases:
        request = Request(topic, offsets={0: limits})
        manifest = await replayed(kafka, request, tmp_path / "out")
        found = orders(tmp_path / "out", "ticks")
        assert found["offset"].between(low, high - 1).all()
        assert manifest["inputs"][0]["messages"] == high - low
    for limits in ((5, 5), (None, 0), (173, None)):
        manifest = await replayed(kafka, Request(topic, offsets={0: limits}), tmp_path / "out")
        assert set(manifest["rows"].values()) == {0}
    wrong: list[tuple[int, Limits, str]] = [
        (0, (0, 174), "from 0 to 173"),
        (0, (9, 5), "9 to 5"),
        (0, (500, None), "500 to 173"),
        (7, (0, 1), "no partition 7: the topic has 2"),
    ]
    for partition, limits, words in wrong:
        with pytest.raises(MisuseError, match=words):
            await replayed(kafka, Request(topic, offsets={partition: limits}), tmp_path / "out")
    with pytest.raises(UnavailableError, match="nobody-made-this"):
        await replayed(kafka, Request("nobody-made-this"), tmp_path / "out")


async def test_a_replay_touches_no_group(addresses: Addresses, make: Make, tmp_path: Path) -> None:
    """The broker knows as many consumer groups afterwards as before."""
    topic = await make(1)
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses.kafka)
    await admin.start()
    before = await admin.list_consumer_groups()
    await replayed(addresses.kafka, Request(topic), tmp_path / "out", home=tmp_path / "kept")
    assert await admin.list_consumer_groups() == before
    await admin.close()


def flip(data: bytes, at: int) -> bytes:
    """The bytes with one bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def files(home: Path) -> list[str]:
    """Names of the kept files."""
    return sorted(path.name for path in home.rglob("*.parquet"))


async def test_a_second_replay_needs_no_broker(
    addresses: Addresses, make: Make, tmp_path: Path
) -> None:
    """The same stretch again, with the broker away or unnamed: the same bits, nothing fetched."""
    topic, home = await make(3), tmp_path / "kept"
    request = Request(topic, start_ms=0)
    first = await replayed(addresses.kafka, request, tmp_path / "a", home=home)
    assert files(home) == ["0-173.parquet"] * 2
    plain = await replayed(addresses.kafka, request, tmp_path / "b")
    alone = await replayed(None, request, tmp_path / "c", home=home)
    assert first == plain == alone
    with pytest.raises(UnavailableError, match="not kept here either"):
        await replayed(NOWHERE, request, tmp_path / "d", home=home)
    with pytest.raises(UnavailableError, match="not kept here either"):
        await replayed(None, Request(topic), tmp_path / "d", home=home)
    asked = next((home / "asked").rglob("*.json"))
    facts = json.loads(asked.read_text())
    asked.write_text(json.dumps({**facts, "bootstrap": NOWHERE}))
    assert await replayed(NOWHERE, request, tmp_path / "d", home=home) == first
    next(home.rglob("*.parquet")).unlink()
    with pytest.raises(UnavailableError, match="not kept here either"):
        await replayed(NOWHERE, request, tmp_path / "d", home=home)


async def test_what_is_kept_serves_other_stretches(
    addresses: Addresses, make: Make, tmp_path: Path
) -> None:
    """Pieces of a longer stretch are taken from what is there, the others fetched and kept."""
    topic, home, kafka = await make(1), tmp_path / "kept", addresses.kafka
    for limits in ((50, 80), (100, 120)):
        await replayed(kafka, Request(topic, offsets={0: limits}), tmp_path / "a", home=home)
    whole = await replayed(kafka, Request(topic), tmp_path / "b", home=home)
    assert files(home) == [
        "0-50.parquet", "100-120.parquet", "120-173.parquet", "50-80.parquet", "80-100.parquet"
    ]  # fmt: skip
    assert whole == await replayed(kafka, Request(topic), tmp_path / "c")
    inner = Request(topic, offsets={0: (60, 130)})
    kept = await replayed(kafka, inner, tmp_path / "d", home=home)
    assert kept == await replayed(kafka, inner, tmp_path / "e")
    assert len(files(home)) == 5


async def test_damaged_and_foreign_files_are_refused(
    addresses: Addresses, make: Make, tmp_path: Path
) -> None:
    """One line with the file's name: cut, a flipped byte, another stretch, no Parquet at all."""
    topic, home, kafka = await make(1), tmp_path / "kept", addresses.kafka
    await replayed(kafka, Request(topic), tmp_path / "a", home=home)
    (path,) = home.rglob("*.parquet")
    good = path.read_bytes()
    other = path.with_name("0-99.parquet")
    values = pq.read_metadata(path).row_group(0).column(3)
    first, length = values.data_page_offset + 100, values.total_compressed_size - 100
    flipped = [flip(good, first + i * length // 20) for i in range(20)]
    for bad in (good[:-20], b"", b"hello", *flipped):
        path.write_bytes(bad)
        with pytest.raises(TickstreamError, match=f"{path.name}: is damaged; delete it") as caught:
            await replayed(kafka, Request(topic), tmp_path / "b", home=home)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "b").exists()
    path.unlink()
    other.write_bytes(good)
    with pytest.raises(TickstreamError, match="is not a file of these messages"):
        await replayed(kafka, Request(topic), tmp_path / "b", home=home)
    asked = next((home / "asked").rglob("*.json"))
    asked.write_text("{")
    with pytest.raises(TickstreamError, match="is damaged; delete it"):
        await replayed(None, Request(topic), tmp_path / "b", home=home)


async def test_a_topic_made_anew_is_fetched_anew(
    addresses: Addresses, make: Make, tmp_path: Path
) -> None:
    """The same name and offsets but other messages: the kept ones are not taken for them."""
    topic, home, kafka = await make(1), tmp_path / "kept", addresses.kafka
    await replayed(kafka, Request(topic), tmp_path / "a", home=home)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_topics([topic])
    for _ in range(50):
        answer = await admin.create_topics([NewTopic(topic, 1, 1)])
        if not answer.topic_errors[0][1]:
            break
    await admin.close()
    await fill(kafka, topic, [0], other=1)
    anew = await replayed(kafka, Request(topic), tmp_path / "b", home=home)
    assert anew == await replayed(kafka, Request(topic), tmp_path / "c")
    assert set(pq.read_table(tmp_path / "b" / "bars.parquet")["symbol"].to_pylist()) == {"P1", "Q1"}


async def test_an_interrupted_reading_keeps_nothing(
    addresses: Addresses, make: Make, tmp_path: Path
) -> None:
    """A replay that stops midway leaves no file under a final name, nor a half one."""
    topic, home = await make(1), tmp_path / "kept"

    def stop(count: int, share: float | None = None) -> None:
        raise KeyboardInterrupt(count, share)

    stretch, read = await open_topic(addresses.kafka, Request(topic), home)
    with pytest.raises(KeyboardInterrupt):
        await replay_topic(addresses.kafka, stretch.ranges, tmp_path / "out", SETTINGS, stop, read)
    assert not (tmp_path / "out").exists()
    assert files(home) == []


@pytest.mark.parametrize("guard", ["event", "receive"])
async def test_stored_ticks_replay_as_their_messages(
    addresses: Addresses, make: Make, pool: Pool, tmp_path: Path, guard: str
) -> None:
    """Every stage has the bytes of the topic's replay; only what was rejected is missing."""
    settings = load_settings(["bars.clock=time:10s", f"guard.time={guard}", "replay.block=500"])
    topic = await make(3)
    await stored(addresses.kafka, pool, topic, 2, settings)
    messages = await replayed(addresses.kafka, Request(topic), tmp_path / "topic", settings)
    rows = await replay_stored(pool, tmp_path / "stored", settings)
    assert {s: rows["sha256"][s] for s in STAGES} == {s: messages["sha256"][s] for s in STAGES}
    assert messages["rejected"]
    assert rows["rejected"] == {}
    assert [one["rows"] for one in rows["inputs"]] == [
        int((orders(tmp_path / "topic", "ticks")["partition"] == n).sum()) for n in (0, 1)
    ]
    assert "quarantined" in pq.read_table(tmp_path / "stored" / "ticks.parquet")["flag"].to_pylist()


async def test_stored_ticks_are_bounded_by_event_time(
    addresses: Addresses, make: Make, pool: Pool, tmp_path: Path
) -> None:
    """Start <= event time < end; an empty stretch or table is an empty answer."""
    topic = await make(1)
    await stored(addresses.kafka, pool, topic, 1, SETTINGS)
    await replay_stored(pool, tmp_path / "all", SETTINGS)
    times = orders(tmp_path / "all", "ticks")["ts"]
    low, high = int(times[300]), int(times[800])
    await replay_stored(pool, tmp_path / "part", SETTINGS, start=low, end=high)
    assert orders(tmp_path / "part", "ticks")["ts"].tolist() == [
        t for t in times if low <= t < high
    ]
    empty = await replay_stored(pool, tmp_path / "none", SETTINGS, start=high, end=low)
    assert set(empty["rows"].values()) == {0}
    assert empty["inputs"] == []


async def test_what_is_shared_among_runs_is_what_is_replayed(
    addresses: Addresses, make: Make, pool: Pool, tmp_path: Path
) -> None:
    """A run over the shared ticks of a topic, or of Postgres, has the figures of their backtest."""
    sets = ["bars.clock=time:10s", "signals.follow=boll_z_20"]
    settings = load_settings(sets)
    topic = await make(3)
    await stored(addresses.kafka, pool, topic, 2, settings)
    manifest = await replayed(addresses.kafka, Request(topic), tmp_path / "out", settings)
    truth = analyse(tmp_path / "out", manifest).metrics
    stretch, read = await open_topic(addresses.kafka, Request(topic), None)
    with TicksWriter(tmp_path / "topic", DAY) as writer:
        messages, facts = await share_topic(stretch.ranges, read, writer)
    with TicksWriter(tmp_path / "again", DAY) as writer:
        again, _ = await share_topic(stretch.ranges, read, writer)
    with TicksWriter(tmp_path / "stored", DAY) as writer:
        rows, _ = await share_stored(pool, writer)
    assert facts == manifest["inputs"]
    assert again.sha256 == messages.sha256
    trial = Trial(settings.chain, (Window(None, None),), DAY, truth["clock"]["periods_per_year"])
    for ticks in (messages, rows):
        figures = run(trial, ticks).outcomes[0].figures
        assert figures["fills"] == truth["trading"]["fills"] > 20
        assert figures["bars"] == manifest["rows"]["bars"]
        # Books of several partitions are summed up in another order.
        assert figures["final_equity"] == pytest.approx(truth["final_equity"], rel=1e-14)
        assert figures["auc"] == pytest.approx(truth["engines"]["combined"]["auc"], rel=1e-12)


async def test_engines_trade_alone_in_each_partition(
    addresses: Addresses, make: Make, tmp_path: Path
) -> None:
    """Merged partitions are traded as each by itself; combined they bring what was traded."""
    settings = load_settings(["bars.clock=time:10s", "signals.cost_bp=0"])
    topic = await make(3)

    async def analysed(name: str, request: Request) -> dict[str, Any]:
        manifest = await replayed(addresses.kafka, request, tmp_path / name, settings)
        return dict(analyse(tmp_path / name, manifest).metrics)

    whole = await analysed("whole", Request(topic))
    parts = [await analysed(f"p{n}", Request(topic, offsets={n: (None, None)})) for n in (0, 1)]
    combined = whole["engines"]["combined"]["alone"]
    # Books of several partitions are summed up in another order.
    assert combined["final_equity"] == pytest.approx(whole["final_equity"], rel=1e-14)
    assert combined["trading"]["fills"] == whole["trading"]["fills"] > 20
    for engine, one in whole["engines"].items():
        mine = [part["engines"][engine]["alone"] for part in parts]
        total = sum(part["final_equity"] for part in mine)
        assert one["alone"]["final_equity"] == pytest.approx(total, rel=1e-14)
        assert one["alone"]["trading"]["trades"] == sum(part["trading"]["trades"] for part in mine)
