"""What the way itself costs: from `prices` to `predictions` with nothing done in between.

    python -m tests.bench.live.echo KAFKA --ticks 10

A plain consumer of aiokafka, without Faust and of no group; of each partition that a fetch brought
it publishes one block with the coordinates of the ticks and no other column, and waits for its
delivery before it fetches again. Nothing is decoded, computed, stored or cached. It says `ready`.
"""

import argparse
import asyncio
import signal
import sys
from typing import Final

import numpy as np
import pyarrow as pa
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import offset_bounds
from schemas.topics import PRICES

_FETCH: Final = 8 * 2**20
_TOPIC: Final = "predictions"


def block(partition: int, offsets: list[int], ticks: int) -> bytes:
    """The coordinates of all ticks of messages, as an Arrow stream."""
    n = len(offsets) * ticks
    table = pa.record_batch(
        {
            "partition": np.full(n, partition, np.int32),
            "offset": np.repeat(np.array(offsets, np.int64), ticks),
            "index": np.tile(np.arange(ticks, dtype=np.int32), len(offsets)),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table)
    return bytes(sink.getvalue())


async def _echo(kafka: str, ticks: int) -> None:
    places = [TopicPartition(PRICES, partition) for partition in await offset_bounds(kafka, PRICES)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, enable_auto_commit=False, max_partition_fetch_bytes=_FETCH
    )
    await consumer.start()
    consumer.assign(places)
    await consumer.seek_to_end(*places)
    async with Publisher(kafka) as publisher:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            found = await consumer.getmany(timeout_ms=1000)
            await publisher.deliver(
                Outgoing(
                    _TOPIC,
                    block(place.partition, [record.offset for record in records], ticks),
                    partition=place.partition,
                )
                for place, records in found.items()
            )


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kafka")
    parser.add_argument("--ticks", type=int, default=10, help="of a message")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_echo(asked.kafka, asked.ticks))


if __name__ == "__main__":
    main()
