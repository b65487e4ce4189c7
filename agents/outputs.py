"""What a batch publishes: one block per stage and partition, one message per signal or reject."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pipeline.bus.encoding import block_bytes, row_bytes
from pipeline.bus.publisher import Outgoing
from schemas.alerts import gap_document
from schemas.arrivals import Gap, Reject
from schemas.blocks import Rows
from schemas.codec import json_bytes
from schemas.topics import ALERTS, BLOCK_TOPICS, PRICES, REJECTED, SIGNALS

_BLOCK_ROWS: Final = 16_384  # a block of the widest stage stays far below a message's limit


def gap_records(partition: int, gaps: Sequence[Gap]) -> Iterator[Outgoing]:
    """An alert for every run of trade ids that is missing."""
    for gap in gaps:
        yield Outgoing(ALERTS, json_bytes(gap_document(gap, partition)), gap.symbol.encode())


def block_records(partition: int, rows: Mapping[str, Rows]) -> Iterator[Outgoing]:
    """The rows of a partition for their topics, on the partition of the same number."""
    key = str(partition).encode()
    for stage in BLOCK_TOPICS:
        whole = rows[stage]
        for start in range(0, len(whole), _BLOCK_ROWS):
            part = whole
            if len(whole) > _BLOCK_ROWS:
                part = whole.take(slice(start, start + _BLOCK_ROWS))
            yield Outgoing(stage, block_bytes(part), key, partition)
    signals = rows[SIGNALS]
    for code, value in zip(signals["symbol"].tolist(), row_bytes(signals), strict=True):
        yield Outgoing(SIGNALS, value, signals.symbols[code].encode())


def reject_records(
    partition: int, rejects: Sequence[tuple[Reject, bytes]], keys: Mapping[int, bytes | None]
) -> Iterator[Outgoing]:
    """Rejected bytes with the reason and the coordinates in their headers."""
    for reject, value in rejects:
        headers = {
            "reason": reject.reason.value,
            "detail": reject.detail,
            "topic": PRICES,
            "partition": str(partition),
            "offset": str(reject.offset),
            "index": str(reject.index),
        }
        yield Outgoing(
            REJECTED,
            value,
            keys.get(reject.offset),
            partition,
            [(name, text.encode()) for name, text in headers.items()],
        )
