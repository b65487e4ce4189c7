"""What the topic `alerts` carries: JSON documents, one an event."""

from typing import Any

from schemas.arrivals import Gap
from schemas.times import format_rfc3339


def gap_document(gap: Gap, partition: int) -> dict[str, Any]:
    """Missing trade ids as an alert; `partition` is the one of `prices`, `time` in RFC 3339."""
    return {
        "kind": "id_gap",
        "symbol": gap.symbol,
        "time": format_rfc3339(gap.ts),
        "from_id": gap.from_id,
        "to_id": gap.to_id,
        "missing": gap.missing,
        "partition": partition,
        "offset": gap.offset,
        "index": gap.index,
    }
