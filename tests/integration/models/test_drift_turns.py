"""Drift of a live run: rows from Kafka, state and alarms in Postgres, alerts on their topic."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import ensure_topics, offset_bounds
from pipeline.errors import ConflictError, UnavailableError
from pipeline.models import drift_turns
from pipeline.models.drift_state import Detectors
from pipeline.models.drift_turns import TOPICS, DriftTurn, Watch, announce
from pipeline.servers import Addresses
from pipeline.servers.postgres import PostgresServer
from pipeline.settings import (
    DriftSettings,
    Settings,
    StoreSettings,
    TopicSettings,
    load_settings,
)
from pipeline.store import drift as store
from pipeline.store.live import compress
from pipeline.store.migrate import migrate
from pipeline.store.places import Kept
from pipeline.store.pool import Pool, open_pool
from schemas.blocks import Array, Rows
from schemas.codec import block_bytes
from schemas.topics import ALERTS
from tests.fixtures.markets import BLOCK, chained, market

SHIFT, N = 24_000, 28_000
LONG = 60.0  # seconds that no turn takes
MILLION = 1_000_000


@pytest.fixture(scope="module")
def rows() -> list[Rows]:
    """Features and predictions of a market whose volatility doubles."""
    return chained(market(N, 5, SHIFT, 2.0), TOPICS)


@pytest.fixture
def settings() -> Settings:
    """Those of the market."""
    return load_settings(["bars.clock=ticks:1"])


@pytest.fixture
async def kafka(addresses: Addresses, pool: Pool, settings: Settings) -> str:
    """A broker; watching begins at the present end of its topics."""
    await ensure_topics(addresses.kafka, TopicSettings())
    await begin_here(addresses.kafka, pool, settings)
    return addresses.kafka


async def begin_here(kafka: str, pool: Pool, settings: Settings) -> None:
    """Have rows that others published count as seen."""
    ends = {topic: await offset_bounds(kafka, topic) for topic in TOPICS}
    data = compress(Detectors(settings.chain.fingerprint()).snapshot())
    for number in ends[TOPICS[0]]:
        places = {topic: (ends[topic][number][1], -1, -1) for topic in TOPICS}
        await store.keep(pool, settings.worker.group, number, Kept(0, places, data), [])


async def publish(kafka: str, rows: Sequence[Rows], start: int, stop: int) -> None:
    """Rows of every stage, a block at a time, as a worker does."""
    async with Publisher(kafka) as publisher:
        for begin in range(start, stop, BLOCK):
            await publisher.deliver(
                Outgoing(one.stage, block_bytes(part), b"0", 0)
                for one in rows
                if len(part := one.take(slice(begin, min(begin + BLOCK, stop))))
            )


def changed(rows: Rows, columns: Mapping[str, Array]) -> Rows:
    """The same rows but for some columns."""
    return Rows(rows.stage, {**rows.columns, **columns}, rows.symbols)


async def alerts(kafka: str, since: int) -> list[dict[str, Any]]:
    """What `alerts` was told since then."""
    end = (await offset_bounds(kafka, ALERTS))[0][1]
    found: list[dict[str, Any]] = []
    if end == since:  # a consumer that is stopped at once fails
        return found
    place = TopicPartition(ALERTS, 0)
    async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
        consumer.assign([place])
        consumer.seek(place, since)
        while await consumer.position(place) < end:
            came = await consumer.getmany(place, timeout_ms=500)
            found += [json.loads(one.value) for one in came.get(place, [])]
    return found


async def end_of_alerts(kafka: str) -> int:
    """Where they begin from now on."""
    return (await offset_bounds(kafka, ALERTS))[0][1]


def key(alarm: dict[str, Any]) -> tuple[Any, ...]:
    """What an alarm is known by."""
    return alarm["offset"], alarm["index"], alarm.get("of", alarm["kind"]), alarm["name"]


def expected(rows: Sequence[Rows], settings: Settings) -> set[tuple[Any, ...]]:
    """The alarms of detectors that nothing happens to."""
    detectors = Detectors(settings.chain.fingerprint())
    found = [alarm for one in rows for alarm in detectors.step(one)]
    assert len(found) > 5
    return {(alarm.offset, alarm.index, alarm.kind, alarm.name) for alarm in found}


async def test_how_it_stands_is_kept(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """Every series of features and engines with its state, as the detectors tell it."""
    await publish(kafka, rows, 0, 12_000)
    few = settings.model_copy(update={"drift": DriftSettings(symbols=1)})
    await Watch(kafka, pool, few).turn(LONG)
    detectors = Detectors(settings.chain.fingerprint(), 1)
    for one in rows:
        detectors.step(one.take(slice(0, 12_000)))
    expected = sorted((row.symbol, row.kind, row.name) for row in detectors.rows())
    group = settings.worker.group
    found = await store.series(pool, group, 10_000)
    assert [(row["symbol"], row["kind"], row["name"]) for row in found] == expected
    by_name = {(row.kind, row.name): row for row in detectors.rows()}
    for row in found:
        told = by_name[row["kind"], row["name"]]
        for name in ("state", "stride", "looked", "evidence", "alarms"):
            assert row[name] == getattr(told, name), row
    assert {row["state"] for row in found} == {"measured", "watched"}
    watched = await store.series(pool, group, 10_000, "A", "watched")
    assert 20 < len(watched) < len(found)
    assert len(await store.series(pool, group, 3)) == 3
    assert await store.series(pool, group, 10, "B") == await store.series(pool, "other", 10) == []


async def stored(pool: Pool) -> list[tuple[Any, ...]]:
    """The alarms in the table."""
    return sorted(key(row) for row in await store.newest(pool, 10_000, None))


async def test_a_shift_is_a_row_and_an_alert(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """Within 2,000 rows, and none before; each once in the table and once on the topic."""
    since = await end_of_alerts(kafka)
    watch = Watch(kafka, pool, settings)
    await publish(kafka, rows, 0, SHIFT)
    turn = await watch.turn(LONG)
    assert turn.lines() == [f"steady: {SHIFT:,} rows of features, {SHIFT:,} rows of predictions"]
    await publish(kafka, rows, SHIFT, N)
    turn = await watch.turn(LONG)
    assert (turn.state, turn.alerts) == ("drifted", len(await stored(pool)))
    assert await stored(pool) == sorted(expected(rows, settings))
    soon = {
        row["name"] for row in await store.newest(pool, 1000, "A") if row["offset"] <= SHIFT + 2000
    }
    assert soon >= {"ret_1", "bar_ret_1", "realized_vol_20", "natr_14"}
    assert await store.newest(pool, 1000, "B") == []
    told = await alerts(kafka, since)
    assert sorted(map(key, told)) == await stored(pool)
    assert {one["kind"] for one in told} == {"drift"}
    assert (await watch.turn(LONG)).lines() == []
    assert len(await alerts(kafka, since)) == len(told)


async def test_restarts_and_repeats_change_nothing(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """A watcher of its own for each stretch, and workers that publish what they had published."""
    since = await end_of_alerts(kafka)
    begin = 0
    for stop in (1, 3000, 3000, 5000, SHIFT, SHIFT + 900, N):
        await publish(kafka, rows, max(0, begin - 1500), stop)
        await Watch(kafka, pool, settings).turn(LONG)
        begin = stop
    assert await stored(pool) == sorted(expected(rows, settings))
    assert sorted(map(key, await alerts(kafka, since))) == await stored(pool)


async def test_a_turn_that_dies_is_done_again(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the transaction, in it and behind it: nothing is forgotten, nothing told twice."""
    since = await end_of_alerts(kafka)
    await publish(kafka, rows, 0, N)
    keep, tell = store.keep, drift_turns.announce

    async def dies(*_: Any) -> None:
        raise UnavailableError("Postgres does not answer")

    async def dies_inside(
        pool: Pool, service: str, number: int, now: Any, alarms: Any, series: Any
    ) -> None:
        wrong = {**alarms[0], "kind": "no such kind"}
        await keep(pool, service, number, now, [*alarms, wrong], series)

    for failing in (dies, dies_inside):
        with monkeypatch.context() as patch:
            patch.setattr(store, "keep", failing)
            with pytest.raises((UnavailableError, asyncpg.CheckViolationError)):
                await Watch(kafka, pool, settings).turn(LONG)
        assert await stored(pool) == []
    with monkeypatch.context() as patch:
        patch.setattr(drift_turns, "announce", dies)
        turn = await Watch(kafka, pool, settings).turn(LONG)
    assert turn.unchecked == ["alerts wait for the next turn: Postgres does not answer"]
    assert await stored(pool) == sorted(expected(rows, settings))
    assert await alerts(kafka, since) == []
    await asyncio.gather(*(tell(pool, kafka) for _ in range(3)))
    assert (await Watch(kafka, pool, settings).turn(LONG)).lines() == []
    assert sorted(map(key, await alerts(kafka, since))) == await stored(pool)


