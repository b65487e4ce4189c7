"""The three sources of a table agree: a replay's directory, the topic, and Postgres."""

import asyncio
from pathlib import Path

import pandas as pd
import pytest

from pipeline.bus.decoding import new_decoder
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import read_ranges
from pipeline.bus.topics import ensure_topics, offset_bounds
from pipeline.errors import MisuseError
from pipeline.replay.engine import replay_topic
from pipeline.replay.frames import to_pandas
from pipeline.servers import Addresses
from pipeline.settings import TopicSettings, load_settings
from pipeline.stages.chain import Chain
from pipeline.store.live import LiveStore, PartitionBatch
from pipeline.store.pool import Pool
from schemas.blocks import STAGES
from schemas.codec import tick_bytes
from schemas.topics import PRICES
from tests.fixtures.ticks import walk

CLOCK = "bars.clock=time:10s"
"""Of all runs here."""


async def published(kafka: str) -> tuple[int, int]:
    """Ticks on partition 0 of `prices`, behind whatever other tests left; their offsets."""
    await ensure_topics(kafka, TopicSettings())
    table = walk(900, ["A", "B"]).drop(columns=["side"]).dropna()
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    low = (await offset_bounds(kafka, PRICES))[0][1]
    async with Publisher(kafka) as publisher:
        values = [tick_bytes(rows[at : at + 9]) for at in range(0, len(rows), 9)]
        await publisher.deliver(Outgoing(PRICES, value, partition=0) for value in values)
    return low, low + len(values)


async def test_three_sources_give_one_table(
    addresses: Addresses, pool: Pool, postgres: str, tmp_path: Path
) -> None:
    """Every stage, every bit; only the order of event time tells Postgres from a replay."""
    span = await published(addresses.kafka)
    settings = load_settings([CLOCK], kafka=addresses.kafka, postgres=postgres)
    await replay_topic(addresses.kafka, {0: span}, tmp_path / "out", settings)
    live, chain = LiveStore(pool, "worker", "f"), Chain(settings.chain)
    claim, decoder = await live.claim(0), new_decoder(0)
    async for _, messages in read_ranges(addresses.kafka, PRICES, {0: span}):
        block = chain.step(*decoder.decode(messages))
        mark = messages[-1].offset
        await live.commit([PartitionBatch(0, claim.epoch, mark, block.rows, (), (), ())])
    for stage in STAGES:
        written = to_pandas(tmp_path / "out", stage)
        assert len(written) > 5
        topic = await asyncio.to_thread(
            to_pandas, "kafka:prices", stage, offsets={0: span}, settings=settings
        )
        pd.testing.assert_frame_equal(topic, written, check_exact=True)
        stored = await asyncio.to_thread(to_pandas, "postgres", stage, settings=settings)
        by_time = written.sort_values(["ts", "partition", "offset", "index"], ignore_index=True)
        pd.testing.assert_frame_equal(stored, by_time, check_exact=True, check_categorical=False)
        low, high = int(by_time["ts"].iloc[2]), int(by_time["ts"].iloc[-1])
        part = await asyncio.to_thread(
            to_pandas, "postgres", stage, start=low, end=high, settings=settings
        )
        assert part["ts"].tolist() == [ts for ts in by_time["ts"] if low <= ts < high]
        none = await asyncio.to_thread(
            to_pandas, "postgres", stage, start=high + 1, settings=settings
        )
        assert len(none) == 0
        assert none.dtypes.astype(str).tolist() == part.dtypes.astype(str).tolist()


async def test_a_stretch_that_is_not_there_is_said(addresses: Addresses) -> None:
    """A partition or an offset that the topic has not."""
    span = await published(addresses.kafka)
    settings = load_settings(kafka=addresses.kafka)
    for offsets, words in (
        ({999: (0, 1)}, "no partition 999"),
        ({0: (0, span[1] + 9)}, "partition 0 holds"),
    ):
        with pytest.raises(MisuseError, match=words):
            await asyncio.to_thread(
                to_pandas, "kafka:prices", "bars", offsets=offsets, settings=settings
            )
