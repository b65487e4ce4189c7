"""Times of the wire against the standard library and pandas."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import DAY, EARLIEST, NO_TIME, format_rfc3339, parse_time, to_ns

SECOND = 10**9


@pytest.mark.parametrize(
    "text",
    [
        "2024-08-08T23:54:15Z",
        "2024-08-08t23:54:15z",
        "2024-08-08 23:54:15+00:00",
        "2024-08-08T23:54:15.5+02:00",
        "2024-08-08T23:54:15.123456789-09:30",
        "2024-08-08T23:54:15.000000001-00:00",
        "1971-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999999Z",
        "2024-02-29T00:00:00+14:00",
        "2262-04-11T23:47:16.854775807Z",
    ],
)
def test_rfc3339_with_zone_is_read_to_the_nanosecond(text: str) -> None:
    """What pandas reads to the nanosecond, we read to the same nanosecond."""
    assert parse_time(text) == pd.Timestamp(text.upper()).value


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 -- the zone is added as text
    st.integers(0, 999_999_999),
    st.integers(1, 9),
    st.integers(-14 * 60, 14 * 60),
)
def test_every_fraction_and_zone_is_exact(when: datetime, fraction: int, n: int, zone: int) -> None:
    """One to nine decimals count as such, and any zone is taken off."""
    digits = f"{fraction:09d}"[:n]
    sign, (hours, minutes) = "-" if zone < 0 else "+", divmod(abs(zone), 60)
    text = f"{when:%Y-%m-%dT%H:%M:%S}.{digits}{sign}{hours:02d}:{minutes:02d}"
    whole = int(when.replace(tzinfo=UTC, microsecond=0).timestamp()) - zone * 60
    assert parse_time(text) == whole * SECOND + int(digits) * 10 ** (9 - n)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1700000000",
        "2024-08-08",
        "2024-08-08T23:54:15",  # naive
        "2024-08-08T23:54:15.5",
        "2024-08-08T23:54Z",
        "2024-08-08T23:54:15.Z",
        "2024-08-08T23:54:15.1234567890Z",
        "2024-08-08T23:54:15+0200",
        "2024-08-08T23:54:15+02",
        "2024-08-08T23:54:15+24:00",
        "2024-13-08T23:54:15Z",
        "2023-02-29T00:00:00Z",
        "2016-12-31T23:59:60Z",  # a leap second has no nanosecond since 1970 of its own
        "2024-08-08T24:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "1600-01-01T00:00:00Z",  # before int64 nanoseconds begin
        "2262-04-11T23:47:16.854775808Z",  # and one after their end
        "9999-12-31T23:59:59Z",
        " 2024-08-08T23:54:15Z",
        "2024-08-08T23:54:15Z\n",
        "２024-08-08T23:54:15Z",
    ],
)
def test_what_is_no_rfc3339_time_with_zone_is_no_time(text: str) -> None:
    """A naive time, a leap second, an impossible date and free text are refused, never guessed."""
    assert parse_time(text) == NO_TIME


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (1_700_000_000, 1_700_000_000 * SECOND),
        (1_700_000_000_123, 1_700_000_000_123 * 10**6),
        (1_700_000_000_123_456, 1_700_000_000_123_456 * 10**3),
        (1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (0, 0),
        (-1, -SECOND),
        (10**10 - 1, NO_TIME),  # seconds that int64 nanoseconds cannot hold
        (-(10**10) + 1, NO_TIME),
        (9_223_372_036, 9_223_372_036 * SECOND),
        (9_223_372_037, NO_TIME),
        (-9_223_372_036, -9_223_372_036 * SECOND),
        (-9_223_372_037, NO_TIME),
        (10**10, 10**10 * 10**6),
        (10**13 - 1, NO_TIME),
        (10**13, 10**13 * 10**3),
        (10**16 - 1, NO_TIME),
        (10**16, 10**16),
        (2**63 - 1, 2**63 - 1),
        (-(2**63) + 2, -(2**63) + 2),
        (2**63, NO_TIME),
        (-(2**63), NO_TIME),
        (-(2**63) - 1, NO_TIME),
        (10**30, NO_TIME),
        (None, NO_TIME),
    ],
)
def test_the_size_of_an_integer_tells_its_unit(value: int | None, ns: int) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds by magnitude, borders included."""
    assert parse_time(value) == ns


@given(st.integers(EARLIEST, 2**62), st.sampled_from([1, 10**3, 10**6, SECOND]))
def test_each_unit_gives_the_same_instant(ns: int, unit: int) -> None:
    """From 1971 on an instant is the same in every unit that can say it."""
    assert parse_time(ns // unit) == ns // unit * unit


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_a_column_is_read_like_its_single_times(times: list[int]) -> None:
    """The array path never overflows and gives what Python's unbounded integers give."""
    found = to_ns(np.array(times, np.int64)).tolist()
    for value, ns in zip(times, found, strict=True):
        size = abs(value)
        unit = (
            SECOND if size < 10**10 else 10**6 if size < 10**13 else 10**3 if size < 10**16 else 1
        )
        exact = value * unit
        assert ns == (exact if -(2**63) < exact < 2**63 else NO_TIME)


@given(st.integers(EARLIEST, 2**63 - 1))
def test_formatted_times_come_back(ns: int) -> None:
    """What we write as RFC 3339, pandas and we read as the same nanosecond."""
    text = format_rfc3339(ns)
    assert parse_time(text) == ns == pd.Timestamp(text).value


def test_the_borders_have_their_names() -> None:
    """EARLIEST is 1971, a day is a day."""
    assert pd.Timestamp("1971-01-01", tz="UTC").value == EARLIEST
    assert pd.Timedelta(days=1).value == DAY
