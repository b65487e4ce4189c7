"""How long a tick takes to the outputs; a process of its own: publishes at a rate and listens.

    python -m tests.bench.live.pulse KAFKA REDIS --partitions 0,1,2,3 --warmup 5 --silence 0 ...

A message is a JSON array of ticks, the symbols of the message's partition in turn; messages
go out one by one, evenly. The time of a tick is the moment its message is handed to the producer.
What arrives is only kept with its time, and read when all is over.
"""

import argparse
import asyncio
import gc
import json
import re
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, cast
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import offset_bounds
from pipeline.clock import monotonic, now_ns
from schemas.blocks import Array
from schemas.codec import json_bytes
from schemas.topics import PRICES, SIGNALS
from tests.bench.live.feed import paced

_PREDICTIONS: Final = "predictions"
_DRAIN: Final = 3.0  # seconds after the last tick in which its rows may come
_READY: Final = 1.0
_FETCH: Final = 8 * 2**20
_MOVE: Final = 1e-4
_AT: Final = re.compile(
    rb'message\r\n\$\d+\r\nlatest:(\w+)\r\n\$\d+\r\n\{"at":"(\d{5})-(\d{20})-(\d{10})"[^\r]*\r\n'
)
Place = tuple[int, int, int]


class Ear(asyncio.Protocol):
    """A subscription to channels of Redis that keeps bytes as they come."""

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = channels
        self.chunks: list[tuple[float, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe."""
        # uvloop's transports are none by their class.
        writer = cast("asyncio.WriteTransport", transport)
        writer.write(f"SUBSCRIBE {' '.join(self._channels)}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Note the time."""
        self.chunks.append((monotonic(), data))

    def arrivals(self) -> dict[str, list[tuple[float, Place]]]:
        """Time and identity of every row, by stage."""
        ends = np.cumsum([len(data) for _, data in self.chunks]).tolist()
        found: dict[str, list[tuple[float, Place]]] = defaultdict(list)
        for one in _AT.finditer(b"".join(data for _, data in self.chunks)):
            at, _ = self.chunks[bisect_left(ends, one.end())]
            place = (int(one[2]), int(one[3]), int(one[4]))
            found[one[1].decode()].append((at, place))
        return found


class Reader:
    """An output topic, each record kept with the time at which it was readable."""

    def __init__(self, bootstrap: str, topic: str, partitions: Iterable[int]) -> None:
        self.topic = topic
        self.records: list[tuple[float, bytes]] = []
        self._places = [TopicPartition(topic, partition) for partition in partitions]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            max_partition_fetch_bytes=_FETCH,
        )

    async def start(self) -> None:
        """From the end on."""
        await self._consumer.start()
        self._consumer.assign(self._places)
        await self._consumer.seek_to_end(*self._places)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            found = await self._consumer.getmany(timeout_ms=1000)
            now = monotonic()
            self.records.extend((now, one.value) for part in found.values() for one in part)

    async def stop(self) -> None:
        """Close the connection."""
        await self._consumer.stop()

    def arrivals(self) -> list[tuple[float, Place]]:
        """Time and identity of every row."""
        found: list[tuple[float, Place]] = []
        for at, value in self.records:
            if self.topic == SIGNALS:
                row = json.loads(value)
                found.append((at, (row["partition"], row["offset"], row["index"])))
                continue
            block = pa.ipc.open_stream(value).read_all()
            columns = (block[name].to_pylist() for name in ("partition", "offset", "index"))
            found.extend((at, place) for place in zip(*columns, strict=True))
        return found


class Sender:
    """Messages of all symbols in turn; remembers when each was handed over."""

    def __init__(
        self,
        publisher: Publisher,
        ends: dict[int, int],
        partitions: Sequence[int],
        asked: argparse.Namespace,
    ) -> None:
        self._publisher = publisher
        self._partitions = partitions
        self.first = {partition: ends[partition] for partition in partitions}
        self.sent: dict[int, list[float]] = {partition: [] for partition in partitions}
        self._symbols = asked.symbols // len(partitions)
        self._ticks = asked.ticks
        self._walk = np.random.default_rng(1)
        self._levels = {partition: np.zeros(self._symbols) for partition in partitions}
        self._count = 0
        self._last: dict[int, asyncio.Future[Any]] = {}

    async def send(self) -> None:
        """One message."""
        partition = self._partitions[self._count % len(self._partitions)]
        first = self._count // len(self._partitions) * self._ticks
        self._count += 1
        now = now_ns()
        moves = self._walk.normal(0.0, _MOVE, self._ticks).tolist()
        level = self._levels[partition]
        ticks = []
        for number, move in enumerate(moves):
            symbol = (first + number) % self._symbols
            level[symbol] += move
            price = round(100.0 * (1.0 + float(level[symbol])), 4)
            name = f"P{partition}S{symbol}of{self._symbols}"
            ticks.append({"symbol": name, "ts": now + number, "price": price, "size": 1.0})
        record = Outgoing(PRICES, json_bytes(ticks), partition=partition)
        self.sent[partition].append(monotonic())
        self._last[partition] = await self._publisher.send(record)

    async def finish(self) -> None:
        """Wait for delivery; the offsets must be those that were counted."""
        await self._publisher.flush()
        for partition, delivery in self._last.items():
            at = self.first[partition] + len(self.sent[partition]) - 1
            assert (await delivery).offset == at

    def ticks_since(self, moment: float) -> int:
        """Ticks sent from a moment on."""
        return sum(
            self._ticks * (len(times) - bisect_left(times, moment)) for times in self.sent.values()
        )

    def delays(self, found: Sequence[tuple[float, Place]], moment: float) -> Array:
        """Milliseconds of the first arrival of each row of a tick sent from a moment on."""
        first: dict[Place, float] = {}
        for at, place in found:
            first.setdefault(place, at)
        delays = []
        for (partition, offset, _), at in first.items():
            number = offset - self.first.get(partition, sys.maxsize)
            if number >= 0 and (began := self.sent[partition][number]) >= moment:
                delays.append((at - began) * 1e3)
        return np.array(delays)


async def _pulse(asked: argparse.Namespace) -> dict[str, Any]:
    partitions = [int(text) for text in asked.partitions.split(",")]
    ends = {p: high for p, (_, high) in (await offset_bounds(asked.kafka, PRICES)).items()}
    readers = [Reader(asked.kafka, topic, ends) for topic in (_PREDICTIONS, SIGNALS)]
    channels = [f"latest:{_PREDICTIONS}", f"latest:{SIGNALS}"]
    redis = urlsplit(asked.redis)
    async with AsyncExitStack() as stack:
        for reader in readers:
            await reader.start()
            stack.push_async_callback(reader.stop)
        transport, ear = await asyncio.get_running_loop().create_connection(
            lambda: Ear(channels), redis.hostname, redis.port
        )
        stack.callback(transport.close)
        publisher = await stack.enter_async_context(Publisher(asked.kafka))
        sender = Sender(publisher, ends, partitions, asked)
        reading = [asyncio.ensure_future(reader.run()) for reader in readers]
        await asyncio.sleep(_READY)

        async def send(seconds: float) -> None:
            async for due in paced(asked.rate / asked.ticks, seconds):
                for _ in range(due):
                    await sender.send()

        gc.disable()
        begin = monotonic()
        spent = time.process_time()
        if asked.silence:
            await send(asked.warmup)
            await asyncio.sleep(asked.silence)
            moment = monotonic()
            await send(asked.seconds)
        else:
            moment = monotonic() + asked.warmup
            await send(asked.warmup + asked.seconds)
        await sender.finish()
        cores = (time.process_time() - spent) / (monotonic() - begin)
        await asyncio.sleep(_DRAIN)
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    topics: dict[str, list[tuple[float, Place]]] = defaultdict(list)
    for reader in readers:
        topics[reader.topic].extend(reader.arrivals())
    cached = ear.arrivals()
    routes = {f"topic {stage}": found for stage, found in topics.items()}
    routes |= {f"pub/sub {stage}": cached[stage] for stage in (_PREDICTIONS, SIGNALS)}
    return {
        "ticks": sender.ticks_since(moment),
        "cores": cores,
        "routes": {
            route: _summary(sender.delays(found, moment)) for route, found in routes.items()
        },
    }


def _summary(delays: Array) -> dict[str, float]:
    if not len(delays):
        return {"rows": 0}
    p50, p99, highest = np.percentile(delays, (50, 99, 100)).tolist()
    return {"rows": len(delays), "p50": p50, "p99": p99, "max": highest}


def main() -> None:
    """Run and write one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kafka")
    parser.add_argument("redis")
    parser.add_argument("--partitions", required=True)
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--ticks", type=int, default=10, help="of a message")
    parser.add_argument("--warmup", type=float, default=5.0)
    parser.add_argument("--silence", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_pulse(parser.parse_args()))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
