"""A stage as a pandas table: dtypes, times, every bit; and what is no source."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.errors import MisuseError
from pipeline.replay.engine import replay_file
from pipeline.replay.frames import to_pandas
from pipeline.settings import load_settings
from schemas.blocks import COLUMNS, STAGES
from tests.fixtures.ticks import walk


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a replay."""
    home = tmp_path_factory.mktemp("frames")
    walk(600).to_csv(home / "t.csv", index=False)
    replay_file(home / "t.csv", home / "out", load_settings(["bars.clock=time:5s"]))
    return home / "out"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_comes_in_its_dtypes(directory: Path, stage: str) -> None:
    """float64, int64, category; the values are those of the file, bit for bit."""
    table = to_pandas(directory, stage)
    written = pq.read_table(directory / f"{stage}.parquet")
    assert list(table) == ["time", *(column.name for column in COLUMNS[stage])]
    assert str(table["time"].dtype) == "datetime64[ns, UTC]"
    np.testing.assert_array_equal(table["time"].astype("int64"), table["ts"])
    for column in COLUMNS[stage]:
        found = table[column.name]
        if column.kind in {"symbol", "label"}:
            assert isinstance(found.dtype, pd.CategoricalDtype)
            words = [None if pd.isna(word) else word for word in found]
            assert words == written[column.name].to_pylist()
        elif column.kind == "float64":
            assert found.dtype == np.float64
            expected = written[column.name].to_numpy()
            assert found.to_numpy().tobytes() == expected.astype(np.float64).tobytes()
        else:
            assert found.dtype == np.int64
            assert found.tolist() == written[column.name].to_pylist()


def test_times_bound_a_directory(directory: Path) -> None:
    """Start <= ts < end, as text with a zone or as an integer of any unit; rows count anew."""
    table = to_pandas(str(directory), "bars")
    low, high = table["time"].iloc[10], table["ts"].iloc[40]
    part = to_pandas(directory, "bars", start=low.isoformat(), end=int(high))
    expected = table[(table["ts"] >= low.value) & (table["ts"] < high)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected, check_exact=True)
    assert len(to_pandas(directory, "bars", start=int(high), end=int(high))) == 0


def test_what_is_no_source_is_said(directory: Path, tmp_path: Path) -> None:
    """A wrong stage, directory, file, time, option, or a server that is not named."""
    with pytest.raises(MisuseError, match="no stage is called 'bar': there are ticks, bars"):
        to_pandas(directory, "bar")
    with pytest.raises(MisuseError, match=r"is not the output of a replay: bars\.parquet"):
        to_pandas(tmp_path, "bars")
    (tmp_path / "bars.parquet").write_text("hello")
    with pytest.raises(MisuseError, match="cannot be read"):
        to_pandas(tmp_path, "bars")
    with pytest.raises(MisuseError, match="start='yesterday' is no RFC 3339 time"):
        to_pandas(directory, "bars", start="yesterday")
    with pytest.raises(MisuseError, match="offsets are for kafka:prices"):
        to_pandas(directory, "bars", offsets={0: (0, 1)})
    unnamed = load_settings(kafka=None, postgres=None)
    with pytest.raises(MisuseError, match="TICKSTREAM_KAFKA"):
        to_pandas("kafka:prices", "bars", settings=unnamed)
    with pytest.raises(MisuseError, match="TICKSTREAM_POSTGRES"):
        to_pandas("postgres", "bars", settings=unnamed)
