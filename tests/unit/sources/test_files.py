"""Tick files of every kind: the same ticks, one line for a file that is none, no row lost."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import MisuseError
from pipeline.sources import files
from pipeline.sources.files import read_arrivals, read_documents
from schemas.arrivals import Message, id_key
from schemas.codec import Decoder, tick_bytes
from schemas.ticks import REASONS, Reason
from schemas.times import NO_TIME

TS = 1_700_000_000_000_000_000
MALFORMED, BAD_SYMBOL = REASONS.index(Reason.MALFORMED), REASONS.index(Reason.BAD_SYMBOL)
CSV = (
    b"symbol,ts,price,size,side,trade_id\n"
    b"A,1700000000,1.5,2,buy,10\n"
    b"B,1700000001,5.853e-05,,sell,11\n"
    b"A,1700000002,2.5,0,,\n"
)
TABLE = pa.table(
    {
        "symbol": ["A", "B", "A"],
        "ts": [1_700_000_000, 1_700_000_001, 1_700_000_002],
        "price": [1.5, 5.853e-05, 2.5],
        "size": [2.0, None, 0.0],
        "side": ["buy", "sell", None],
        "trade_id": [10, 11, None],
    }
)


def ticks(path: Path, block: int = 1000) -> pd.DataFrame:
    """The ticks of a file as a table, symbols as words."""
    parts = []
    for came in read_arrivals(path, block):
        part = pd.DataFrame({name: came[name] for name in sorted(came.columns)})
        part["symbol"] = [came.symbols[code] for code in came["symbol"]]
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def written(folder: Path, name: str, data: bytes) -> Path:
    """A file of these bytes."""
    path = folder / name
    path.write_bytes(data)
    return path


def arrow_file(path: Path) -> None:
    """TABLE as an Arrow IPC file."""
    with pa.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


def arrow_stream(path: Path) -> None:
    """TABLE as an Arrow IPC stream."""
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


KINDS: list[tuple[str, Callable[[Path], object]]] = [
    ("t.csv", lambda path: path.write_bytes(CSV)),
    ("T.CSV", lambda path: path.write_bytes(CSV.replace(b"\n", b"\r\n"))),
    ("bom.csv", lambda path: path.write_bytes(b"\xef\xbb\xbf" + CSV)),
    ("t.2024.csv.gz", lambda path: path.write_bytes(gzip.compress(CSV))),
    ("t.parquet", lambda path: pyarrow.parquet.write_table(TABLE, path)),
    ("t.pq", lambda path: pyarrow.parquet.write_table(TABLE, path, row_group_size=1)),
    ("file.arrow", arrow_file),
    ("stream.arrow", arrow_stream),
    ("file.feather", arrow_file),
]


@pytest.mark.parametrize(("name", "write"), KINDS, ids=[name for name, _ in KINDS])
@pytest.mark.parametrize("block", [1, 2, 1000])
def test_every_kind_of_file_holds_the_same_ticks(
    tmp_path: Path, name: str, write: Callable[[Path], object], block: int
) -> None:
    """CSV, gzip, Parquet, Arrow file and stream: same values, offsets are row numbers."""
    path = tmp_path / name
    write(path)
    found = ticks(path, block)
    assert found["symbol"].tolist() == ["A", "B", "A"]
    assert found["ts"].tolist() == [TS, TS + 10**9, TS + 2 * 10**9]
    assert found["price"].tolist() == [1.5, 5.853e-05, 2.5]
    np.testing.assert_array_equal(found["size"], [2.0, np.nan, 0.0])
    assert found["side"].tolist() == [0, 1, -1]
    assert found["id"].tolist() == [10, 11, -1]
    assert found["offset"].tolist() == [0, 1, 2]
    assert found["fault"].tolist() == [-1, -1, -1]
    assert found["known_at"].tolist() == found["ts"].tolist()


@pytest.mark.parametrize("framing", ["json", "arrow"])
@pytest.mark.parametrize(("name", "write"), KINDS, ids=[name for name, _ in KINDS])
def test_published_documents_are_the_ticks_of_the_file(
    tmp_path: Path, name: str, write: Callable[[Path], object], framing: str
) -> None:
    """What `publish` would send decodes to what a replay of the file reads."""
    path = tmp_path / name
    write(path)
    value = tick_bytes(list(read_documents(path)), framing)
    came, rejects = Decoder(0).decode([Message(0, TS, value)])
    assert not rejects
    expected = ticks(path)
    for column in ("ts", "price", "size", "side", "id", "fault"):
        np.testing.assert_array_equal(came[column], expected[column])
    assert [came.symbols[code] for code in came["symbol"]] == expected["symbol"].tolist()


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"symbol,ts,price", b"symbol,ts,price\n", b"symbol,ts,price\r\n\r\n"]
)
def test_a_file_without_rows_has_no_ticks(tmp_path: Path, data: bytes) -> None:
    """Empty or header only: nothing, and no error."""
    path = written(tmp_path, "t.csv", data)
    assert ticks(path).empty
    assert list(read_documents(path)) == []


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", b"symbol,ts\nA,1\n", "column price is missing"),
        ("t.csv", b"symbol,ts\n", "column price is missing"),
        ("t.csv", b"time;symbol;price\n1;A;2\n", "column symbol is missing"),
        ("t.csv", b"symbol,ts,price\nA,1\n", "not a readable tick file"),
        ("t.csv", b"symbol,ts,price\n\xff,1,2\n", "not a readable tick file"),
        ("t.csv.gz", b"no gzip", "not a readable tick file"),
        ("t.csv.gz", gzip.compress(CSV, mtime=0)[:-9], "not a readable tick file"),
        ("t.parquet", b"", "not a readable tick file"),
        ("t.parquet", b"PAR1", "not a readable tick file"),
        ("t.arrow", b"", "not a readable tick file"),
        ("t.arrow", b"ARROW1\0\0rubbish", "not a readable tick file"),
        ("t.json", b"{}", "ends in .csv"),
        ("t", b"", "ends in .csv"),
        ("t.gz", b"", "ends in .csv"),
    ],
)
def test_a_file_that_is_none_is_one_line(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    """The path and the reason in one line, never a traceback."""
    path = written(tmp_path, name, data)
    with pytest.raises(MisuseError, match=words) as caught:
        list(read_arrivals(path, 10))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(MisuseError, match=words):
        list(read_documents(path))


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """Also a directory is no file."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(MisuseError, match="no such file"):
            list(read_arrivals(path, 10))


