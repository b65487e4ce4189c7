"""What the tests of replay leave behind: nothing."""

from collections.abc import Iterator

import pytest

from schemas import blocks


@pytest.fixture(autouse=True)
def _columns_as_before() -> Iterator[None]:
    """A user's columns live as long as the process; other tests know none of them."""
    before = blocks._COLUMNS["features"]
    yield
    blocks._COLUMNS["features"] = before
