"""The documents of the topic `alerts`."""

import json

from schemas.alerts import gap_document, parity_document
from schemas.arrivals import Gap
from schemas.codec import json_bytes

NANOS = 1_700_000_000_123_456_789


def test_a_gap_is_told_in_full() -> None:
    """Every field of the document, as any reader of JSON gets it; ids keep all 63 bits."""
    document = gap_document(Gap(70, 3, "BTCUSDT", NANOS, 2**62, 2**62 + 9), 2)
    assert json.loads(json_bytes(document)) == {
        "kind": "id_gap",
        "symbol": "BTCUSDT",
        "time": "2023-11-14T22:13:20.123456789Z",
        "from_id": 2**62,
        "to_id": 2**62 + 9,
        "missing": 10,
        "partition": 2,
        "offset": 70,
        "index": 3,
    }


def test_a_difference_is_told_in_full() -> None:
    """Both values come back bit for bit; null stays null."""
    told = parity_document(
        stage="fills",
        symbol="ES",
        ts=NANOS,
        partition=1,
        offset=70,
        index=3,
        column="price",
        live=0.1 + 0.2,
        replayed=None,
    )
    assert json.loads(json_bytes(told)) == {
        "kind": "parity",
        "symbol": "ES",
        "time": "2023-11-14T22:13:20.123456789Z",
        "stage": "fills",
        "column": "price",
        "live": 0.30000000000000004,
        "replayed": None,
        "partition": 1,
        "offset": 70,
        "index": 3,
    }
