"""Indices of compiled loops count from the start."""

import numpy as np

from pipeline.kernels.hot import loop
from schemas.blocks import Array


@loop
def _read(values: Array, at: int) -> float:
    return values[at]  # type: ignore[no-any-return]


@loop
def _write(table: Array, row: int, column: int, value: float) -> None:
    table[row, column] += value
    table[row, -1] = value


def test_a_computed_index_is_never_taken_from_the_end() -> None:
    """One below the start of a view is what lies before it, not the last item of the view."""
    memory = np.arange(20.0)
    assert _read(memory[10:], 3) == 13.0
    assert _read(memory[10:], -1) == 9.0


def test_a_written_out_negative_index_counts_from_the_end() -> None:
    """-1 in the source is the last item, beside a computed index too."""
    table = np.zeros((2, 3))
    _write(table, 1, 1, 5.0)
    assert table.tolist() == [[0.0, 0.0, 0.0], [0.0, 5.0, 5.0]]
