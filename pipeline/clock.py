"""The only reader of the wall clock and of the monotonic clock."""

import time
from datetime import UTC, date, datetime


def now_ns() -> int:
    """Wall time, nanoseconds since 1970-01-01 UTC."""
    return time.time_ns()


def today() -> date:
    """The UTC day of the wall clock."""
    return datetime.now(tz=UTC).date()


def monotonic() -> float:
    """Seconds of a clock that never steps back."""
    return time.monotonic()


def own_time() -> float:
    """Seconds that the processor has spent on this thread."""
    return time.thread_time()
