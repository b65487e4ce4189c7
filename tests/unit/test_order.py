"""The order of a run by several processes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.conftest import longest_first


@dataclass(frozen=True)
class Item:
    """A test of a file, perhaps with a time limit of its own."""

    path: Path
    seconds: float | None = None
    name: str = field(default="")

    def get_closest_marker(self, name: str) -> Any:
        """The mark with the limit."""
        assert name == "timeout"
        return None if self.seconds is None else pytest.mark.timeout(self.seconds).mark


def test_the_longest_file_comes_first() -> None:
    """By the longest limit of its tests, then by their number; a file's tests stay in order."""
    few, many, slow, slowest = map(Path, ("few", "many", "slow", "slowest"))
    items = [
        Item(few), Item(many, name="a"), Item(slow, 240), Item(many, name="b"),
        Item(slowest, name="c"), Item(slowest, 600), Item(slow, 180), Item(many, name="d"),
    ]  # fmt: skip
    found = [cast("Item", item) for item in longest_first(cast("list[pytest.Item]", items))]
    assert [item.path for item in found] == [slowest] * 2 + [slow] * 2 + [many] * 3 + [few]
    assert "".join(item.name for item in found) == "cabd"
