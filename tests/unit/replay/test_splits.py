"""Windows by event time, and the rule of purge and embargo against its table."""

import numpy as np
import pytest

from pipeline.errors import MisuseError
from pipeline.models.purging import purged
from pipeline.replay.splits import Window, edges_of, even_edges, folds_of


def test_purge_and_embargo_leave_what_the_table_says() -> None:
    """QUANT.md 4.4.7: 1,000 bars, 5 folds, h = 10, embargo 10."""
    ts = np.arange(1000) * 60
    sizes = [int(purged(ts, k * 200 * 60, (k + 1) * 200 * 60, 10, 10).sum()) for k in range(5)]
    assert sizes == [780, 770, 770, 770, 790]


def test_a_bar_teaches_only_what_is_known_before_the_test() -> None:
    """By the definition, bar by bar, on uneven times: the label of the last kept bar is in time."""
    ts = np.cumsum(np.random.default_rng(5).integers(1, 9, 300))
    start, end = int(ts[100]), int(ts[180])
    kept = purged(ts, start, end, 7, 4)
    for i in range(300):
        before = i + 7 < 300 and ts[i + 7] < start
        assert kept[i] == (before or i >= 180 + 7 + 4)
    assert not purged(ts, start, None, 7, 4)[100:].any()
    assert not purged(ts[:5], start, None, 7, 0).any()


def test_windows_of_one_length() -> None:
    """Tests stand side by side from the end of the first training to the end of the input."""
    edges = edges_of(100, 1100, 300, 200, 1)
    assert edges == [400, 600, 800, 1000]  # the rest of 100 is half of a test
    assert edges_of(100, 1099, 300, 200, 1) == [400, 600, 800]
    assert edges_of(100, 1100, 300, 200, 50)[0] == 400
    assert edges_of(130, 1100, 300, 200, 50)[0] == 400  # at a whole period
    anchored = folds_of(edges, 100, "anchored", 3, 300)
    assert [fold.train for fold in anchored] == [Window(None, edge, 3) for edge in edges]
    assert [fold.test for fold in anchored] == [
        Window(400, 600), Window(600, 800), Window(800, 1000), Window(1000, None)
    ]  # fmt: skip
    rolling = folds_of(edges, 100, "rolling", 0, 300)
    assert [fold.train.start for fold in rolling] == [None, 300, 500, 700]
    assert [fold.train.end for fold in rolling] == edges


def test_so_many_even_windows() -> None:
    """Exactly as many as asked for, edges at whole periods; rolling trains on the one before."""
    assert even_edges(0, 1000, 4, 1) == [200, 400, 600, 800]
    for tests in range(1, 30):
        edges = even_edges(13, 100_013, tests, 1000)
        assert len(set(edges)) == tests
        assert all(edge % 1000 == 0 for edge in edges)
    rolling = folds_of([200, 400, 600], 0, "rolling", 0)
    assert [fold.train.start for fold in rolling] == [None, 200, 400]


@pytest.mark.parametrize(("train", "test"), [(900, 300), (2000, 10), (1, 1)])
def test_windows_that_do_not_fit(train: int, test: int) -> None:
    """Too long for the input, or too many of them."""
    last = 1000 if (train, test) != (1, 1) else 1_000_000
    with pytest.raises(MisuseError, match=r"too short|more than"):
        edges_of(0, last, train, test, 1)
