"""The tree walk beside LightGBM's own predict, a row at a time and all rows at once."""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.kernels.trees import predict
from schemas.trees import read_trees
from tests.fixtures import boosted

RUNS, ROWS, SINGLE = 5, 10_000, 1_000


def seconds(job: Callable[[], object]) -> float:
    """Of one run."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trees", [50, 200])
def test_trees_beside_lightgbm(trees: int) -> None:
    """Nanoseconds a row of both, medians of five runs in turn, on the same rows with equal bits."""
    model = boosted.booster("missing", trees)
    ours = read_trees(model.model_to_string().encode())
    x, _ = boosted.rows(2, ROWS)
    one = [x[i : i + 1] for i in range(SINGLE)]
    assert np.array_equal(predict(ours, x)[1], model.predict(x))
    jobs: dict[str, tuple[int, Callable[[], object]]] = {
        "ours, rows in one kernel": (ROWS, lambda: predict(ours, x)),
        "ours, a call a row": (SINGLE, lambda: [predict(ours, row) for row in one]),
        "LightGBM, a call a row": (
            SINGLE,
            lambda: [model.predict(row, num_threads=1) for row in one],
        ),
        "LightGBM, rows in one call": (ROWS, lambda: model.predict(x, num_threads=1)),
    }
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(RUNS):
        for name, (rows, job) in jobs.items():
            found[name].append(seconds(job) / rows * 1e9)
    base = statistics.median(found["LightGBM, a call a row"])
    lines = [f"\n{trees} trees of 31 leaves, 6 features, one thread"]
    for name, values in found.items():
        middle = statistics.median(values)
        lines.append(
            f"{name:28} {middle:>12,.0f} ns a row {base / middle:8.1f} x LightGBM's single row"
        )
    sys.stdout.write("\n".join(lines) + "\n")