async def test_a_server_that_is_away_is_told(
    kafka: str, tmp_path: Path, settings: Settings, rows: list[Rows]
) -> None:
    """Kafka or Postgres: an error that names it, and the next turn goes on."""
    with PostgresServer(tmp_path) as server:
        pool = await open_pool(server.address, StoreSettings())
        await migrate(pool)
        await begin_here(kafka, pool, settings)
        await publish(kafka, rows, 0, 3000)
        with pytest.raises(UnavailableError, match="Kafka"):
            await Watch("127.0.0.1:1", pool, settings).turn(LONG)
        server.stop()
        with pytest.raises(UnavailableError, match="Postgres"):
            await Watch(kafka, pool, settings).turn(LONG)
        server.start()
        turn = await Watch(kafka, pool, settings).turn(LONG)
        await pool.close()
    assert turn.rows == dict.fromkeys(TOPICS, 3000)


async def test_of_two_watchers_one_goes_on(
    pool: Pool,
    kafka: str,
    settings: Settings,
    rows: list[Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other stores nothing, says so, and is right again at its next turn."""
    since = await end_of_alerts(kafka)
    await publish(kafka, rows, 0, N)
    watches = [Watch(kafka, pool, settings) for _ in range(3)]
    all_have_begun, kept = asyncio.Barrier(len(watches)), store.kept

    async def kept_for_all(pool: Pool, service: str, partition: int) -> Kept:
        found = await kept(pool, service, partition)
        await all_have_begun.wait()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "kept", kept_for_all)
        turns: list[DriftTurn] = await asyncio.gather(*(watch.turn(LONG) for watch in watches))
    assert sorted(turn.rows["features"] for turn in turns) == [0, 0, N]
    assert sum("another watcher" in line for turn in turns for line in turn.lines()) == 2
    assert await stored(pool) == sorted(expected(rows, settings))
    assert sorted(map(key, await alerts(kafka, since))) == await stored(pool)
    before = await store.kept(pool, settings.worker.group, 0)
    late = Kept(before.generation - 1, before.places, before.data)
    with pytest.raises(ConflictError, match="another watcher"):
        await store.keep(pool, settings.worker.group, 0, late, [])


async def test_what_is_no_block_is_counted_and_passed(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """Foreign bytes, no bytes, columns that are missing, rows of another partition."""
    features, predictions = rows
    other = changed(features.take(slice(0, 5)), {"partition": np.full(5, 1, np.int32)})
    short = features.take(slice(0, 5))
    async with Publisher(kafka) as publisher:
        await publisher.deliver(
            Outgoing("features", value, b"0", 0)
            for value in (
                b"", b"{}", b"\xff" * 100, block_bytes(short)[:-40], block_bytes(other),
                block_bytes(predictions.take(slice(0, 5))),
            )
        )  # fmt: skip
    await publish(kafka, rows, 0, 100)
    turn = await Watch(kafka, pool, settings).turn(LONG)
    assert turn.rows == dict.fromkeys(TOPICS, 100)
    assert turn.lines() == ["not checked: 6 messages of features, partition 0: no blocks"]
    assert (await Watch(kafka, pool, settings).turn(LONG)).lines() == []


@pytest.mark.parametrize("damage", ["bytes", "settings"])
async def test_a_state_of_no_use_is_made_anew(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows], damage: str
) -> None:
    """It is told, and watching goes on from where it was, not from the beginning."""
    await publish(kafka, rows, 0, 6000)
    await Watch(kafka, pool, settings).turn(LONG)
    if damage == "bytes":
        await pool.execute("UPDATE drift_states SET data = 'x'")
    else:
        settings = load_settings(["bars.clock=ticks:1", "predictions.horizon=7"])
    await publish(kafka, rows, 6000, 7000)
    turn = await Watch(kafka, pool, settings).turn(LONG)
    assert turn.rows == dict.fromkeys(TOPICS, 1000)
    assert [line.partition(":")[0] for line in turn.lines()] == ["made anew", "steady"]
    assert (await Watch(kafka, pool, settings).turn(LONG)).lines() == []


async def test_a_huge_gap_is_passed(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """Offsets and times far on are the next rows, and old ones after them are repeats."""
    await publish(kafka, rows, 0, 2000)
    far = [
        changed(one, {"offset": one["offset"] + 2**60, "ts": one["ts"] + 10**18})
        for one in (one.take(slice(2000, 3000)) for one in rows)
    ]
    await publish(kafka, far, 0, 1000)
    await publish(kafka, rows, 1000, 3000)
    turn = await Watch(kafka, pool, settings).turn(LONG)
    assert turn.rows == dict.fromkeys(TOPICS, 3000)


async def test_a_short_turn_leaves_the_rest(
    pool: Pool, kafka: str, settings: Settings, rows: list[Rows]
) -> None:
    """A message of each topic at the least, until all are done: the same alarms."""
    await publish(kafka, rows, 0, N)
    turns: list[DriftTurn] = []
    while not turns or turns[-1].behind:
        turns.append(await Watch(kafka, pool, settings).turn(0.0))
    assert len(turns) == -(-N // BLOCK)
    assert f"; {2 * (len(turns) - 1)} messages left" in turns[0].lines()[-1]
    assert await stored(pool) == sorted(expected(rows, settings))


async def test_alerts_can_be_told_when_there_are_none(pool: Pool, kafka: str) -> None:
    """Nothing is sent, and no broker is needed for that."""
    assert await announce(pool, kafka) == 0
    assert await announce(pool, "127.0.0.1:1") == 0


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_million_rows_and_then_a_shift(pool: Pool, kafka: str, settings: Settings) -> None:
    """No alarm while nothing changes, with a restart every 50,000 rows; then within 2,000."""
    rows = chained(market(MILLION + 4000, 11, MILLION, 2.0), TOPICS)
    for begin in range(0, MILLION, 50_000):
        await publish(kafka, rows, begin, begin + 50_000)
        await Watch(kafka, pool, settings).turn(LONG)
    assert await stored(pool) == []
    await publish(kafka, rows, MILLION, MILLION + 4000)
    await Watch(kafka, pool, settings).turn(LONG)
    found = await store.newest(pool, 1000, None)
    first = min(row["offset"] for row in found) - MILLION
    soon = {row["name"] for row in found if row["offset"] <= MILLION + 2000}
    print(f"first alarm {first} rows behind the shift, {len(soon)} series within 2,000")  # noqa: T201 - a figure of the soak
    assert 0 < first <= 2000
    assert soon >= {"ret_1", "bar_ret_1", "realized_vol_20", "natr_14"}
