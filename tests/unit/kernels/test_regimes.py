"""The sorted window of the regimes against numpy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import regimes as regime_pieces
from tests.fixtures.pieces import standalone

regimes = standalone(regime_pieces)

FEW = st.integers(1, 12)
MANY = st.integers(regimes.COUNTED - 1, 2 * regimes.COUNTED)  # searched by halves first


@settings(max_examples=25, deadline=None)
@given(st.one_of(FEW, MANY), st.integers(0, 2**32 - 1), st.integers(1, 400), st.floats(0, 1))
def test_quantiles_equal_numpy_to_the_bit(n: int, seed: int, levels: int, q: float) -> None:
    """The sorted window's linear quantile is numpy's, full or not, with few levels or many."""
    chance = np.random.default_rng(seed)
    values = chance.normal(size=levels)[chance.integers(0, levels, 2 * n + 3)]
    ordered = np.full(n + 1, np.inf)  # one more: nothing beside it is read
    for i, value in enumerate(values):
        if i < n:
            regimes.sorted_insert(ordered, i, value)
        else:
            regimes.sorted_replace(ordered, n, values[i - n], value)
        part = values[max(0, i - n + 1) : i + 1]
        assert list(ordered[: len(part)]) == sorted(part)
        assert regimes.find(ordered, len(part), value) == np.searchsorted(np.sort(part), value)
        assert regimes.quantile(ordered, len(part), q) == np.quantile(part, q)
