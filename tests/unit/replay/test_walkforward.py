"""Test windows as one curve, and what it costs to leave each of them."""

import numpy as np
import pandas as pd
import pytest

from pipeline.replay.splits import Fold, Window
from pipeline.replay.trial_figures import Outcome, closing_cost
from pipeline.replay.walkforward import Choice, Stitched, stitch
from pipeline.stages.fills import FillsSettings


def choice(start: int, end: int | None, equity: list[float], cost: float = 0.0) -> Choice:
    """A window whose periods of 10 ns end at 10, 20, ... behind its start."""
    ts = [start // 10 * 10 + 10 * (k + 1) for k in range(len(equity))]
    test = Outcome({"capital": 100.0, "closing_cost": cost}, ts, equity)
    return Choice(Fold(Window(None, start), Window(start, end)), (), 0, test)


def test_windows_carry_on_what_the_one_before_left() -> None:
    """Returns multiply, and a window pays for leaving what it held."""
    found = stitch([choice(0, 20, [110.0, 120.0], 10.0), choice(20, None, [50.0])], np.array([]))
    assert found.ts == [10, 20, 30]
    assert found.fold == [0, 0, 1]
    np.testing.assert_allclose(found.equity, [1.0, 1.1, 1.1, 0.55], rtol=1e-15)


def test_a_period_of_two_windows_is_one_return() -> None:
    """An edge within a period: the later window's end is the period's."""
    found = stitch([choice(0, 15, [110.0, 120.0]), choice(15, None, [50.0, 60.0])], np.array([]))
    assert found.ts == [10, 20, 30]
    np.testing.assert_allclose(found.equity, [1.0, 1.1, 0.6, 0.72], rtol=1e-15)


def test_what_was_not_traded_lies_flat() -> None:
    """Its periods count: cash earns nothing, and that is a return as well."""
    fold = Fold(Window(None, 20), Window(20, 50))
    choices = [choice(0, 20, [90.0, 120.0]), Choice(fold, (), None, None), choice(50, 60, [50.0])]
    found = stitch(choices, np.arange(10, 100, 10))
    assert found.ts == [10, 20, 30, 40, 50, 60]
    assert found.fold == [0, 0, 1, 1, 1, 2]
    np.testing.assert_allclose(found.equity, [1, 0.9, 1.2, 1.2, 1.2, 1.2, 0.6], rtol=1e-15)
    assert stitch([Choice(fold, (), None, None)], np.array([])) == Stitched([], [], [1.0])


@pytest.mark.parametrize(
    ("settings", "cost"),
    [
        ({"taker_bp": 10.0}, 2.0 + 0.5),
        ({"taker_bp": 0.0, "slippage_bp": 5.0, "half_spread_bp": 15.0}, 4.0 + 1.0),
        ({"taker_bp": 0.0, "fee_per_unit": 0.5, "fee_minimum": 7.0}, 10.0 + 7.0),
        ({"taker_bp": 10.0, "liquidity": "maker", "maker_bp": 1.0}, 0.2 + 0.05),
    ],
)
def test_leaving_is_paid_for(settings: dict[str, object], cost: float) -> None:
    """20 units at 100 and 5 short at 100: the last row of each book, nothing for the flat one."""
    equity = pd.DataFrame(
        {
            "partition": 0,
            "symbol": ["A", "A", "B", "C"],
            "position": [999.0, 20.0, -5.0, 0.0],
            "mark": [1.0, 100.0, 100.0, 100.0],
        }
    )
    found = closing_cost(equity, FillsSettings.model_validate(settings))
    assert found == pytest.approx(cost, rel=1e-12)
    assert closing_cost(equity.iloc[:0], FillsSettings()) == 0.0
