"""Files read with a zone or a factor file, and the publisher's reordering."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import MisuseError
from pipeline.sources.factors import read_factors
from pipeline.sources.feed import reordered
from pipeline.sources.localtime import Fold, LocalTimes
from schemas.times import NO_TIME, parse_time


@pytest.mark.parametrize(
    ("text", "fold", "utc"),
    [
        ("2013-09-01 17:00:00.083", "refuse", "2013-09-01T22:00:00.083Z"),
        ("2013-11-03 01:30:00", "first", "2013-11-03T06:30:00Z"),
        ("2013-11-03 01:30:00", "second", "2013-11-03T07:30:00Z"),
        ("2013-11-03 01:30:00", "refuse", None),
        ("2013-03-10 02:30:00", "first", None),
        ("2013-09-01T22:00:00Z", "refuse", "2013-09-01T22:00:00Z"),
        ("yesterday", "first", None),
    ],
)
def test_local_times_of_chicago(text: str, fold: Fold, utc: str | None) -> None:
    """The hour that comes twice follows the rule, the one that never comes is refused."""
    local = LocalTimes("America/Chicago", fold)
    assert local.to_ns(text) == (NO_TIME if utc is None else parse_time(utc))
    assert local.ambiguous == (text == "2013-11-03 01:30:00")
    assert local.nonexistent == (text == "2013-03-10 02:30:00")


def test_an_unknown_zone_is_told() -> None:
    """In one line that names it."""
    with pytest.raises(MisuseError, match="Mars"):
        LocalTimes("Mars/Olympus", "first")


def test_factors_stand_on_the_first_tick_that_they_concern(tmp_path: Path) -> None:
    """A 2:1 split gives .5 and 2 on the first day after, and nothing elsewhere."""
    path = tmp_path / "factors.csv"
    path.write_text(
        "symbol,date,price_factor,split_factor,reference_price\nA,20200102,1,0.5,1\nA,20501231,1,1,0\n"
    )
    days = [parse_time(f"2020-01-0{day}T21:00:00Z") for day in (1, 2, 3, 4)]
    ts, codes = np.array(days), np.zeros(4, np.int32)
    price, size = read_factors(path).of(["A"], codes, ts)
    np.testing.assert_array_equal(price, [np.nan, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(size, [np.nan, np.nan, 2.0, np.nan])
    one = read_factors(path)
    found = [one.one({"symbol": "A"}, day) for day in days]
    assert found == [{}, {}, {"factor": 0.5, "volume_factor": 2.0}, {}]


@pytest.mark.parametrize(
    "text", ["", "symbol,date\n", "symbol,date,price_factor,split_factor\nA,x,1,1\n"]
)
def test_a_bad_factor_file_is_told(tmp_path: Path, text: str) -> None:
    """One line, whatever is wrong with it."""
    path = tmp_path / "factors.csv"
    path.write_text(text)
    with pytest.raises(MisuseError):
        read_factors(path)


def test_reordering_mends_what_its_window_covers() -> None:
    """Ticks up to the window late come out in order, equal times in the order of arrival."""
    second = 1_700_000_000
    times = [3, 1, 2, 2, 9, 8, 30, 4]
    documents = [{"symbol": "A", "ts": second + t, "n": n} for n, t in enumerate(times)]
    mended = [d["ts"] - second for d in reordered(iter(documents), 3 * 10**9)]
    assert mended == [1, 2, 2, 3, 8, 9, 4, 30]
    same = [d["n"] for d in reordered(iter(documents), 0)]
    assert same == list(range(8))
