"""One partition in the hands of a worker: its chain, its mark, and what a batch makes of it."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import numpy as np

from agents.outputs import block_records, gap_records, reject_records
from agents.ports import Arrived, Stepped
from pipeline.bus.decoding import new_decoder
from pipeline.models.following import Offer
from pipeline.stages.base import grown
from pipeline.stages.boosted import Activated
from pipeline.stages.chain import Chain, ChainSettings
from pipeline.store.live import PartitionBatch
from schemas.arrivals import Message, Reject
from schemas.blocks import Array
from schemas.codec import element_bytes
from schemas.models import Activation
from schemas.ticks import COUNTED, REASONS

# The last count, of accepted ticks, changes with every batch: the rows themselves tell it.
_TOLD: Final = len(COUNTED) - 1


class OwnedPartition:
    """A partition that we claimed; messages below `next_offset` are in its state already."""

    def __init__(self, settings: ChainSettings, partition: int, epoch: int) -> None:
        self.partition = partition
        self.epoch = epoch
        self.next_offset = 0
        self.snapshot_offset = -1
        self.published = 0
        self._settings = settings
        self._decoder = new_decoder(partition)
        self._chain = Chain(settings, partition)
        self._known_symbols = 0
        # What was rejected and noticed, as told last: without a readable symbol, and by symbol.
        self._unread: Array = np.zeros(len(REASONS), np.int64)
        self._counts: Array = np.zeros((0, _TOLD), np.int64)

    @property
    def symbols(self) -> Sequence[str]:
        """Symbols seen on this partition."""
        return self._chain.ticks.symbols

    @property
    def activation(self) -> Activation | None:
        """The last one that is planned or applied."""
        return self._chain.activation

    def plan(self, activated: Sequence[Activated]) -> None:
        """Apply these at their places; those that are in the state are known."""
        last = self.activation
        for one in activated:
            if last is None or one.activation.place > last.place:
                self._chain.plan(one)

    def restore(self, offset: int, data: bytes) -> None:
        """Continue from a snapshot taken after `offset`.

        Raises:
            StateError: the snapshot is damaged or of other settings.
        """
        self._chain.restore(data)
        self.next_offset = offset + 1
        self.snapshot_offset = offset

    def reset(self) -> None:
        """Start from nothing."""
        self._chain = Chain(self._settings, self.partition)
        self.next_offset = 0
        self.snapshot_offset = -1

    def copied(self) -> Callable[[], bytes]:
        """A copy of the state behind `next_offset` - 1; packing it may happen in a thread."""
        return self._chain.copied()

    def catch_up(self, arrived: Sequence[Arrived]) -> None:
        """Step messages whose rows are stored already: only the state moves."""
        fresh = [a.message for a in arrived if a.message.offset >= self.next_offset]
        if fresh:
            self._chain.step(*self._decoder.decode(fresh))
            self.next_offset = fresh[-1].offset + 1

    def settled(self) -> None:
        """What is in the state now was stored: count facts from here on."""
        self._known_symbols = len(self.symbols)
        self._unread = self._chain.ticks.unread()
        self._counts = self._chain.ticks.counts()[:, :_TOLD]

    def step(self, arrived: Sequence[Arrived], offer: Offer | None = None) -> Stepped | None:
        """Run new messages through the chain, by these versions from the first of them on.

        None if all of them were known.
        """
        fresh = [a for a in arrived if a.message.offset >= self.next_offset]
        if not fresh:
            return None
        messages = [a.message for a in fresh]
        activated = None if offer is None else offer.at(messages[0].offset)
        if activated is not None:
            self._chain.plan(activated)
        block = self._chain.step(*self._decoder.decode(messages))
        self.next_offset = messages[-1].offset + 1
        rejects = _with_bytes(messages, block.rejects)
        quality = self._quality(rejected=bool(rejects))
        new = self.symbols[self._known_symbols :]
        self._known_symbols += len(new)
        batch = PartitionBatch(
            partition=self.partition,
            epoch=self.epoch,
            mark=self.next_offset - 1,
            rows=block.rows,
            rejects=rejects,
            symbols=tuple(new),
            quality=quality,
            activation=None if activated is None else activated.activation,
        )
        keys = {a.message.offset: a.key for a in fresh if rejects}
        records = [
            *block_records(self.partition, block.rows),
            *reject_records(self.partition, rejects, keys),
            *gap_records(self.partition, block.gaps),
        ]
        return Stepped(batch, records)

    def _quality(self, *, rejected: bool) -> list[tuple[str, str, int]]:
        """Counts by symbol and reason that this batch changed, as absolute values, told for good.

        Only what was rejected may have had no readable symbol.
        """
        ticks, names = self._chain.ticks, self.symbols
        found: list[tuple[str, str, int]] = []
        if rejected:
            unread = ticks.unread()
            places = np.flatnonzero(unread != self._unread).tolist()
            found += [("", COUNTED[r], int(unread[r])) for r in places]
            self._unread = unread
        self._counts = grown(self._counts, len(names), 0)
        rows = ticks.touched()
        now = ticks.counts_of(rows)[:, :_TOLD]
        changed = now != self._counts[rows]
        if np.count_nonzero(changed):
            pairs = np.argwhere(changed).tolist()
            found += [(names[int(rows[i])], COUNTED[r], int(now[i, r])) for i, r in pairs]
            self._counts[rows] = now
        return found


def _with_bytes(
    messages: Sequence[Message], rejects: Sequence[Reject]
) -> list[tuple[Reject, bytes]]:
    if not rejects:
        return []
    values = {message.offset: message.value or b"" for message in messages}
    ordered = sorted(rejects, key=lambda reject: (reject.offset, reject.index))
    found: list[tuple[Reject, bytes]] = []
    for offset, group in groupby(ordered, key=lambda reject: reject.offset):
        mine = list(group)
        parts = element_bytes(values[offset], [reject.index for reject in mine])
        found += zip(mine, parts, strict=True)
    return found
