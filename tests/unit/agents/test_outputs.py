"""Records of a batch against the plain definition of their values."""

import numpy as np
import pytest

from agents.outputs import block_records
from pipeline.bus.publisher import Outgoing
from schemas.blocks import STAGES, Rows, empty
from schemas.codec import block_bytes, json_bytes, row_documents
from schemas.topics import BLOCK_TOPICS, SIGNALS

SYMBOLS = ["A", "BTC-USD"]


def filled(stage: str, n: int) -> Rows:
    """Rows of two symbols, told apart by their offsets."""
    rows = empty(stage, n, SYMBOLS)
    rows.columns["symbol"][:] = np.arange(n) % 2
    rows.columns["offset"][:] = np.arange(n)
    return rows


def test_blocks_by_stage_and_signals_by_row() -> None:
    """A block has the partition as key, a signal its symbol; a stage without rows has no block."""
    rows = {stage: filled(stage, 3) for stage in STAGES} | {"regimes": empty("regimes")}
    assert list(block_records(7, rows)) == [
        *(
            Outgoing(stage, block_bytes(rows[stage]), b"7", 7)
            for stage in BLOCK_TOPICS
            if stage != "regimes"
        ),
        *(
            Outgoing(SIGNALS, json_bytes(document), document["symbol"].encode())
            for document in row_documents(rows[SIGNALS])
        ),
    ]


def test_nothing_came() -> None:
    """A batch without rows publishes nothing."""
    assert list(block_records(0, {stage: empty(stage) for stage in STAGES})) == []


@pytest.mark.parametrize("n", [16_384, 16_385])
def test_a_long_block_is_split(n: int) -> None:
    """A message stays far below a broker's limit."""
    rows = {stage: empty(stage) for stage in STAGES} | {"bars": filled("bars", n)}
    values = [record.value for record in block_records(0, rows)]
    cuts = [slice(0, 16_384), slice(16_384, n)][: len(values)]
    assert values == [block_bytes(rows["bars"].take(cut)) for cut in cuts]
    assert len(values) == 1 + (n > 16_384)
