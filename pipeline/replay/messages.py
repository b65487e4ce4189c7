"""Messages of a stretch of `prices`, decoded in portions of bounded size, with their digest."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

import numpy as np

from pipeline.bus.decoding import new_decoder
from pipeline.bus.ranges import Range, read_ranges
from pipeline.replay.merging import Portion, Portions
from schemas.arrivals import Arrivals, Message, Reject
from schemas.topics import PRICES

Read = Callable[[int, Range], AsyncGenerator[list[Message], None]]  # of a partition, in order
_GATHER: Final = 2000  # messages
_BYTES: Final = 4 * 1024 * 1024


def from_broker(bootstrap: str, topic: str = PRICES) -> Read:
    """Reading from the topic itself, in no consumer group."""

    async def read(partition: int, span: Range) -> AsyncGenerator[list[Message], None]:
        async with aclosing(read_ranges(bootstrap, topic, {partition: span})) as found:
            async for _, messages in found:
                yield messages

    return read


class Digest:
    """SHA-256 of messages: offsets, record times and lengths (int64), then all bytes.

    It does not depend on how the messages are grouped.
    """

    def __init__(self) -> None:
        self._heads = hashlib.sha256()
        self._values = hashlib.sha256()
        self.messages = 0

    def update(self, messages: Sequence[Message]) -> None:
        """Add messages."""
        values = [message.value or b"" for message in messages]
        heads = [(m.offset, m.received, -1 if m.value is None else len(m.value)) for m in messages]
        self._heads.update(np.array(heads, "<i8").tobytes())
        self._values.update(b"".join(values))
        self.messages += len(messages)

    def hexdigest(self) -> str:
        """The digest so far."""
        return hashlib.sha256(self._heads.digest() + self._values.digest()).hexdigest()


class Stream:
    """One partition's messages as portions of at most `block` ticks, counted and digested."""

    def __init__(self, read: Read, partition: int, span: Range, block: int) -> None:
        self._read = read
        self._partition = partition
        self._span = span
        self._block = block
        self._digest = Digest()
        self.next = span[0]

    async def portions(self) -> Portions:
        """The portions, in order."""
        decoder = new_decoder(self._partition)
        async with aclosing(self._read(self._partition, self._span)) as found:
            async for messages in found:
                self._digest.update(messages)
                for group in groups(messages, min(self._block, _GATHER)):
                    came, rejects = decoder.decode(group)
                    for portion in cut(came, rejects, self._block):
                        yield portion
                    self.next = group[-1].offset + 1
        self.next = self._span[1]

    def facts(self) -> dict[str, Any]:
        """What the manifest says about this input."""
        low, high = self._span
        return {
            "partition": self._partition,
            "from": low,
            "to": high,
            "messages": self._digest.messages,
            "sha256": self._digest.hexdigest(),
        }


def groups(messages: list[Message], most: int) -> Iterator[list[Message]]:
    """Messages in groups of at most so many and of some megabytes."""
    group: list[Message] = []
    size = 0
    for message in messages:
        length = len(message.value or b"")
        if group and (len(group) >= most or size + length > _BYTES):
            yield group
            group, size = [], 0
        group.append(message)
        size += length
    if group:
        yield group


def cut(came: Arrivals, rejects: Sequence[Reject], block: int) -> Iterator[Portion]:
    """Ticks in portions, what was turned away beside the ticks that it stood before."""
    left = sorted(rejects, key=lambda reject: (reject.offset, reject.index))
    for start in range(block, len(came), block):
        place = int(came["offset"][start]), int(came["index"][start])
        now = [reject for reject in left if (reject.offset, reject.index) < place]
        left = left[len(now) :]
        yield came.slice(start - block, start), now
    yield came.slice((len(came) - 1) // block * block if len(came) else 0, len(came)), left
