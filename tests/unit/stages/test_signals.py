"""Signals against the rule worked out by hand: edge after costs, published when it changes."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import MisuseError
from pipeline.stages.base import Block
from pipeline.stages.signals import Signals, SignalsSettings
from schemas.arrivals import Arrivals
from schemas.blocks import ACTIONS, Array, empty

NOTHING = Arrivals(0, {}, [])
# E|r| of a normal return of standard deviation 1.
MEAN_ABSOLUTE = math.sqrt(2 / math.pi)


def follow(values: Array, life: Array) -> list[tuple[int, str]]:
    """Place and action of each signal that follows a column of features."""
    n = len(values)
    predictions, features, bars = (empty(s, n, ["A"]) for s in ("predictions", "features", "bars"))
    for rows in (predictions, bars):
        rows.columns["symbol"][:] = 0
    predictions.columns["offset"][:] = np.arange(n)
    predictions.columns["p_up"][:] = 0.9
    bars.columns["life"][:] = life
    features.columns["momentum_20"][:] = values
    stage = Signals(SignalsSettings(follow="momentum_20"))
    rows_by_stage = {"bars": bars, "features": features, "predictions": predictions}
    found = stage.step(Block(NOTHING, rows_by_stage)).rows["signals"]
    assert np.isnan(found["edge_bp"]).all()
    actions = [ACTIONS[code] for code in found["action"]]
    return list(zip(found["offset"].tolist(), actions, strict=True))


def decide(
    p_up: Array, sigma: Array, symbol: Array | None = None, cost: float = 1.0
) -> pd.DataFrame:
    """The stage over predictions; `place` is the row of the prediction that each signal is of."""
    n = len(p_up)
    rows = empty("predictions", n, ["A", "B"])
    rows.columns["symbol"][:] = 0 if symbol is None else symbol
    rows.columns["offset"][:] = np.arange(n)
    rows.columns["p_up"][:] = p_up
    rows.columns["sigma"][:] = sigma
    rows.columns["close"][:] = 100.0 + np.arange(n)
    rows.columns["horizon"][:] = 5
    stage = Signals(SignalsSettings(cost_bp=cost))
    bars = empty("bars", n, ["A", "B"])
    bars.columns["life"][:] = 0
    block = stage.step(Block(NOTHING, {"bars": bars, "predictions": rows}))
    return pd.DataFrame(dict(block.rows["signals"].columns))


def expected(p_up: Array, sigma: Array, cost: float) -> list[tuple[int, str, float]]:
    """Place, action and edge of every change, in plain Python."""
    found, last = [], ""
    for place, (p, s) in enumerate(zip(p_up.tolist(), sigma.tolist(), strict=True)):
        if math.isnan(p) or math.isnan(s):
            continue
        edge = abs(2 * p - 1) * s * MEAN_ABSOLUTE * 1e4 - cost
        action = "hold" if edge <= 0 else "buy" if p > 0.5 else "sell"
        if action != last:
            found.append((place, action, edge))
        last = action
    return found


@pytest.mark.parametrize("cost", [0.0, 1.0, 5.0])
def test_signals_are_the_changes_of_action(cost: float) -> None:
    """Action, edge, confidence and place as a loop in plain Python finds them."""
    rng = np.random.default_rng(int(cost))
    p_up, sigma = rng.uniform(0.3, 0.7, 500), rng.uniform(0, 2e-3, 500)
    p_up[rng.random(500) < 0.1] = np.nan
    sigma[rng.random(500) < 0.1] = np.nan
    found, truth = decide(p_up, sigma, cost=cost), expected(p_up, sigma, cost)
    assert 20 < len(truth) < 490
    assert found["offset"].tolist() == [place for place, _, _ in truth]
    assert [ACTIONS[code] for code in found["action"]] == [action for _, action, _ in truth]
    np.testing.assert_allclose(
        found["edge_bp"], [edge for _, _, edge in truth], rtol=1e-12, atol=1e-12
    )
    at = found["offset"].to_numpy()
    np.testing.assert_allclose(found["confidence"], np.abs(2 * p_up[at] - 1), rtol=1e-15)
    assert found["p_up"].tolist() == p_up[at].tolist()
    assert found["price"].tolist() == (100.0 + at).tolist()
    assert (found["horizon"] == 5).all()


def test_the_first_decision_is_a_signal_even_if_it_is_hold() -> None:
    """A subscriber learns that the engine is awake; after that silence means no change."""
    found = decide(np.full(4, 0.5), np.full(4, 1e-3))
    assert found["offset"].tolist() == [0]
    assert ACTIONS[found["action"][0]] == "hold"
    assert found["edge_bp"][0] == -1.0


def test_an_edge_of_just_the_costs_is_not_traded() -> None:
    """Costs must be earned, not met."""
    edge = 0.2 * 1e-3 * MEAN_ABSOLUTE * 1e4
    assert ACTIONS[decide(np.array([0.6]), np.array([1e-3]), cost=edge)["action"][0]] == "hold"
    assert (
        ACTIONS[decide(np.array([0.6]), np.array([1e-3]), cost=edge * 0.99)["action"][0]] == "buy"
    )
    assert (
        ACTIONS[decide(np.array([0.4]), np.array([1e-3]), cost=edge * 0.99)["action"][0]] == "sell"
    )


def test_no_lean_and_no_costs_is_hold() -> None:
    """An edge of exactly zero is none, also where trading is free."""
    assert ACTIONS[decide(np.array([0.5]), np.array([1e-3]), cost=0.0)["action"][0]] == "hold"


def test_a_silent_prediction_changes_nothing() -> None:
    """Null probability keeps the last action: the same action afterwards is no signal."""
    found = decide(np.array([0.9, np.nan, 0.9, 0.1]), np.full(4, 1e-2))
    assert found["offset"].tolist() == [0, 3]


def test_symbols_act_apart() -> None:
    """The action of one symbol says nothing about another's."""
    found = decide(np.array([0.9, 0.9, 0.9, 0.1]), np.full(4, 1e-2), np.array([0, 1, 0, 1]))
    assert found["offset"].tolist() == [0, 1, 3]


def test_a_column_decides_where_it_is_followed() -> None:
    """Its sign is the action, null says nothing, another instrument begins anew."""
    column = np.array([np.nan, 0.5, 2.0, np.nan, 0.1, 0.0, -1.0, -1.0, -0.5])
    found = follow(column, np.array([0, 0, 0, 0, 0, 0, 0, 0, 1]))
    assert found == [(1, "buy"), (5, "hold"), (6, "sell"), (8, "sell")]


def test_an_unknown_column_is_told() -> None:
    """In one line that names it."""
    with pytest.raises(MisuseError, match="no column nothing"):
        Signals(SignalsSettings(follow="nothing"))
