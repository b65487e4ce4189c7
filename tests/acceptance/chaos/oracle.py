"""The clean replay: the product's chain in this process over the topic, without any fault."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.bus.ranges import Range, read_ranges
from pipeline.stages.chain import Chain, ChainSettings
from schemas.arrivals import Message
from schemas.blocks import STAGES, to_arrow
from schemas.codec import Decoder, element_bytes
from schemas.ticks import COUNTED, REASONS
from schemas.topics import PRICES
from tests.acceptance.evidence import Row

Identity = tuple[int, int, int]
Turned = tuple[str, str, bytes]  # reason, detail, bytes


@dataclass(slots=True)
class Expected:
    """What a stretch of the topic must have made."""

    ranges: Mapping[int, Range]
    messages: dict[tuple[int, int], bytes] = field(default_factory=dict)
    rows: dict[str, dict[Identity, Row]] = field(
        default_factory=lambda: {stage: {} for stage in STAGES}
    )
    rejects: dict[Identity, Turned] = field(default_factory=dict)


class Oracle:
    """Chains that carry their state from run to run: each run replays its own messages only."""

    def __init__(self, settings: ChainSettings, partitions: int) -> None:
        self._chains = {number: Chain(settings, number) for number in range(partitions)}
        self._next = dict.fromkeys(range(partitions), 0)

    async def advance(self, bootstrap: str, ends: Mapping[int, int]) -> Expected:
        """Replay up to these ends."""
        ranges = {number: (self._next[number], end) for number, end in ends.items()}
        expected = Expected(ranges)
        async for partition, messages in read_ranges(bootstrap, PRICES, ranges):
            self._step(partition, messages, expected)
        self._next.update(ends)
        return expected

    def _step(self, partition: int, messages: list[Message], expected: Expected) -> None:
        block = self._chains[partition].step(*Decoder(partition).decode(messages))
        values = {message.offset: message.value or b"" for message in messages}
        expected.messages.update({(partition, offset): v for offset, v in values.items()})
        for stage, rows in block.rows.items():
            for row in to_arrow(rows).to_pylist():
                expected.rows[stage][row["partition"], row["offset"], row["index"]] = row
        for reject in block.rejects:
            (value,) = element_bytes(values[reject.offset], [reject.index])
            place = (partition, reject.offset, reject.index)
            expected.rejects[place] = (reject.reason.value, reject.detail, value)

    def quality(self) -> dict[tuple[int, str, str], int]:
        """Every count that is not zero, of all that was replayed, by partition, symbol, reason."""
        found = {}
        for partition, chain in self._chains.items():
            counts = {"": chain.ticks.unread()[: len(REASONS)].tolist()}
            counts |= dict(zip(chain.ticks.symbols, chain.ticks.counts().tolist(), strict=True))
            for symbol, row in counts.items():
                for reason, count in zip(COUNTED[:-1], row, strict=False):
                    if count:
                        found[partition, symbol, reason] = int(count)
        return found
