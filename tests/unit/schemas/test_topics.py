"""The topics of DESIGN 3."""

from schemas.blocks import STAGES
from schemas.topics import BLOCK_TOPICS, PRICES, REJECTED, SIGNALS, TOPICS


def test_every_stage_but_ticks_has_its_topic() -> None:
    """Blocks for all stages after ticks, JSON for signals, and the four that are no stage."""
    names = [topic.name for topic in TOPICS]
    assert len(set(names)) == len(names)
    assert set(BLOCK_TOPICS) == set(STAGES) - {"ticks", SIGNALS}
    assert set(names) == {PRICES, REJECTED, "models", "alerts", SIGNALS, *BLOCK_TOPICS}


def test_topics_that_follow_prices_are_partitioned_like_it() -> None:
    """A row goes to the partition of the same number, so only models and alerts have one."""
    assert {t.name for t in TOPICS if not t.partitioned} == {"models", "alerts"}


def test_only_models_is_compacted() -> None:
    """A promotion must outlive retention; all else is a stream."""
    assert [t.name for t in TOPICS if t.compacted] == ["models"]
