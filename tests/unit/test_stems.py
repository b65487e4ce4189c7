"""The stem rule: one word per stage, the same in every room; and tables with the columns of code.

It is part of `make check`, so it imports little and starts nothing.
"""

import re
from pathlib import Path

import pytest

from pipeline.cache.latest import KEYS
from pipeline.stages.chain import Chain, ChainSettings
from schemas.blocks import COLUMNS, STAGES, Column
from schemas.topics import TOPICS

ROOT = Path(__file__).resolve().parents[2]
CHAIN = ("ticks", "bars", "features", "regimes", "predictions", "signals", "fills", "equity")
# No stage, but what they share, and what a user adds to them.
SHARED_STAGES = {"__init__", "base", "boosted", "chain", "custom", "engines", "selection", "user"}
NO_STAGE_TOPICS = {"prices", "prices.rejected", "models", "alerts"}
# One row of a stage is spoken of in the singular; a latest tick is what people call a price.
ONE = {
    "ticks": "price",
    "bars": "bar",
    "features": "features",
    "regimes": "regime",
    "predictions": "prediction",
    "signals": "signal",
    "fills": "fill",
    "equity": "equity",
}
_TABLE = re.compile(r"^CREATE TABLE (\w+) \((.*?)^\)([^;]*);", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r'^\s+"?(\w+)"? ([a-z ]+?)( NOT NULL)?( DEFAULT .*)?,?$', re.MULTILINE)
_ADDED = re.compile(
    r'ADD COLUMN "(\w+)" ([a-z ]+?)( NOT NULL)?( DEFAULT \w+)?(?:,|$)', re.MULTILINE
)
_TYPES = {
    "int64": "bigint",
    "int32": "integer",
    "float64": "double precision",
    "symbol": "text",
    "label": "text",
}


def stems(folder: str, pattern: str = "*.py") -> set[str]:
    """The words of a room."""
    return {path.stem for path in (ROOT / folder).glob(pattern)}


def sql() -> str:
    """All migrations, in order."""
    folder = ROOT / "pipeline" / "store" / "migrations"
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.sql")))


def tables() -> dict[str, str]:
    """The columns of every table that is partitioned by day, as text."""
    return {name: body for name, body, tail in _TABLE.findall(sql()) if "PARTITION BY" in tail}


def test_the_stages_are_the_chain_of_the_design() -> None:
    """Columns, and the chain that runs, name the stages in the order of the data."""
    assert STAGES == CHAIN
    running = [stage.name for stage in Chain(ChainSettings()).stages]
    assert tuple(name for name in running if name != "custom") == STAGES  # it only adds columns


@pytest.mark.parametrize("folder", ["pipeline/kernels", "pipeline/stages"])
def test_every_stage_has_its_file(folder: str) -> None:
    """The word of a stage is the name of its file."""
    assert set(STAGES) <= stems(folder)


def test_no_other_file_poses_as_a_stage() -> None:
    """The room of the stages holds them and what they share, nothing else."""
    assert stems("pipeline/stages") == {*STAGES, *SHARED_STAGES}


def test_every_stage_has_its_tests() -> None:
    """`tests/unit/stages/test_<stage>.py`, one for each."""
    assert {f"test_{stage}" for stage in (*STAGES, "chain")} <= stems("tests/unit/stages")


def test_every_stage_has_its_topic() -> None:
    """Ticks come from `prices`; every later stage has a topic of its own name."""
    assert {topic.name for topic in TOPICS} - NO_STAGE_TOPICS == set(STAGES) - {"ticks"}


def test_every_stage_has_its_table() -> None:
    """The tables of daily partitions are the stages; each has its view with readable times."""
    assert set(tables()) == set(STAGES)
    assert set(re.findall(r"CREATE VIEW (\w+)_at", sql())) == set(STAGES)


def test_every_stage_has_its_key() -> None:
    """Cache keys say what one row is called."""
    assert dict(KEYS) == ONE


def test_every_stage_has_its_type() -> None:
    """`schemas/graphql/<stage>.graphql` defines the type that one row is called by."""
    assert set(STAGES) <= stems("schemas/graphql", "*.graphql")
    for stage in STAGES:
        text = (ROOT / "schemas" / "graphql" / f"{stage}.graphql").read_text()
        assert re.findall(r"^type (\w+)", text, re.MULTILINE)[0] == ONE[stage].capitalize()


def ddl(column: Column) -> tuple[str, str, bool]:
    """A column as the table must have it: name, type, NOT NULL."""
    return column.name, _TYPES[column.kind], column.kind not in {"float64", "label"}


@pytest.mark.parametrize("stage", STAGES)
def test_tables_have_the_columns_of_the_code(stage: str) -> None:
    """Names, types and nullability, the run and the day of writing among them."""
    found = _FIELD.findall(tables()[stage])
    for body in re.findall(rf"^ALTER TABLE {stage}\n(.*?);", sql(), re.MULTILINE | re.DOTALL):
        found += _ADDED.findall(body)
    fields = [(name, kind, bool(must)) for name, kind, must, _ in found]
    assert len(set(fields)) == len(fields)
    assert set(fields) == {
        *map(ddl, COLUMNS[stage]),
        ("run", "integer", True),
        ("written_on", "date", True),
    }
