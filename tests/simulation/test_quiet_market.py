"""A million rows in which nothing changes raise no alarm of drift."""

import pytest

from pipeline.models.drift import Drift, watched_features
from pipeline.models.losses import LossDrift
from schemas.blocks import Rows
from tests.fixtures.markets import alarms_of, chained, market


def quiet() -> tuple[Rows, Rows]:
    """Features and predictions of 1,000,000 rows in which nothing changes."""
    features, predictions = chained(market(1_000_000, 11), ("features", "predictions"))
    return features, predictions


@pytest.mark.timeout(300)
def test_a_million_rows_without_a_shift() -> None:
    """No alarm of any feature or engine; where more are allowed, fewer come than that."""
    features, predictions = quiet()
    assert alarms_of(Drift(watched_features()), features) == []
    states = {row.name: row for row in drift_of(features).rows()}
    watched = [name for name, row in states.items() if row.state == "watched"]
    assert len(watched) >= 25
    # A promise of one in 10,000 rows would allow 100.
    assert len(alarms_of(Drift(watched_features(), rows=1e4), features)) < 20
    drift = LossDrift()
    assert alarms_of(drift, predictions) == []
    states = {row.name: row for row in drift.rows()}
    assert states.pop("gbdt").state == "measured"  # it says nothing without a version
    assert {row.state for row in states.values()} == {"watched"}


def drift_of(rows: Rows) -> Drift:
    """The state after some rows."""
    drift = Drift(watched_features())
    drift.step(rows.take(slice(0, 20_000)))
    return drift