def test_malformed_numbers_keep_their_row(tmp_path: Path) -> None:
    """Thousands separators and words are malformed, exponents are numbers, neighbours stay."""
    data = (
        b"symbol,ts,price,size\n"
        b'A,1700000000,"1,234.5",1\n'
        b"A,1700000001,1e-5,2\n"
        b"A,1700000002,+3.25E+2,3\n"
        b"A,1700000003,abc,4\n"
        b"A,1700000004,5,x\n"
        b"A,1700000005,.5,6.\n"
        b"A,1700000006,nan,7\n"
        b"A,1700000007,-inf,8\n"
        b"A,1700000008,1_000,9\n"
        b"A,1700000009,,10\n"
        b"A,1700000010,\xef\xbc\x91,11\n"
    )
    path = written(tmp_path, "t.csv", data)
    found = ticks(path)
    bad = [0, 3, 4, 8, 10]
    assert found["fault"].tolist() == [MALFORMED if i in bad else -1 for i in range(11)]
    prices = [1e-5, 325.0, 0.5, np.nan, -np.inf, np.nan]
    np.testing.assert_array_equal(found.loc[[1, 2, 5, 6, 7, 9], "price"], prices)
    assert found["ts"].tolist() == [TS + i * 10**9 for i in range(11)]
    documents = list(read_documents(path))
    assert documents[0]["price"] == "1,234.5"  # as it stands: the guard names it
    assert documents[1] == {"symbol": "A", "ts": 1_700_000_001, "price": 1e-5, "size": 2.0}


def test_one_unreadable_time_does_not_take_the_others(tmp_path: Path) -> None:
    """Integers, RFC 3339 and rubbish in one column are read row by row."""
    data = (
        b"symbol,ts,price,recv_ts\n"
        b"A,1700000000,1,1700000000\n"
        b"A,2023-11-14T22:13:20Z,1,2023-11-14T22:13:21Z\n"
        b"A,soon,1,\n"
        b"A,,1,\n"
        b"A,2023-11-14T22:13:20,1,\n"
        b"A,1700000000.5,1,\n"
        b"A,1970-01-01T00:00:05Z,1,\n"
        b"A,99999999999999999999,1,\n"
    )
    path = written(tmp_path, "t.csv", data)
    found = ticks(path)
    assert found["ts"].tolist()[:2] == [TS, TS]
    assert found["ts"].tolist()[2:] == [NO_TIME] * 4 + [5 * 10**9, NO_TIME]
    assert found["known_at"].tolist()[:2] == [TS, TS + 10**9]
    assert found["fault"].tolist() == [-1] * 8
    documents = list(read_documents(path))
    assert [d.get("ts") for d in documents[:5]] == [
        1_700_000_000,
        "2023-11-14T22:13:20Z",
        "soon",
        None,
        "2023-11-14T22:13:20",
    ]
    assert [d.get("recv_ts") for d in documents[:3]] == [TS, TS + 10**9, None]


# fmt: off
NUMBERS = [
    "1", "-2.5", "1e-5", "1e400", "nan", "NaN", "inf", "-Infinity", "1,5", "1_0", "0x10", " 1",
    "1 ", "", "abc", "1.", ".5", "+3", "nan(1)", "1e", "１", "007",
]
WHOLE = [
    "1700000000", "-5", "0x10", "1_0", "5 ", "", "t-1", "2023-11-14T22:13:20Z", "9" * 19, "9" * 25,
    "007", "+5", "１",
]
# fmt: on


