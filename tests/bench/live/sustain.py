"""Ticks at a rate for so long, by a process of its own: JSON arrays of 100 ticks.

python -m tests.bench.live.sustain KAFKA PARTITIONS RATE SECONDS
"""

import asyncio
import sys
from itertools import islice
from typing import Final

import uvloop

from pipeline.bus.publisher import Publisher
from tests.bench.live.feed import Framing, Market, paced

FRAMING: Final = Framing(100)


async def _sustain(kafka: str, partitions: int, rate: float, seconds: float) -> None:
    messages = Market(FRAMING, partitions).messages()
    async with Publisher(kafka) as publisher:
        async for due in paced(rate / FRAMING.ticks, seconds):
            await publisher.deliver(islice(messages, due))


def main() -> None:
    """Publish."""
    kafka, partitions, rate, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_sustain(kafka, int(partitions), float(rate), float(seconds)))


if __name__ == "__main__":
    main()
