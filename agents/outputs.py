"""What a batch publishes: one block per stage and partition, one message per signal or reject."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.bus.publisher import Outgoing
from schemas.arrivals import Reject
from schemas.blocks import Rows
from schemas.codec import block_bytes, json_bytes, row_documents
from schemas.topics import BLOCK_TOPICS, PRICES, REJECTED, SIGNALS


def block_records(partition: int, rows: Mapping[str, Rows]) -> Iterator[Outgoing]:
    """The rows of a partition for their topics, on the partition of the same number."""
    key = str(partition).encode()
    for stage in BLOCK_TOPICS:
        if len(rows[stage]):
            yield Outgoing(stage, block_bytes(rows[stage]), key, partition)
    for document in row_documents(rows[SIGNALS]):
        yield Outgoing(SIGNALS, json_bytes(document), document["symbol"].encode())


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
