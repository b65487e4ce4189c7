"""Round trips worked out by hand."""

from typing import Any

import pandas as pd
import pytest

from pipeline.replay.trades import KINDS, round_trips


def fills(*rows: tuple[str, float, float, float, float | None], **more: Any) -> pd.DataFrame:
    """Fills of (side, quantity, price, position, pnl), one a second, each with a fee of 1."""
    table = pd.DataFrame(rows, columns=["side", "quantity", "price", "position", "pnl"])
    n = len(table)
    defaults: dict[str, Any] = {
        "partition": 0, "symbol": "A", "ts": range(10, 10 + n), "decided_ts": range(n),
        "fee": 1.0, "slippage": 0.5, "reason": "signal",
    }  # fmt: skip
    return table.assign(**{**defaults, **more})


def test_a_trade_ends_where_the_position_does() -> None:
    """Two entries and two exits are one trade: means of prices, sums of profits and fees."""
    found = round_trips(
        fills(
            ("buy", 2, 10.0, 2, None),
            ("buy", 2, 12.0, 4, None),
            ("sell", 1, 13.0, 3, 1.5),
            ("sell", 3, 15.0, 1e-12, 11.5),
            ("sell", 5, 15.0, -5, None),
        )
    )
    assert len(found) == 1  # the short one is open
    one = found.iloc[0]
    assert (one["side"], one["quantity"], one["entry"], one["exit"]) == ("long", 4, 11.0, 14.5)
    assert (one["opened"], one["closed"], one["decided"]) == (10, 13, 0)
    assert (one["profit"], one["fees"], one["slippage"], one["fills"]) == (13.0, 4.0, 2.0, 4)
    assert one["return"] == pytest.approx(13 / 44)


def test_an_order_that_turns_is_of_two_trades() -> None:
    """Its fee is shared by quantity; the second trade begins with it."""
    found = round_trips(
        fills(
            ("sell", 2, 10.0, -2, None),
            ("buy", 8, 9.0, 6, 1.5),
            ("sell", 6, 8.0, 0, -7.0),
            reason=["signal", "signal", "loss_limit"],
        )
    )
    assert found["side"].tolist() == ["short", "long"]
    assert found["quantity"].tolist() == [2.0, 6.0]
    assert found["profit"].tolist() == [1.5, -7.0]
    assert found["fees"].tolist() == [1.25, 1.75]
    assert found["opened"].tolist() == [10, 11]
    assert found["reason"].tolist() == ["signal", "loss_limit"]


def test_books_are_apart() -> None:
    """Each symbol of each partition has trades of its own, all in the order of their ends."""
    rows = [("buy", 1, 10.0, 1, None), ("sell", 1, 11.0, 0, 1.0)]
    parts = [
        fills(*rows, symbol="A", ts=[1, 9]),
        fills(*rows, symbol="B", ts=[2, 5]),
        fills(*rows, symbol="A", partition=1, ts=[3, 7]),
    ]
    found = round_trips(pd.concat(parts, ignore_index=True))
    assert found["symbol"].tolist() == ["B", "A", "A"]
    assert found["closed"].tolist() == [5, 7, 9]


def test_no_fill_no_trade() -> None:
    """An empty table of all columns."""
    found = round_trips(fills())
    assert found.empty
    assert {name: str(kind) for name, kind in found.dtypes.items()} == KINDS
