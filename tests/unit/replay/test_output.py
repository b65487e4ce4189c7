"""What a replay writes: complete or not at all, and blocks leave no trace in the files."""

import hashlib
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.disk import MANIFEST
from pipeline.errors import MisuseError
from pipeline.replay.engine import parse_input, replay_file
from pipeline.replay.output import REJECTED, ReplayOutput
from pipeline.settings import load_settings
from schemas.arrivals import Reject
from schemas.blocks import STAGES, Rows, arrow_schema, empty
from schemas.ticks import DETAILS, Reason
from tests.fixtures.ticks import walk

N = 250


def bars(n: int = N) -> Rows:
    """Bars with awkward numbers."""
    rows = empty("bars", n, ["A", "B"])
    rows.columns["symbol"][:] = np.arange(n) % 2
    for name in ("partition", "index", "n"):
        rows.columns[name][:] = 0
    rows.columns["offset"][:] = np.arange(n)
    rows.columns["open"][:] = np.resize([0.1, -0.0, 5e-324, np.nan], n)
    return rows


def write(out: Path, cuts: Iterable[int], row_group: int = 64) -> dict[str, Any]:
    """One replay of those bars, written in blocks of any size."""
    rows = bars()
    edges = [0, *cuts, N]
    with ReplayOutput(out, row_group) as output:
        for low, high in pairwise(edges):
            output.write({"bars": rows.take(np.arange(low, high))})
            output.reject(0, [Reject(i, 0, Reason.LATE, "x", "A") for i in range(low, high, 50)])
        return output.finish({"inputs": []})


def test_blocks_leave_no_trace_in_the_files(tmp_path: Path) -> None:
    """Any split into blocks gives the same bytes, as the digests of the manifest say."""
    whole = write(tmp_path / "whole", [])
    for name, cuts in (
        ("ones", range(1, N)),
        ("odd", [3, 64, 65, 128, 200]),
        ("twice", [100, 100]),
    ):
        assert write(tmp_path / name, cuts)["sha256"]["bars"] == whole["sha256"]["bars"], name
    assert write(tmp_path / "other", [], 32)["sha256"]["bars"] != whole["sha256"]["bars"]


def test_the_manifest_tells_the_truth(tmp_path: Path) -> None:
    """Counts, reasons and digests are those of the files that stand beside it."""
    manifest = write(tmp_path / "out", [100])
    assert json.loads((tmp_path / "out" / MANIFEST).read_text()) == manifest
    assert {path.stem for path in (tmp_path / "out").glob("*.parquet")} == {*STAGES, REJECTED}
    for name, told in manifest["sha256"].items():
        path = tmp_path / "out" / f"{name}.parquet"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == told
        assert pyarrow.parquet.read_metadata(path).num_rows == manifest["rows"][name]
    assert manifest["rows"]["bars"] == N
    assert manifest["rejected"] == {"late": 5}
    assert {"cpu", "libm", "numpy", "numba", "python"} <= set(manifest["machine"])


def test_the_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """Parquet keeps every bit, nulls as nulls, the schema with units and meanings."""
    write(tmp_path / "out", [7])
    table = pa.parquet.read_table(tmp_path / "out" / "bars.parquet")
    rows = bars()
    assert table.schema.equals(arrow_schema("bars"), check_metadata=True)
    assert table["open"].to_numpy().tobytes() == rows["open"].tobytes()
    assert table["open"].null_count == int(np.isnan(rows["open"]).sum())
    assert table["symbol"].to_pylist() == [rows.symbols[code] for code in rows["symbol"]]
    refused = pa.parquet.read_table(tmp_path / "out" / f"{REJECTED}.parquet").to_pylist()
    assert refused[0] == {
        "partition": 0, "offset": 0, "index": 0, "symbol": "A", "reason": "late", "detail": "x"
    }  # fmt: skip


def test_a_failed_replay_leaves_nothing(tmp_path: Path) -> None:
    """An error amid the run: no directory, no partial one, and an older output is untouched."""
    write(tmp_path / "old", [])
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    for name in ("new", "old"):
        with pytest.raises(RuntimeError), ReplayOutput(tmp_path / name, 10) as output:  # noqa: PT012 -- the error comes after the write
            output.write({"bars": bars()})
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


def test_only_an_output_of_ours_is_replaced(tmp_path: Path) -> None:
    """A directory with other things in it, or a file, is never overwritten."""
    write(tmp_path / "out", [])
    write(tmp_path / "out", [5])
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", [])
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("home", "file"):
        with pytest.raises(MisuseError, match="not the output of a replay"):
            write(tmp_path / name, [])
    assert (home / "thesis.tex").read_text() == "x"
    with pytest.raises(MisuseError, match="cannot be written"):
        write(tmp_path / "file" / "below", [])


def test_a_replay_of_a_file_does_not_depend_on_the_block(tmp_path: Path) -> None:
    """replay.block=7 gives the files of one block; rejected rows are among them."""
    table = walk(800)
    table.loc[100, "price"] = -1.0
    table.to_csv(tmp_path / "t.csv", index=False)
    kept = []
    for block in (7, 100_000):
        settings = load_settings([f"replay.block={block}", "bars.clock=time:5s"])
        kept.append(replay_file(tmp_path / "t.csv", tmp_path / str(block), settings))
    assert kept[0] == kept[1]
    assert kept[0]["rows"]["ticks"] == 799
    assert kept[0]["rows"]["bars"] == kept[0]["rows"]["features"] > 100
    assert kept[0]["rejected"] == {Reason.NON_POSITIVE.value: 1}
    assert kept[0]["inputs"][0]["rows"] == 800
    refused = pa.parquet.read_table(tmp_path / "7" / f"{REJECTED}.parquet").to_pylist()
    assert [(r["offset"], r["detail"]) for r in refused] == [(100, DETAILS[Reason.NON_POSITIVE])]


def test_an_empty_file_has_empty_outputs(tmp_path: Path) -> None:
    """Header-only outputs, no error."""
    (tmp_path / "t.csv").write_text("symbol,ts,price\n")
    manifest = replay_file(tmp_path / "t.csv", tmp_path / "out", load_settings())
    assert set(manifest["rows"].values()) == {0}
    for stage in STAGES:
        assert (
            pa.parquet.read_schema(tmp_path / "out" / f"{stage}.parquet").names
            == arrow_schema(stage).names
        )


def test_inputs_are_files_the_topic_or_the_stored_ticks() -> None:
    """kafka:prices and postgres:ticks; others of these are mistakes, any other text is a path."""
    assert parse_input("kafka:prices") == "kafka:prices"
    assert parse_input("postgres:ticks") == "postgres:ticks"
    assert parse_input("a/b.csv") == Path("a/b.csv")
    assert parse_input("c:/b.csv") == Path("c:/b.csv")
    for wrong in ("kafka:bars", "postgres:bars", "kafka:", "postgres:"):
        with pytest.raises(MisuseError, match=f"{wrong}: only kafka:prices and postgres:ticks"):
            parse_input(wrong)
