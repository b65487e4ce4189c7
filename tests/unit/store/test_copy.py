"""Binary COPY read back by an independent reader of the documented format."""

import struct
from datetime import date
from typing import Any

import numpy as np
import pytest

from pipeline.kernels.packing import pack
from pipeline.store.copy import HEADER, TRAILER, copy_columns, copy_pieces
from schemas.blocks import COLUMNS, STAGES, Column, Rows, empty

DAY = date(2026, 11, 24)
FLOATS = (0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.5, 0.1, float("nan"))


def fields_of(data: bytes) -> list[list[bytes | None]]:
    """The tuples of a binary COPY stream, null as None (PostgreSQL manual, COPY, Binary Format)."""
    assert data[:11] == b"PGCOPY\n\xff\r\n\0"
    flags, extension = struct.unpack_from(">II", data, 11)
    assert (flags, extension) == (0, 0)
    at = 19
    tuples: list[list[bytes | None]] = []
    while True:
        (count,) = struct.unpack_from(">h", data, at)
        at += 2
        if count == -1:
            assert at == len(data)
            return tuples
        row: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            at += 4
            row.append(None if length == -1 else data[at : at + length])
            at += max(length, 0)
        tuples.append(row)


def value_of(column: Column, field: bytes | None) -> Any:
    """A field as Postgres reads it."""
    if field is None:
        return None
    if column.kind in {"symbol", "label"}:
        return field.decode()
    code, size = {"int64": (">q", 8), "int32": (">i", 4), "float64": (">d", 8)}[column.kind]
    assert len(field) == size
    return struct.unpack(code, field)[0]


def sample(stage: str, n: int, symbols: list[str]) -> Rows:
    """Rows with borders of every type, nulls and texts of several lengths."""
    rng = np.random.default_rng(n)
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
            into[:] = rng.choice(np.array([info.min, -1, 0, 1, 255, 256, info.max]), n)
    return rows


def expected(column: Column, rows: Rows, at: int) -> Any:
    """What the table must hold."""
    value = rows[column.name][at].item()
    if column.kind == "symbol":
        return rows.symbols[value]
    if column.kind == "label":
        return column.labels[value] if value >= 0 else None
    return None if value != value else value  # noqa: PLR0124 -- NaN is null


def body(*parts: Rows) -> bytes:
    """Rows as one COPY."""
    return HEADER + b"".join(one for rows in parts for one in copy_pieces(rows, DAY, 50)) + TRAILER


@pytest.mark.parametrize(("n", "piece", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2])])
def test_pieces_end_with_a_row(n: int, piece: int, sizes: list[int]) -> None:
    """Each can be a COPY of its own; together they are the rows."""
    rows = sample("predictions", n, ["A", "BTC-USD"])
    pieces = copy_pieces(rows, DAY, piece)
    assert [len(fields_of(HEADER + one + TRAILER)) for one in pieces] == sizes
    assert b"".join(pieces) == b"".join(copy_pieces(rows, DAY, n))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", [1, 2, 77])
def test_every_field_is_what_the_row_holds(stage: str, n: int) -> None:
    """Numbers big-endian to the last bit, null as length -1, texts in their own length, the day."""
    rows = sample(stage, n, ["A", "x" * 32, "BTC-USD"])
    tuples = fields_of(body(rows))
    assert len(tuples) == n
    for at, fields in enumerate(tuples):
        assert len(fields) == len(copy_columns(stage)) == len(COLUMNS[stage]) + 1
        for column, field in zip(COLUMNS[stage], fields[:-1], strict=True):
            found, truth = value_of(column, field), expected(column, rows, at)
            assert found == truth, column.name
            if isinstance(truth, float):
                assert np.signbit(found) == np.signbit(truth)
        assert fields[-1] == struct.pack(">i", (DAY - date(2000, 1, 1)).days)


def test_no_rows_are_no_bytes() -> None:
    """Header and trailer alone are a COPY of nothing."""
    assert copy_pieces(empty("bars"), DAY, 1) == []
    assert fields_of(HEADER + TRAILER) == []


def test_rows_of_several_blocks_follow_each_other() -> None:
    """Bodies are joined between one header and one trailer, each with symbols of its own."""
    one, two = sample("signals", 3, ["A"]), sample("signals", 2, ["LONGER", "B"])
    data = body(one, two)
    names = [fields[3] for fields in fields_of(data)]
    assert names == [rows.symbols[c].encode() for rows in (one, two) for c in rows["symbol"]]


def test_a_symbol_is_not_padded() -> None:
    """A short symbol among long ones keeps its own length, and a new symbol its own name."""
    rows = empty("ticks", 2, ["B", "ABCDEFGH"])
    rows.columns["symbol"][:] = [0, 1]
    assert [f[3] for f in fields_of(body(rows))] == [
        b"B",
        b"ABCDEFGH",
    ]
    rows = Rows("ticks", rows.columns, ["C", "ABCDEFGH"])
    assert fields_of(body(rows))[0][3] == b"C"


def test_a_list_of_symbols_may_grow() -> None:
    """What is kept of a list that was seen before is not all that it holds now."""
    symbols = ["B"]
    for name in ("LONGER", "C"):
        symbols.append(name)
        rows = empty("bars", len(symbols), symbols)
        rows.columns["symbol"][:] = np.arange(len(symbols))
        names = [f[3] for f in fields_of(body(rows))]
        assert names == [symbol.encode() for symbol in symbols]


def test_columns_may_have_gaps_in_memory() -> None:
    """A slice of rows is written like a copy of it."""
    rows = sample("features", 40, ["A", "B"]).take(slice(1, None, 3))
    copied = Rows("features", {k: v.copy() for k, v in rows.columns.items()}, rows.symbols)
    assert body(rows) == body(copied)


@pytest.mark.parametrize(("name", "code"), [("symbol", 1), ("action", 3)])
def test_a_code_without_a_word_is_refused(name: str, code: int) -> None:
    """Memory beyond the words is not read."""
    rows = sample("signals", 3, ["A"])
    rows.columns[name][2] = code
    with pytest.raises(IndexError):
        body(rows)


def test_the_kernel_is_compiled_once() -> None:
    """Whatever the rows are, live work never waits for a compiler."""
    for stage in STAGES:
        body(sample(stage, 3, ["A"]))
    assert len(vars(pack)["overloads"]) == 1
