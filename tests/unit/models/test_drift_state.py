"""The detectors of a partition go on from their bytes, and see when these are not theirs."""

import math

import numpy as np
import pytest

from pipeline.errors import StateError
from pipeline.models.drift import DriftAlarm
from pipeline.models.drift_state import Detectors
from schemas.blocks import Rows
from tests.fixtures.markets import chained, market

SHIFT, N = 24_000, 28_000
EACH = 700


@pytest.fixture(scope="module")
def rows() -> list[Rows]:
    """Features and predictions of a market whose volatility doubles."""
    return chained(market(N, 5, SHIFT, 2.0), ("features", "predictions"))


def watched(rows: list[Rows], *, restarts: bool) -> tuple[list[DriftAlarm], bytes]:
    """All alarms, and the state behind them."""
    detectors, found = Detectors("chain"), []
    for start in range(0, N, EACH):
        for stage in rows:
            found += detectors.step(stage.take(slice(start, start + EACH)))
        if restarts:
            data, detectors = detectors.snapshot(), Detectors("chain")
            detectors.restore(data)
    return found, detectors.snapshot()


def test_a_restart_leaves_no_trace(rows: list[Rows]) -> None:
    """The same alarms and the same bytes, with a restart every few hundred rows."""
    expected, state = watched(rows, restarts=False)
    assert {alarm.name for alarm in expected} >= {"ret_1", "natr_14"}
    assert all(alarm.offset > SHIFT for alarm in expected)
    found, other = watched(rows, restarts=True)
    assert found == expected
    assert other == state


def test_a_state_that_is_of_no_use_is_told(rows: list[Rows]) -> None:
    """Damaged anywhere, of other settings, of no detector at all."""
    detectors = Detectors("chain")
    for stage in rows:
        detectors.step(stage.take(slice(0, 300)))
    data = detectors.snapshot()
    for broken in (b"", b"x", data[:-1], b"\xff" + data, data[:-9] + bytes(9 * [255])):
        with pytest.raises(StateError, match="kept state"):
            Detectors("chain").restore(broken)
    with pytest.raises(StateError, match="other settings"):
        Detectors("another").restore(data)
    with pytest.raises(StateError, match="other settings"):
        Detectors("chain", most=3).restore(data)


def filled(rows: Rows, value: float) -> Rows:
    """The same rows with this value in every column of numbers."""
    columns = {
        name: np.full(len(column), value) if column.dtype == np.float64 else column
        for name, column in rows.columns.items()
    }
    return Rows(rows.stage, columns, rows.symbols)


def test_nulls_and_infinities(rows: list[Rows]) -> None:
    """Rows without a value are none; values without an end are a change, with finite evidence."""
    detectors = Detectors("chain")
    for stage in rows:
        detectors.step(stage.take(slice(0, 6000)))
    before = detectors._features.snapshot()
    features, predictions = (stage.take(slice(6000, 6010)) for stage in rows)
    for stage in (features, predictions):
        assert detectors.step(filled(stage, math.nan)) == []
    for name, array in detectors._features.snapshot().items():
        np.testing.assert_array_equal(array, before[name])
    for value in (math.inf, -math.inf):
        alarms = [
            *detectors.step(filled(features, value)),
            *detectors.step(filled(predictions, value)),
        ]
        assert all(math.isfinite(alarm.evidence) for alarm in alarms)
        assert bool(alarms) is (value > 0)  # then they are measured anew
