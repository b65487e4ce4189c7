"""Rows of every stage through Arrow and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import blocks
from schemas.blocks import (
    COLUMNS,
    SCHEMA_VERSION,
    STAGES,
    Column,
    Rows,
    arrow_schema,
    empty,
    from_arrow,
    names_of,
)
from schemas.blocks import to_arrow as arrow_of
from schemas.codec import block_bytes, row_documents
from tests.fixtures.ticks import bits, values

FLOATS = (0.0, -0.0, 5e-324, -1.7976931348623157e308, 0.1, float("nan"), 1e-300)


def sample(stage: str, n: int, seed: int = 0, symbols: Sequence[str] = ("A", "B", "C")) -> Rows:
    """Rows with every awkward value in every column that may hold it."""
    rng = np.random.default_rng(seed)
    rows = empty(stage, n, symbols)
    for column in COLUMNS[stage]:
        into = rows.columns[column.name]
        if column.kind == "float64":
            into[:] = rng.choice(np.array(FLOATS), n)
        elif column.kind == "label":
            into[:] = rng.integers(-1, len(column.labels), n)
        elif column.kind == "symbol":
            into[:] = rng.integers(0, len(symbols), n)
        else:
            info = np.iinfo(into.dtype)
            into[:] = rng.integers(info.min, info.max, n)
    return rows


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", [0, 1, 50])
def test_rows_come_back_from_arrow_bit_for_bit(stage: str, n: int) -> None:
    """Nulls, NaN, minus zero and denormals of every column survive, as a batch and as a table."""
    rows = sample(stage, n)
    batch = arrow_of(rows)
    for form in (batch, pa.Table.from_batches([batch])):
        back = from_arrow(stage, form)
        assert len(back) == n
        for name in names_of(stage):
            assert values(back, name).tobytes() == values(rows, name).tobytes(), name
            assert back[name].dtype == rows[name].dtype


@pytest.mark.parametrize("stage", STAGES)
def test_null_in_arrow_is_nan_or_no_label(stage: str) -> None:
    """Arrow readers see null where we hold NaN or -1, words for codes, numbers as they are."""
    rows = sample(stage, 40)
    table = arrow_of(rows).to_pandas()
    for column in COLUMNS[stage]:
        ours, theirs = rows[column.name], table[column.name]
        if column.kind == "label":
            words = [column.labels[code] if code >= 0 else None for code in ours]
            assert [None if pd.isna(word) else word for word in theirs] == words
        elif column.kind == "symbol":
            assert list(theirs) == [rows.symbols[code] for code in ours]
        else:
            assert theirs.to_numpy().tobytes() == ours.tobytes()


@pytest.mark.parametrize("stage", STAGES)
def test_the_schema_says_what_it_carries(stage: str) -> None:
    """Stage and version stand in the metadata, unit and meaning in every field."""
    schema = pa.ipc.open_stream(block_bytes(sample(stage, 2))).schema
    assert schema.metadata == {
        b"stage": stage.encode(),
        b"schema_version": str(SCHEMA_VERSION).encode(),
    }
    assert schema.names == list(names_of(stage))
    for field, column in zip(schema, COLUMNS[stage], strict=True):
        assert field.metadata[b"unit"] == column.unit.encode()
        assert field.metadata[b"meaning"] == column.meaning.encode()
        assert field.nullable == (column.kind in {"float64", "label"})
    assert schema.equals(arrow_schema(stage))


def test_columns_are_taken_by_name() -> None:
    """Another order and columns that we do not know change nothing; a missing one is named."""
    rows = sample("regimes", 5)
    table = pa.Table.from_batches([arrow_of(rows)])
    shuffled = table.select(table.column_names[::-1]).append_column("x", [list(range(5))])
    assert values(from_arrow("regimes", shuffled), "vol_low").tobytes() == rows["vol_low"].tobytes()
    with pytest.raises(KeyError, match="vol_high"):
        from_arrow("regimes", table.drop(["vol_high"]))


def test_a_table_of_many_chunks_is_one_run_of_rows() -> None:
    """Concatenated blocks with other symbols in another order keep their words."""
    parts = [sample("bars", 7, 1, ("A", "B")), sample("bars", 5, 2, ("B", "Z", "A"))]
    table = pa.concat_tables([pa.Table.from_batches([arrow_of(part)]) for part in parts])
    back = from_arrow("bars", table)
    for name in names_of("bars"):
        joined = b"".join(
            values(part, name).astype(values(back, name).dtype).tobytes() for part in parts
        )
        assert values(back, name).tobytes() == joined


def test_empty_rows_are_null_everywhere() -> None:
    """Unfilled rows are NaN and -1, so a forgotten column shows as null."""
    rows = empty("ticks", 3, ["A"])
    assert all(np.isnan(rows[c.name]).all() for c in COLUMNS["ticks"] if c.kind == "float64")
    assert all((rows[c.name] == -1).all() for c in COLUMNS["ticks"] if c.kind != "float64")


@given(st.lists(st.integers(0, 29), max_size=40))
def test_take_picks_rows(places: list[int]) -> None:
    """Positions pick what numpy picks, in their order, in every column."""
    rows = sample("signals", 30)
    at = np.array(places, np.int64)
    taken = rows.take(at)
    assert len(taken) == len(places)
    for name in names_of("signals"):
        assert taken[name].tobytes() == rows[name][at].tobytes()


def test_documents_say_null_and_words() -> None:
    """A row as JSON: null for NaN, text for codes, RFC 3339 beside the nanoseconds."""
    rows = empty("ticks", 1, ["EURUSD"])
    rows.columns["symbol"][:] = 0
    rows.columns["ts"][:] = 1_700_000_000_123_456_789
    rows.columns["price"][:] = 0.1
    rows.columns["side"][:] = 1
    document: dict[str, Any] = row_documents(rows)[0]
    assert document["symbol"] == "EURUSD"
    assert document["time"] == "2023-11-14T22:13:20.123456789Z"
    assert document["price"] == 0.1
    assert document["side"] == "sell"
    assert document["size"] is None
    assert document["flag"] is None
    assert set(document) == {*names_of("ticks"), "time"}


def test_bits_see_one_bit() -> None:
    """The comparison that other tests rely on tells minus zero from zero."""
    one = {stage: sample(stage, 3) for stage in STAGES}
    other = {stage: sample(stage, 3) for stage in STAGES}
    assert bits([one]) == bits([other])
    other["bars"].columns["open"][:] = 0.0
    one["bars"].columns["open"][:] = -0.0
    assert bits([one]) != bits([other])


def test_what_is_made_of_columns_is_kept_for_those_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another set of as many columns in the same process is another one."""

    def one(name: str) -> None:
        columns = (*COLUMNS["signals"][:-1], Column(name, "float64", "-", "a test"))
        monkeypatch.setitem(blocks._COLUMNS, "signals", columns)

    names = blocks.per_stage(names_of)
    one("first")
    assert names("signals") is names("signals")
    assert names("signals")[-1] == list(empty("signals").columns)[-1] == "first"
    one("second")
    assert names("signals")[-1] == "second"
    assert list(empty("signals").columns)[-1] == arrow_schema("signals").names[-1] == "second"
