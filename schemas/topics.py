"""The topics: their names, keys, values and settings."""

from dataclasses import dataclass
from typing import Final

from schemas.blocks import STAGES

PRICES: Final = "prices"
REJECTED: Final = "prices.rejected"
SIGNALS: Final = "signals"
ALERTS: Final = "alerts"
MODELS: Final = "models"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: what its key and value are, and how it is kept."""

    name: str
    key: str
    value: str
    compacted: bool = False
    partitioned: bool = True  # as many partitions as `prices`; otherwise one


_BLOCKS: Final = tuple(stage for stage in STAGES if stage not in {"ticks", SIGNALS})

TOPICS: Final[tuple[Topic, ...]] = (
    Topic(
        PRICES,
        "chosen by the publisher",
        "JSON tick, JSON array of ticks, or Arrow IPC stream of ticks",
    ),
    Topic(
        REJECTED,
        "as came",
        "the original bytes; headers reason, detail, topic, partition, offset, index",
    ),
    *(Topic(stage, "source partition", "Arrow IPC stream, one block") for stage in _BLOCKS),
    Topic(SIGNALS, "symbol", "JSON, one signal"),
    Topic(
        MODELS, "model name", "JSON, the version that is active", compacted=True, partitioned=False
    ),
    Topic(ALERTS, "symbol", "JSON", partitioned=False),
)
BLOCK_TOPICS: Final = _BLOCKS
