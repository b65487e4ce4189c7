"""The books on their clock against brute force, and against figures worked out by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from pipeline.stages.equity import EquitySettings, parse_period
from tests.fixtures.ticks import SECOND, START, arrivals_of, frame, run, settings_of, walk

MINUTE = 60 * SECOND


def told(
    table: pd.DataFrame, cuts: Sequence[int] = (), **groups: Any
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Equity, fills and bars of a run over ticks."""
    rows = run(settings_of(**groups), arrivals_of(table), cuts)
    equity, fills, bars = (
        pd.concat([frame(one[stage]) for one in rows], ignore_index=True)
        for stage in ("equity", "fills", "bars")
    )
    return equity, fills, bars


@pytest.mark.parametrize("clock", ["time:10s", "time:1m", "ticks:1", "ticks:7", "row"])
@pytest.mark.parametrize("period", ["1m", "5m"])
def test_every_beat_by_brute_force(clock: str, period: str) -> None:
    """Each beat is the sum of all fills at or before it and the last close at or before it."""
    width = parse_period(period)
    equity, fills, bars = told(walk(4000, seed=2), bars={"clock": clock}, equity={"period": period})
    beats = 0
    for symbol, mine in equity.groupby("symbol"):
        closes = bars[bars["symbol"] == symbol]
        ours = fills[fills["symbol"] == symbol]
        expected = sorted({-(-ts // width) * width for ts in closes["ts"].tolist()})
        assert mine["ts"].tolist() == expected
        filled, side, quantity, price, fee = (
            ours[name].to_numpy() for name in ("ts", "side", "quantity", "price", "fee")
        )
        truth = []
        for ts in expected:
            done = filled <= ts
            signed = quantity[done] * np.where(side[done] == 0, 1.0, -1.0)
            truth.append(
                (
                    closes["close"].to_numpy()[closes["ts"].to_numpy() <= ts][-1],
                    1e6 - (signed * price[done]).sum() - fee[done].sum(),
                    signed.sum(),
                    (quantity[done] * price[done]).sum(),
                )
            )
        mark, cash, position, traded = np.array(truth).T
        assert mine["mark"].tolist() == mark.tolist()
        np.testing.assert_allclose(mine["cash"], cash, rtol=1e-9, atol=1e-3)
        np.testing.assert_allclose(mine["position"], position, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(mine["equity"], cash + position * mark, rtol=1e-9)
        np.testing.assert_allclose(mine["traded"], traded)
        assert (mine["refused"] >= 0).all()
        beats += len(mine)
    assert beats > 20
    assert len(fills) > 10


def test_a_beat_is_told_by_the_next_bar() -> None:
    """A bar on the beat belongs to it; a silent beat is not told; the end tells the rest."""
    table = pd.DataFrame({"price": [10.0, 11.0, 12.0, 13.0], "size": 1.0})
    seconds = [1, 60, 61, 300]
    table["ts"] = [START // MINUTE * MINUTE + s * SECOND for s in seconds]
    equity, _, _ = told(table, bars={"clock": "row"})
    assert ((equity["ts"] - START // MINUTE * MINUTE) // MINUTE).tolist() == [1, 2, 5]
    assert equity["mark"].tolist() == [11.0, 12.0, 13.0]
    assert equity["offset"].tolist() == [2, 3, 4]
    assert equity["known_at"].tolist() == table["ts"].tolist()[2:] + table["ts"].tolist()[3:]
    assert equity["equity"].tolist() == [1e6] * 3


@pytest.mark.parametrize(
    ("text", "ns"),
    [("30s", 30 * SECOND), ("1m", MINUTE), ("2h", 120 * MINUTE), ("1d", 1440 * MINUTE)],
)
def test_periods_are_read(text: str, ns: int) -> None:
    """Every unit."""
    assert parse_period(text) == ns


@pytest.mark.parametrize("text", ["", "0s", "1", "1y", "1.5h", "-1m", "1m ", "367d"])
def test_other_periods_are_refused(text: str) -> None:
    """When the settings are made."""
    with pytest.raises(ValidationError, match="period"):
        EquitySettings(period=text)
