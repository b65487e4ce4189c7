"""What the topic `alerts` carries: JSON documents, one an event."""

from datetime import datetime
from typing import Any, Final

import msgspec

from schemas.arrivals import Gap
from schemas.times import format_rfc3339

LARGEST: Final = 65_536  # bytes


def read_alert(value: bytes) -> dict[str, Any]:
    """The document of a message of `alerts`; it has a `kind`.

    Raises:
        ValueError: it is none, or larger than an alert may be.
    """
    if len(value) > LARGEST:
        raise ValueError(f"{len(value):,} bytes are more than an alert may have")
    try:
        found = msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise ValueError("no JSON") from error
    match found:
        case {"kind": str()}:
            return dict(found)
    raise ValueError("no object with a kind")


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


def parity_document(
    *,
    stage: str,
    symbol: str,
    ts: int,
    partition: int,
    offset: int,
    index: int,
    column: str,
    live: Any,
    replayed: Any,
) -> dict[str, Any]:
    """A stored live row that is not what a replay makes of the same message, as an alert.

    `ts` (ns) is the row's time; null is a null, or with the column `(whole row)` no row at all.
    """
    return {
        "kind": "parity",
        "symbol": symbol,
        "time": format_rfc3339(ts),
        "stage": stage,
        "column": column,
        "live": live,
        "replayed": replayed,
        "partition": partition,
        "offset": offset,
        "index": index,
    }


def drift_document(
    *,
    kind: str,
    name: str,
    symbol: str,
    change: str,
    since: int,
    ts: int,
    partition: int,
    offset: int,
    index: int,
    evidence: float,
    looked: int,
    stride: int,
) -> dict[str, Any]:
    """A feature, or the loss of an engine (`kind`), that is no longer what it was, as an alert.

    `time` is that of the row that made it certain, `since` when the change seems to have begun.
    `evidence` is at most 1 in the mean while nothing changes, of an engine at most `looked`; so
    many values, one in `stride`, were compared.
    """
    return {
        "kind": "drift",
        "symbol": symbol,
        "time": format_rfc3339(ts),
        "of": kind,
        "name": name,
        "change": change,
        "since": format_rfc3339(since),
        "evidence": evidence,
        "looked": looked,
        "stride": stride,
        "partition": partition,
        "offset": offset,
        "index": index,
    }


def rollback_document(
    *,
    model: str,
    generation: int,
    version: str,
    former: str,
    n: int,
    live_log_loss: float,
    shadow_log_loss: float,
    standard_error: float,
    why: str,
    at: datetime,
) -> dict[str, Any]:
    """A promotion that was rolled back, as the version before it did better on the stream.

    `generation` and `version` are those of the promotion; mean log losses in nats of both on n
    rows, and the standard error of their difference. `former` is active again since `at`.
    """
    return {
        "kind": "model_rolled_back",
        "model": model,
        "version": version,
        "generation": generation,
        "active": former,
        "n": n,
        "live_log_loss": live_log_loss,
        "shadow_log_loss": shadow_log_loss,
        "standard_error": standard_error,
        "why": why,
        "time": at.isoformat(),
    }


def refusal_document(model: str, version: str, why: str, ts: int) -> dict[str, Any]:
    """A version that did not become active, as an alert; the one before it stays. `ts` in ns."""
    return {
        "kind": "model_refused",
        "model": model,
        "version": version,
        "why": why,
        "time": format_rfc3339(ts),
    }
