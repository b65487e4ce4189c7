"""Parity against a real topic and real tables: once over a range, and again and again."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from pipeline.bus.decoding import new_decoder
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import read_ranges
from pipeline.bus.topics import ensure_topics, offset_bounds
from pipeline.errors import MisuseError, UncheckedError
from pipeline.replay.differences import WHOLE_ROW, Difference
from pipeline.replay.parity import ParityReport, checker_of, compare
from pipeline.replay.parity_turns import Checker
from pipeline.servers import Addresses, start_servers
from pipeline.settings import Settings, TopicSettings, load_settings
from pipeline.stages.chain import Chain
from pipeline.store.live import LiveStore, PartitionBatch, compress, decompress
from pipeline.store.pool import Pool
from schemas.blocks import STAGES
from schemas.codec import tick_bytes
from schemas.topics import ALERTS, PRICES
from tests.fixtures.ticks import walk

SETTINGS = load_settings(["bars.clock=ticks:3", "equity.period=1s", "signals.follow=momentum_20"])
N = 2100
FRAME = 7
ENOUGH = 60.0  # seconds: no turn here takes so long
HALF = N // FRAME // 2


@pytest.fixture(scope="module")
def broker(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of our own: its topics begin with our messages, and may lose them."""
    home = tmp_path_factory.mktemp("parity")
    with start_servers(home, postgres=addresses.postgres, redis=addresses.redis) as fleet:
        yield fleet.addresses.kafka


