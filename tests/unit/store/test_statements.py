"""Statements over the tables of stages."""

from collections.abc import Iterator

import pytest

from pipeline.store.statements import stage_statement
from schemas import blocks
from schemas.blocks import Column


@pytest.fixture
def joined() -> Iterator[None]:
    """A user's column joins the features after statements were made."""
    before = blocks._COLUMNS["features"]
    stage_statement("range", "features")
    blocks.extend("features", [Column("mine", "float64", "1", "A user's own.")])
    yield
    blocks._COLUMNS["features"] = before


@pytest.mark.usefixtures("joined")
def test_columns_that_joined_later_are_read() -> None:
    """As in a notebook that names its features after a first look."""
    assert '"mine"' in stage_statement("range", "features")
    assert '"mine"' not in stage_statement("range", "bars")


def test_only_stages_have_tables() -> None:
    """The name of a table never comes from outside."""
    with pytest.raises(ValueError, match="no stage"):
        stage_statement("range", "ticks; DROP TABLE ticks")