@given(
    st.lists(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(WHOLE), st.sampled_from(WHOLE)))
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_row_is_read_alone(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    """What a row says depends on no other row of its file."""
    lines = [f'A,"{ts}","{price}",{key}\n' for price, ts, key in rows]
    head = "symbol,ts,price,trade_id\n"
    together = ticks(written(tmp_path, "t.csv", (head + "".join(lines)).encode()))
    for place, line in enumerate(lines):
        alone = ticks(written(tmp_path, "one.csv", (head + line).encode()))
        for name in ("ts", "price", "id", "fault", "known_at"):
            np.testing.assert_equal(together[name][place], alone[name][0], err_msg=f"{name} {line}")


def test_ids_may_be_mixed(tmp_path: Path) -> None:
    """A numeric id is that number also beside textual ones, so pieces of a file agree."""
    path = written(tmp_path, "t.csv", b"symbol,ts,price,id\nA,1,1,5\nA,1,1,t-1\nA,1,1,\n")
    assert ticks(path)["id"].tolist() == [5, id_key("t-1"), -1]
    assert [d.get("id") for d in read_documents(path)] == [5, "t-1", None]


def test_symbols_of_digits_stay_text(tmp_path: Path) -> None:
    """005930 is Samsung, not 5930; spaces and blanks are faults of their own rows."""
    path = written(
        tmp_path,
        "t.csv",
        b"\xef\xbb\xbfsymbol,ts,price\n005930,1700000000,1\nA B,1,1\n,1,1\nNA,1,1\n",
    )
    found = ticks(path)
    assert found["symbol"].tolist() == ["005930", "A B", "", "NA"]
    assert found["fault"].tolist() == [-1, BAD_SYMBOL, BAD_SYMBOL, -1]


def test_a_wrong_side_is_malformed(tmp_path: Path) -> None:
    """buy, sell or nothing."""
    path = written(tmp_path, "t.csv", b"symbol,ts,price,side\nA,1,1,buy\nA,1,1,BUY\nA,1,1,\n")
    assert ticks(path)["fault"].tolist() == [-1, MALFORMED, -1]


def test_times_of_parquet_have_a_zone(tmp_path: Path) -> None:
    """Timestamps with a zone are read to the nanosecond; naive ones are refused, in one line."""
    path = tmp_path / "t.parquet"
    for zone, good in (("Europe/Berlin", True), (None, False)):
        table = TABLE.drop(["ts"]).append_column(
            "ts", pa.array([TS, TS + 1, TS + 2], pa.timestamp("ns", zone))
        )
        pyarrow.parquet.write_table(table, path)
        if good:
            assert ticks(path)["ts"].tolist() == [TS, TS + 1, TS + 2]
            values = tick_bytes(list(read_documents(path)))
            came, _ = Decoder(0).decode([Message(0, TS, values)])
            assert came["ts"].tolist() == [TS, TS + 1, TS + 2]
        else:
            with pytest.raises(MisuseError, match="zone"):
                ticks(path)


def test_pieces_of_a_large_file_are_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file read in many pieces counts its rows through and keeps its symbols."""
    lines = [f"S{i % 7},{1_700_000_000 + i},{i + 1},{i % 5}" for i in range(5000)]
    path = written(tmp_path, "t.csv", ("symbol,ts,price,size\n" + "\n".join(lines)).encode())
    whole = ticks(path)
    monkeypatch.setattr(files, "_PIECE", 2000)
    parts = list(read_arrivals(path, 333))
    assert len(parts) > 20
    pd.testing.assert_frame_equal(ticks(path, 333), whole)
    assert whole["offset"].tolist() == list(range(5000))
    assert whole["symbol"].tolist() == [f"S{i % 7}" for i in range(5000)]
    assert whole["price"].tolist() == [i + 1.0 for i in range(5000)]


def test_the_bundled_sample_is_what_pandas_reads(sample: Path) -> None:
    """120,000 trades of ES: every price, size and time as pandas reads them."""
    found, truth = ticks(sample, 65_536), pd.read_csv(sample)
    assert len(found) == len(truth) == 120_000
    assert found["price"].tolist() == truth["price"].tolist()
    assert found["size"].tolist() == truth["size"].astype(float).tolist()
    assert found["ts"].tolist() == truth["ts"].tolist()


def test_a_long_parquet_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """No more than some row groups are held at a time, however many there are."""
    path, n = tmp_path / "long.parquet", 60
    price = np.random.default_rng(0).random(20_000)
    table = pa.table({"symbol": ["A"] * 20_000, "ts": np.arange(20_000) + TS, "price": price})
    with pa.parquet.ParquetWriter(path, table.schema) as file:
        for _ in range(n):
            file.write_table(table)
    before = pa.total_allocated_bytes()
    held = []
    for came in read_arrivals(path, 7000):
        assert len(came) <= 7000
        held.append(pa.total_allocated_bytes() - before)
    assert max(held) < 20 * price.nbytes  # a third of what one column of the file takes
