"""Times on the wire: RFC 3339 text and integers of any unit, to nanoseconds since 1970 UTC."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import numpy as np

NO_TIME: Final = -(2**63)
EARLIEST: Final = 31_536_000_000_000_000  # 1971-01-01
DAY: Final = 86_400_000_000_000
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Upper bounds of seconds, milliseconds and microseconds: each unit then covers 1971 to 2262.
_SECONDS_BELOW, _MILLIS_BELOW, _MICROS_BELOW = 10**10, 10**13, 10**16
_INT64_MAX: Final = 2**63 - 1


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 UTC of an RFC 3339 time with zone, or NO_TIME when it is not one."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return NO_TIME
    day, clock, fraction, zone = found.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        return NO_TIME
    delta = whole - _EPOCH
    nanos = (delta.days * 86_400 + delta.seconds) * 10**9 + int((fraction or "0").ljust(9, "0"))
    return nanos if -_INT64_MAX < nanos <= _INT64_MAX else NO_TIME


def to_ns(times: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Integer times of shape (n,), each in the unit that its size tells (s, ms, us or ns), to ns.

    Seconds run below 1e10, milliseconds below 1e13, microseconds below 1e16; NO_TIME where int64
    nanoseconds end (1677 and 2262).
    """
    if times.size and times.min() >= _MICROS_BELOW:
        return times
    size = np.abs(times)
    scale = np.where(
        size < _SECONDS_BELOW,
        10**9,
        np.where(size < _MILLIS_BELOW, 10**6, np.where(size < _MICROS_BELOW, 10**3, 1)),
    )
    # NO_TIME is its own absolute value in two's complement, that is negative: it fits, and stays.
    fits = size <= _INT64_MAX // scale
    return np.where(fits, times, NO_TIME) * np.where(fits & (times != NO_TIME), scale, 1)


def parse_time(value: int | str | None) -> int:
    """One time of the wire to ns, NO_TIME when it is none."""
    if isinstance(value, str):
        return parse_rfc3339(value)
    if value is None or not -_INT64_MAX < value <= _INT64_MAX:
        return NO_TIME
    return int(to_ns(np.array([value], np.int64))[0])


def format_rfc3339(nanos: int) -> str:
    """RFC 3339 text in UTC with nine decimals."""
    second, fraction = divmod(int(nanos), 10**9)
    return f"{_second_text(second)}.{fraction:09d}Z"


@lru_cache(1024)  # the times of one row, and of those beside it, share their second
def _second_text(second: int) -> str:
    day, rest = divmod(second, 86_400)
    minutes, second = divmod(rest, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_day_text(day)}T{hour:02d}:{minute:02d}:{second:02d}"


@lru_cache(256)  # a page of history is of few days
def _day_text(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def format_all(times: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
    """The same for each of times of shape (n,), in one go."""
    texts = np.datetime_as_string(times.view("M8[ns]"), unit="ns").tolist()
    return [f"{text}Z" for text in texts]
