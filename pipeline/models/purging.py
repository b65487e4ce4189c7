"""Which bars may teach beside a test, so that no label of theirs knows its prices."""

import numpy as np

from schemas.blocks import Array


def purged(
    ts: Array, start: int, end: int | None, horizon: int, embargo: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which bars may teach when those with start <= ts < end are the test, shape (n,).

    Bar i may if i + horizon is before the test, so that its label is known by then, or if it stands
    behind the test by more than the horizon and the embargo (QUANT.md 4.4.7).

    Args:
        ts: ends of the bars of a book, ns, ascending, shape (n,).
        start: of the test, ns.
        end: of the test, ns; None: nothing is behind it.
        horizon: bars until the label of a bar is known.
        embargo: bars behind the test that its prices still shape.
    """
    first = int(np.searchsorted(ts, start, "left"))
    last = len(ts) if end is None else int(np.searchsorted(ts, end, "left"))
    at = np.arange(len(ts))
    return (at + horizon < first) | (at >= last + horizon + embargo)
