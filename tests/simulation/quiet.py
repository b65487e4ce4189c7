"""The live loop logs every failure; a thousand schedules of failures would say too much."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL

import structlog


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing for the length of a block."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
