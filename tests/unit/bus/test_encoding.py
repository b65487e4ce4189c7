"""The fast writers of topics against pyarrow's stream and msgspec's documents, byte for byte."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus import encoding
from pipeline.bus.encoding import block_bytes, row_bytes
from pipeline.kernels import columns
from pipeline.kernels.documents import documents
from pipeline.kernels.streaming import stream
from schemas import blocks, codec
from schemas.blocks import COLUMNS, STAGES, Column, Rows, arrow_schema, empty, to_arrow
from schemas.codec import json_bytes, row_documents

SYMBOLS = ["A", "x" * 32, "", "BTC-USD", 'say "\\\n"']
FLOATS = np.array([0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.5, 0.1, 1e16, np.inf, -np.inf])
NAN_OF_OTHER_BITS = np.array([0xFFF8000000000001], np.uint64).view(np.float64)[0]


def sample(stage: str, n: int, nulls: float, symbols: list[str] = SYMBOLS, seed: int = 0) -> Rows:
    """Rows with borders of every type and a share of nulls; every array has gaps in memory."""
    rng = np.random.default_rng([seed, n])
    rows = empty(stage, 2 * n, symbols).take(slice(None, None, 2))
    for column in COLUMNS[stage]:
        into = rows.columns[column.name]
        assert n < 2 or not into.flags.contiguous
        missing = rng.random(n) < nulls
        if column.kind == "float64":
            values = np.where(rng.random(n) < 0.5, rng.choice(FLOATS, n), rng.standard_normal(n))
            nan = np.where(rng.random(n) < 0.5, NAN_OF_OTHER_BITS, np.nan)
            into[:] = np.where(missing, nan, values)
        elif column.kind == "label":
            into[:] = np.where(missing, -1, rng.integers(0, len(column.labels), n))
        elif column.kind == "symbol":
            into[:] = rng.integers(0, len(symbols), n)
        else:
            info = np.iinfo(into.dtype)
            borders = [info.min + 1, -1, 0, 1, 9, 10, 255, 256, info.max]
            into[:] = np.where(rng.random(n) < 0.5, rng.choice(borders, n), rng.integers(0, 999, n))
    return rows


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("nulls", [0.0, 0.2, 1.0], ids=["no nulls", "nulls", "all null"])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 63, 64, 65, 500])
def test_a_block_is_what_pyarrow_writes(stage: str, n: int, nulls: float) -> None:
    """Schema, metadata, bits of validity, values, texts and padding, to the last byte."""
    rows = sample(stage, n, nulls)
    found = block_bytes(rows)
    assert found == codec.block_bytes(rows)
    table = pa.ipc.open_stream(found).read_all()
    table.validate(full=True)
    assert table.schema.equals(arrow_schema(stage), check_metadata=True)
    # The bytes were compared; this is the reader's view: NaN is null, null is no value.
    assert table.to_batches()[0].equals(to_arrow(rows)) if n else table.num_rows == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("nulls", [0.0, 0.2, 1.0], ids=["no nulls", "nulls", "all null"])
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_a_row_is_its_document(stage: str, n: int, nulls: float) -> None:
    """Any stage's rows, also those that the topics do not carry as JSON."""
    rows = sample(stage, n, nulls)
    assert row_bytes(rows) == [json_bytes(document) for document in row_documents(rows)]


@given(
    price=st.floats(),
    ts=st.integers(-(2**63) + 1, 2**63 - 1),
    index=st.integers(-(2**31), 2**31 - 1),
)
def test_numbers_and_times_of_documents(price: float, ts: int, index: int) -> None:
    """Every double, time and integer as msgspec and numpy write it."""
    rows = empty("signals", 2, ["A"])
    rows.columns["symbol"][:] = 0
    rows.columns["price"][1], rows.columns["ts"][:], rows.columns["index"][0] = price, ts, index
    assert row_bytes(rows) == [json_bytes(document) for document in row_documents(rows)]


@given(day=st.integers(-106_751, 106_750), nanos=st.integers(0, 86_400_000_000_000 - 1))
def test_every_day_has_its_date(day: int, nanos: int) -> None:
    """Leap years, ends of months and years before 1970."""
    rows = empty("signals", 1, ["A"])
    rows.columns["symbol"][:] = 0
    rows.columns["ts"][:] = day * 86_400_000_000_000 + nanos
    assert row_bytes(rows) == [json_bytes(document) for document in row_documents(rows)]


def test_a_list_of_symbols_may_grow() -> None:
    """New symbols of a list that was seen before have their own names; others keep theirs."""
    symbols = ["B"]
    for name in ("LONGER-THAN-BEFORE", "C", *(f"S{i}" for i in range(3000))):
        symbols.append(name)
        if len(symbols) % 100 <= 3:
            rows = sample("signals", 20, 0.2, symbols, seed=len(symbols))
            assert block_bytes(rows) == codec.block_bytes(rows)
            assert row_bytes(rows) == [json_bytes(document) for document in row_documents(rows)]


def test_lists_of_symbols_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal codes into other lists are other names, also after the memory of lists was full."""
    monkeypatch.setattr(columns, "_MOST", 3)
    for i in range(20):
        rows = sample("bars", 5, 0.0, [f"X{i}", f"Y{i}"])
        assert block_bytes(rows) == codec.block_bytes(rows)
        assert len(columns._known) <= 3


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A stage with columns of a user; what is remembered of it is forgotten behind the test."""
    made = (
        Column("mine", "float64", "-", "a double"),
        Column("kind", "label", "-", "a label", ("one", "two words", "")),
        Column("count", "int64", "-", "an integer"),
        Column("small", "int32", "-", "a small one"),
    )
    monkeypatch.setitem(blocks._COLUMNS, "features", COLUMNS["features"])
    # Used before the columns came: nothing of it may be left over.
    block_bytes(sample("features", 3, 0.2))
    blocks.extend("features", made)
    yield "features"
    for module in (blocks, columns, encoding):
        for item in vars(module).values():
            if hasattr(item, "cache_clear"):
                item.cache_clear()
    columns._known.clear()


@pytest.mark.parametrize("nulls", [0.0, 0.5])
def test_columns_of_a_user(added: str, nulls: float) -> None:
    """They are written like all others."""
    rows = sample(added, 30, nulls)
    assert block_bytes(rows) == codec.block_bytes(rows)
    assert pa.ipc.open_stream(block_bytes(rows)).schema.names[-1] == "small"
    assert row_bytes(rows) == [json_bytes(document) for document in row_documents(rows)]


@pytest.mark.parametrize(("name", "code"), [("symbol", len(SYMBOLS)), ("action", 3)])
def test_a_code_without_a_word_is_refused(name: str, code: int) -> None:
    """Memory beyond the words is not read."""
    rows = sample("signals", 3, 0.0)
    rows.columns[name][2] = code
    with pytest.raises(IndexError):
        block_bytes(rows)
    with pytest.raises(IndexError):
        row_bytes(rows)


def test_kernels_are_compiled_once() -> None:
    """Whatever the rows are, live work never waits for a compiler."""
    for stage in STAGES:
        block_bytes(sample(stage, 3, 0.2))
        row_bytes(Rows(stage, sample(stage, 3, 0.2).columns, tuple(SYMBOLS)))
    assert [len(vars(kernel)["overloads"]) for kernel in (stream, documents)] == [1, 1]