class Run:
    """A live run of one partition, stored as a worker stores it."""

    def __init__(self, kafka: str, pool: Pool, partition: int) -> None:
        self.kafka = kafka
        self.pool = pool
        self.partition = partition
        self._chain = Chain(SETTINGS.chain, partition)
        self._next = 0

    async def publish(self, values: Sequence[bytes]) -> None:
        """Messages for the partition."""
        async with Publisher(self.kafka) as publisher:
            await publisher.deliver(Outgoing(PRICES, v, partition=self.partition) for v in values)

    async def store(self) -> int:
        """Store what has come, in batches of 20 messages and with a snapshot; the next offset."""
        live = LiveStore(self.pool, SETTINGS.worker.group, SETTINGS.chain.fingerprint())
        claim = await live.claim(self.partition)
        decoder = new_decoder(self.partition)
        end = (await offset_bounds(self.kafka, PRICES))[self.partition][1]
        ranges = {self.partition: (self._next, end)}
        async for _, messages in read_ranges(self.kafka, PRICES, ranges):
            for at in range(0, len(messages), 20):
                some = messages[at : at + 20]
                rows = self._chain.step(*decoder.decode(some)).rows
                batch = PartitionBatch(
                    self.partition, claim.epoch, some[-1].offset, rows, (), (), ()
                )
                await live.commit([batch])
        self._next = end
        state = compress(self._chain.snapshot())
        await live.save_snapshot(self.partition, claim.epoch, end - 1, state)
        return end

    async def compare(self, low: int, high: int, settings: Settings = SETTINGS) -> ParityReport:
        """The comparison of `tickstream parity`."""
        return await compare(self.kafka, self.pool, settings, {self.partition: (low, high)})

    async def one(self, stage: str, offset: int) -> Any:
        """The first stored row of a stage from an offset on."""
        sql = f'SELECT * FROM {stage} WHERE "offset" >= $1 ORDER BY "offset", "index" LIMIT 1'  # noqa: S608 -- a stage
        return await self.pool.fetchrow(sql, offset)

    async def forget(self, before: int) -> None:
        """The topic loses its messages before an offset, as by retention."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        place = TopicPartition(PRICES, self.partition)
        await admin.delete_records({place: RecordsToDelete(before)})
        await admin.close()


def messages(seed: int) -> list[bytes]:
    """300 messages of 7 ticks of two symbols, one message undecodable."""
    table = walk(N, [f"P{seed}", f"Q{seed}"], seed).drop(columns=["side"]).dropna()
    rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    values = [tick_bytes(rows[at : at + FRAME]) for at in range(0, len(rows), FRAME)]
    return [*values[:3], b"not a tick", *values[3:]]


_MOST = 32
_PARTITIONS = iter(range(_MOST))


@pytest.fixture
async def live(broker: str, pool: Pool) -> AsyncIterator[Run]:
    """A run that has stored all messages, of a partition that no other test has."""
    await ensure_topics(broker, TopicSettings(partitions=_MOST))
    run = Run(broker, pool, next(_PARTITIONS))
    await run.publish(messages(run.partition))
    await run.store()
    yield run
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    groups = await admin.list_consumer_groups()
    await admin.close()
    assert groups == [], "whatever a check does, it joins no group"


async def test_an_untouched_run_is_equal(live: Run) -> None:
    """Every stage has rows and all of them are compared; ranges and blocks make no difference."""
    end = live._next
    counts = {
        stage: await live.pool.fetchval(f"SELECT count(*) FROM {stage}")  # noqa: S608 -- a stage
        for stage in STAGES
    }
    assert min(counts.values()) > 20
    whole = await live.compare(0, end)
    assert (whole.difference, whole.rows) == (None, counts)
    small = load_settings(
        ["bars.clock=ticks:3", "equity.period=1s", "signals.follow=momentum_20", "replay.block=5"]
    )
    pieces = [await live.compare(low, low + 61, small) for low in range(0, end - 61, 61)]
    rest = await live.compare(len(pieces) * 61, end, small)
    assert not any(one.difference for one in [*pieces, rest])
    summed = {stage: sum(one.rows[stage] for one in [*pieces, rest]) for stage in STAGES}
    assert summed == counts


@pytest.mark.parametrize(
    ("stage", "column"), [("ticks", "bid"), ("fills", "price"), ("equity", "fees")]
)
async def test_one_bit_is_found(live: Run, stage: str, column: str) -> None:
    """Stage, identity, column and both values are named; outside of the range it is not met."""
    row = await live.one(stage, 100)
    sql = f'UPDATE {stage} SET {column} = $3 WHERE "offset" = $1 AND "index" = $2'  # noqa: S608 -- ours
    changed = float.fromhex((row[column] + 1.0).hex())
    await live.pool.execute(sql, row["offset"], row["index"], changed)
    found = (await live.compare(0, live._next)).difference
    place = (live.partition, row["offset"], row["index"])
    expected = Difference(stage, row["symbol"], row["ts"], *place, column, changed, row[column])
    assert found == expected
    assert (await live.compare(row["offset"] + 1, live._next)).difference is None
    assert (await live.compare(0, row["offset"])).difference is None


async def test_lost_and_doubled_rows_are_found(live: Run) -> None:
    """Also the very last one, and one behind the end of the topic."""
    end = live._next
    last = await live.pool.fetchrow(
        'DELETE FROM bars WHERE "offset" = (SELECT max("offset") FROM bars) RETURNING *'
    )
    assert last is not None
    found = (await live.compare(0, end)).difference
    assert found is not None
    assert (found.stage, found.offset, found.column) == ("bars", last["offset"], WHOLE_ROW)
    assert (found.live, found.replayed) == (None, "there")
    await live.pool.execute(
        'INSERT INTO ticks SELECT * FROM ticks WHERE "offset" = 50 AND "index" = 2'
    )
    found = (await live.compare(0, end)).difference
    assert found is not None
    assert (found.stage, found.offset, found.index, found.live) == ("ticks", 50, 2, "once more")
    assert (await live.compare(51, last["offset"])).difference is None
    await live.pool.execute(
        'UPDATE equity SET "offset" = $1 WHERE "offset" = (SELECT max("offset") FROM equity)',
        end + 5,
    )
    found = (await live.compare(last["offset"] + 1, end + 10)).difference
    assert found is not None
    assert (found.stage, found.column) == ("equity", WHOLE_ROW)


async def test_other_settings_are_refused(live: Run) -> None:
    """A replay with other settings would only show that they differ."""
    other = load_settings(["bars.clock=ticks:4"])
    with pytest.raises(MisuseError, match="other settings"):
        await Checker(live.kafka, live.pool, other).turn(ENOUGH)


async def alerts(kafka: str, partition: int) -> list[dict[str, Any]]:
    """The alerts about a partition of `prices`."""
    end = (await offset_bounds(kafka, ALERTS))[0][1]
    found: list[dict[str, Any]] = []
    async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
        place = TopicPartition(ALERTS, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        while await consumer.position(place) < end:
            came = (await consumer.getmany(place, timeout_ms=500)).get(place, [])
            found.extend(json.loads(one.value) for one in came)
    return [one for one in found if one["partition"] == partition]


async def test_turns_go_on_from_each_other(live: Run) -> None:
    """Each compares what is new, a changed value is one alert, and nothing is compared twice."""
    first = live._next
    turn = await Checker(live.kafka, live.pool, SETTINGS).turn(ENOUGH)
    assert (turn.state, turn.ranges, turn.behind) == ("equal", {live.partition: (0, first)}, 0)
    assert "bit-equal" in turn.lines()[0]
    await live.publish(messages(live.partition + 50))
    second = await live.store()
    row = await live.one("regimes", first + 100)
    sql = 'UPDATE regimes SET vol_low = 7.5, ts = ts + 1 WHERE "offset" = $1 AND "index" = $2'
    await live.pool.execute(sql, row["offset"], row["index"])
    turn = await Checker(live.kafka, live.pool, SETTINGS).turn(ENOUGH)
    assert turn.state == "differs"
    assert turn.ranges == {live.partition: (first, second)}
    (found,) = turn.differences
    assert (found.stage, found.offset, found.column) == ("regimes", row["offset"], "ts")
    (alert,) = await alerts(live.kafka, live.partition)
    assert (alert["kind"], alert["symbol"], alert["stage"]) == ("parity", row["symbol"], "regimes")
    assert (alert["live"], alert["replayed"]) == (row["ts"] + 1, row["ts"])
    turn = await Checker(live.kafka, live.pool, SETTINGS).turn(ENOUGH)
    assert (turn.state, turn.ranges, turn.lines()) == ("equal", {}, [])
    assert len(await alerts(live.kafka, live.partition)) == 1


@pytest.mark.parametrize("damage", ["no compression", "another text", "a bit"])
async def test_a_damaged_state_is_made_anew(live: Run, damage: str) -> None:
    """Whatever was done to the kept state of the checks: one line, and all is compared on."""
    checker = Checker(live.kafka, live.pool, SETTINGS)
    await checker.turn(ENOUGH)
    service = checker_of(SETTINGS)
    kept = decompress(
        await live.pool.fetchval("SELECT data FROM snapshots WHERE service = $1", service)
    )
    data = {
        "no compression": b"\0" * 100,
        "another text": compress(b"no state at all"),
        "a bit": compress(kept[:-1] + bytes([kept[-1] ^ 1])),
    }[damage]
    await live.pool.execute("UPDATE snapshots SET data = $1 WHERE service = $2", data, service)
    before = live._next
    await live.publish(messages(live.partition + 100))
    await live.store()
    turn = await checker.turn(ENOUGH)
    assert (turn.state, turn.ranges) == ("equal", {live.partition: (before, live._next)})
    lines = turn.lines()
    assert len(lines) == 2
    assert lines[0].startswith(
        f"made anew: the kept state of partition {live.partition}: the snapshot is damaged"
    )
    assert lines[1].startswith("bit-equal: ")
    await live.publish(messages(live.partition + 200))
    await live.store()
    assert (await checker.turn(ENOUGH)).remade == []


async def test_a_damaged_state_leaves_a_workers(live: Run) -> None:
    """Where the topic has lost its beginning, the checks begin with the state of a worker."""
    checker = Checker(live.kafka, live.pool, SETTINGS)
    await checker.turn(ENOUGH)
    await live.pool.execute(
        "UPDATE snapshots SET data = 'x' WHERE service = $1", checker_of(SETTINGS)
    )
    before = live._next
    await live.publish(messages(live.partition + 100))
    await live.store()
    await live.forget(before - 10)
    report = await live.compare(before, live._next)
    assert report.difference is None
    assert report.rows["bars"] > 0
    turn = await checker.turn(ENOUGH)
    assert (turn.state, turn.ranges) == ("equal", {live.partition: (before, live._next)})
    assert len(turn.remade) == 1


async def test_a_turn_has_an_end(live: Run) -> None:
    """A long backlog is compared in turns; all of it once."""
    checker = Checker(live.kafka, live.pool, SETTINGS)
    ticks = [
        {"symbol": "BIG", "ts": 1_700_000_000 + i, "price": 5.0 + i % 7} for i in range(20_000)
    ]
    await live.publish([tick_bytes(ticks)] * 5)  # too much to be stepped at once
    end = await live.store()
    ranges, rows = [], 0
    while True:
        turn = await checker.turn(0.0)
        if not turn.ranges:
            break
        ranges.append(turn.ranges[live.partition])
        rows += turn.rows["ticks"]
        assert turn.behind == end - ranges[-1][1]
        assert turn.state == "equal", turn.lines()
    assert len(ranges) > 1
    assert [0, *(high for _, high in ranges)] == [*(low for low, _ in ranges), end]
    assert rows == await live.pool.fetchval("SELECT count(*) FROM ticks")


async def test_retention_of_the_topic(live: Run) -> None:
    """Without the beginning a kept state is gone on from; what cannot be compared is no alarm."""
    end = live._next
    await live.forget(end - 100)
    with pytest.raises(
        UncheckedError, match=rf"before offset {end - 100}.*--offsets \d+:{end}- can be"
    ):
        await live.compare(0, end)
    turn = await Checker(live.kafka, live.pool, SETTINGS).turn(ENOUGH)
    assert (turn.state, turn.differences) == ("not checked", [])
    assert f"going on from offset {end}" in turn.lines()[0]
    await live.publish(messages(live.partition + 50))
    more = await live.store()
    turn = await Checker(live.kafka, live.pool, SETTINGS).turn(ENOUGH)
    assert (turn.state, turn.ranges) == ("equal", {live.partition: (end, more)})
    await live.forget(more - 10)
    await live.publish(messages(live.partition + 51))
    last = await live.store()
    turn = await Checker(live.kafka, live.pool, SETTINGS).turn(ENOUGH)
    assert (turn.state, turn.ranges) == ("equal", {live.partition: (more, last)})
    assert (await live.compare(more + 5, last)).difference is None  # from the state of a check
    assert await alerts(live.kafka, live.partition) == []


async def test_nothing_kept_is_told(live: Run) -> None:
    """No beginning and no state: the next turn tries again, and other partitions are checked."""
    await live.forget(100)
    await live.pool.execute("DELETE FROM snapshots")
    for _ in range(2):
        turn = await Checker(live.kafka, live.pool, SETTINGS).turn(ENOUGH)
        assert turn.state == "not checked"
        assert "no state is kept" in turn.lines()[0]


async def test_retention_of_the_tables(live: Run) -> None:
    """Rows dropped as too old are no difference; from the first tick on all is compared."""
    for stage in STAGES:
        await live.pool.execute(f'DELETE FROM {stage} WHERE "offset" < 100')  # noqa: S608 -- a stage
    keeping = load_settings(
        ["bars.clock=ticks:3", "equity.period=1s", "signals.follow=momentum_20",
         "store.retention_days=30"]
    )  # fmt: skip
    turn = await Checker(live.kafka, live.pool, keeping).turn(ENOUGH)
    assert (turn.state, turn.ranges) == ("not checked", {live.partition: (100, live._next)})
    assert turn.rows["ticks"] == await live.pool.fetchval("SELECT count(*) FROM ticks")
    await live.pool.execute("UPDATE progress SET moved_at = moved_at - interval '40 days'")
    await live.publish(messages(live.partition + 50))
    await live.store()
    await live.pool.execute('DELETE FROM bars WHERE "offset" = $1', live._next - 20)
    turn = await Checker(live.kafka, live.pool, keeping).turn(ENOUGH)
    assert turn.state == "differs"
