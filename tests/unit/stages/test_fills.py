"""Paper fills against figures worked out by hand, and against identities that must hold."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from pipeline.stages.base import Block
from pipeline.stages.fills import Fills, FillsSettings
from schemas.arrivals import Arrivals
from schemas.blocks import ACTIONS, FILL_REASONS, SIDES, Array, empty
from tests.fixtures.ticks import SECOND, START, arrivals_of, frame, run, settings_of, walk

NOTHING = Arrivals(0, {}, [])
NAN = float("nan")
FREE: dict[str, Any] = {"taker_bp": 0.0, "cash": 1000.0}


class Book:
    """A book of one symbol that is told bars with an action each, null for silence."""

    def __init__(self, latency: int = 0, *, rows: bool = False, **settings: Any) -> None:
        self.stage = Fills(FillsSettings(**{**FREE, **settings}), latency, rows=rows)

    def trade(self, table: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
        """The fills, labels as words and `bar` their place, and the books before and after."""
        n = len(table)
        bars, features = empty("bars", n, ["A"]), empty("features", n, ["A"])
        defaults = {
            "symbol": 0, "offset": np.arange(n), "index": 0, "partition": 0, "life": 0,
            "session": 0, "stale": 0, "scale": 1.0, "volume_scale": 1.0, "volume": 100.0,
            "ts": START + np.arange(n) * SECOND,
        }  # fmt: skip
        for name, value in defaults.items():
            bars.columns[name][:] = table.get(name, value)
        for name in ("close", "exec_price", "exec_bid", "exec_ask"):
            if name in table:
                bars.columns[name][:] = table[name]
        bars.columns["trigger_ts"][:] = bars["ts"]
        at = table["exec_ts"] if "exec_ts" in table else bars["ts"]
        bars.columns["exec_ts"][:] = np.where(np.arange(n) == 0, -1, at)
        features.columns["bar_ewma_vol"][:] = table.get("sigma", 0.01)
        said = table["action"].notna().to_numpy()
        signals = empty("signals", int(said.sum()), ["A"])
        for name in ("offset", "index", "symbol"):
            signals.columns[name][:] = bars[name][said]
        signals.columns["action"][:] = [ACTIONS.index(word) for word in table["action"][said]]
        rows = {"bars": bars, "features": features, "signals": signals}
        block = self.stage.step(Block(NOTHING, rows))
        found = pd.DataFrame(dict(block.rows["fills"].columns))
        found["side"] = [SIDES[code] for code in found["side"]]
        found["reason"] = [FILL_REASONS[code] for code in found["reason"]]
        assert block.filled_at[block.filled_at >= 0].tolist() == found["ts"].tolist()
        return found.rename(columns={"offset": "bar"}), block.books


def bars(*rows: tuple[Any, ...], **columns: Any) -> pd.DataFrame:
    """Bars of (action, execution price, close)."""
    table = pd.DataFrame(rows, columns=["action", "exec_price", "close"])
    return table.assign(**columns)


ROUND = bars(("buy", NAN, 10.0), (None, 11.0, 12.0), ("sell", 12.5, 13.0), (None, 12.0, 9.0))


def test_a_decision_is_filled_at_the_next_reference() -> None:
    """Bought at 11, not at the close of 10 that was decided on; the profit is of the two fills."""
    found, books = Book(long_only=True).trade(ROUND)
    assert found["bar"].tolist() == [1, 3]
    assert found["side"].tolist() == ["buy", "sell"]
    assert found["reason"].tolist() == ["signal", "signal"]
    assert found["price"].tolist() == [11.0, 12.0]
    assert found["decided_ts"].tolist() == [START, START + 2 * SECOND]
    assert found["ts"].tolist() == [START + SECOND, START + 3 * SECOND]
    np.testing.assert_allclose(found["quantity"], [1000 / 11] * 2, rtol=1e-15)
    np.testing.assert_allclose(found["pnl"], [NAN, 1000 / 11], rtol=1e-13)
    np.testing.assert_allclose(found["cash"], [0.0, 12000 / 11], rtol=1e-15)
    assert books[1, 0, 0] == 0.0
    np.testing.assert_allclose(books[1, 1, 0], 1000 / 11, rtol=1e-15)


def test_sell_goes_short_and_turns_round() -> None:
    """Short 1000/11 at 11, then long with all of 1000/11 x (22 - 10) at 10, in one order."""
    table = bars(("sell", NAN, 10.0), (None, 11.0, 10.0), ("buy", 9.0, 10.0), (None, 10.0, 20.0))
    found, _ = Book().trade(table)
    assert found["side"].tolist() == ["sell", "buy"]
    np.testing.assert_allclose(found["position"], [-1000 / 11, 1200 / 11], rtol=1e-13)
    np.testing.assert_allclose(found["cash"], [2000, 0], atol=1e-9)
    np.testing.assert_allclose(found["pnl"], [NAN, 1000 / 11], rtol=1e-12)


def test_the_close_is_for_research() -> None:
    """Mode close fills at the very price that was decided on."""
    found, _ = Book(mode="close", long_only=True).trade(ROUND)
    assert found["bar"].tolist() == [0, 2]
    assert found["price"].tolist() == [10.0, 13.0]
    assert (found["ts"] == found["decided_ts"]).all()


QUOTED = ROUND.assign(exec_bid=[NAN, 10.9, NAN, 11.5], exec_ask=[NAN, 11.3, NAN, 12.1])


@pytest.mark.parametrize(
    ("settings", "prices"),
    [
        ({"mode": "next_quote"}, [11.3, 11.5]),
        ({"mode": "next_trade"}, [11.0 + 0.2, 12.0 - 0.3]),
        ({"mode": "next_trade", "half_spread_bp": 50}, [11.0 + 0.2, 12.0 - 0.3]),
        ({"mode": "next_open"}, [11.0, 12.0]),
        ({"mode": "next_open", "half_spread_bp": 10}, [11.0 * 1.001, 12.0 * 0.999]),
        ({"mode": "next_open", "slippage_bp": 20}, [11.0 * 1.002, 12.0 * 0.998]),
        ({"mode": "next_quote", "slippage_bp": 20}, [11.3 * 1.002, 11.5 * 0.998]),
    ],
)
def test_prices_by_mode(settings: dict[str, Any], prices: list[float]) -> None:
    """Ask and bid; the trade and half of the spread; the trade; and fixed slippage on any."""
    found, _ = Book(long_only=True, **settings).trade(QUOTED)
    np.testing.assert_allclose(found["price"], prices, rtol=1e-15)
    assert found["reference"].tolist() == [11.0, 12.0]
    paid = np.array([prices[0] - 11.0, 12.0 - prices[1]]) * found["quantity"]
    np.testing.assert_allclose(found["slippage"], paid, atol=1e-12)


def test_impact_is_the_square_root_law() -> None:
    """The cost is y sigma sqrt(q / V) of the bars before: V is the EWMA .94 of 100 and then 400."""
    table = ROUND.assign(volume=[100.0, 400.0, 1.0, 7.0], sigma=[0.02, 0.03, 0.05, 0.9])
    found, _ = Book(mode="next_open", impact=0.5, sizing="fixed", quantity=4.0).trade(table)
    up = 0.5 * 0.02 * np.sqrt(4 / 100)
    volume = 0.94 * (0.94 * 100 + 0.06 * 400) + 0.06 * 1
    down = 0.5 * 0.05 * np.sqrt(8 / volume)
    np.testing.assert_allclose(found["price"], [11 * (1 + up), 12 * (1 - down)], rtol=1e-14)


def test_fees_are_counted_as_stated() -> None:
    """Basis points and so much a unit, at least a minimum; all cash buys cash / (p (1 + fee))."""
    found, _ = Book(taker_bp=10, long_only=True).trade(ROUND)
    q = 1000 / (11 * 1.001)
    np.testing.assert_allclose(found["quantity"], [q, q], rtol=1e-15)
    np.testing.assert_allclose(found["fee"], [q * 0.011, q * 0.012], rtol=1e-14)
    np.testing.assert_allclose(found["pnl"][1], q * 12 * 0.999 - 1000, rtol=1e-12)
    found, _ = Book(taker_bp=10, maker_bp=2, liquidity="maker", long_only=True).trade(ROUND)
    np.testing.assert_allclose(found["fee"], found["quantity"] * found["price"] * 2e-4, rtol=1e-14)
    sized: dict[str, Any] = {"sizing": "fixed", "quantity": 4.0, "long_only": True}
    found, _ = Book(fee_per_unit=0.5, **sized).trade(ROUND)
    assert found["fee"].tolist() == [2.0, 2.0]
    found, _ = Book(fee_per_unit=0.5, fee_minimum=3.0, taker_bp=10, **sized).trade(ROUND)
    assert found["fee"].tolist() == [3.0, 3.0]
    found, _ = Book(fee_minimum=100.0, fee_per_unit=0.1, long_only=True).trade(ROUND)
    assert found["cash"].iloc[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found["quantity"][0], 900 / 11, rtol=1e-14)


def test_sizes_are_what_the_settings_say() -> None:
    """A share of the equity; so many bp a bar at the volatility of the decision; a quantity."""
    cases: list[tuple[dict[str, Any], float]] = [
        ({"fraction": 0.25}, 250 / 11),
        ({"sizing": "volatility", "vol_target_bp": 50}, 500 / 11),
        ({"sizing": "volatility", "vol_target_bp": 500}, 1000 / 11),  # as far as the cash reaches
        ({"sizing": "fixed", "quantity": 7.0}, 7.0),
        ({"fraction": 3.0, "max_leverage": 2.0}, 2000 / 11),
        ({"max_position": 5.0}, 5.0),
        ({"participation": 0.05}, 5.0),
    ]
    for settings, quantity in cases:
        found, _ = Book(**settings).trade(ROUND.assign(sigma=[0.01, 0.5, 0.5, 0.5]))
        np.testing.assert_allclose(found["quantity"][0], quantity, rtol=1e-14)


def test_what_the_participation_cuts_goes_on() -> None:
    """Five a bar until what was wanted is there: 12 in three bars."""
    table = bars(("buy", NAN, 10.0), *[(None, 10.0, 10.0)] * 5)
    found, _ = Book(sizing="fixed", quantity=12.0, participation=0.05).trade(table)
    assert found["quantity"].tolist() == [5.0, 5.0, 2.0]
    assert found["bar"].tolist() == [1, 2, 3]


def test_parts_of_a_close_have_their_parts_of_the_profit() -> None:
    """Bought 8 at 10 with 10 bp, sold 5 and 3 at 12: each has its share of what they cost."""
    table = bars(
        ("buy", NAN, 10.0), (None, 10.0, 10.0), ("hold", 10.0, 10.0), *[(None, 12.0, 9.0)] * 2
    )  # fmt: skip
    settings: dict[str, Any] = {"sizing": "fixed", "quantity": 8.0, "taker_bp": 10}
    found, _ = Book(on_hold="flat", participation=0.05, **settings).trade(table)
    assert found["quantity"].tolist() == [5.0, 3.0, 5.0, 3.0]
    np.testing.assert_allclose(found["pnl"][2:], [5 * 1.978, 3 * 1.978], rtol=1e-12)


def test_what_covers_a_short_position_is_always_bought() -> None:
    """With hardly any equity left the fee of covering is owed, not avoided."""
    table = bars(("sell", NAN, 10.0), ("buy", 10.0, 19.8), (None, 19.8, 19.8))
    found, _ = Book(taker_bp=100).trade(table)
    assert found["position"].tolist() == [-100.0, 0.0]
    np.testing.assert_allclose(found["cash"], [1990.0, 1990 - 1980 * 1.01], rtol=1e-13)


def test_an_unknown_size_is_not_traded() -> None:
    """Without volatility there is no volatility target, without volume no part of it."""
    for settings, column in (
        ({"sizing": "volatility"}, "sigma"),
        ({"participation": 0.5}, "volume"),
    ):
        found, books = Book(**settings).trade(ROUND.assign(**{column: NAN}))
        assert found.empty
        assert books[-1, 1, 5] == 3  # every reference refused


@pytest.mark.parametrize(
    ("mode", "columns"),
    [
        ("next_trade", {"exec_bid": [NAN, 11.2, 1.0, 1.0], "exec_ask": [NAN, 11.1, 2.0, 2.0]}),
        ("next_quote", {"exec_bid": [NAN, 10.0, 1.0, 1.0], "exec_ask": [NAN, NAN, 2.0, 2.0]}),
        ("next_trade", {"exec_price": [NAN, NAN, 1.5, 2.0]}),
        ("next_trade", {"exec_price": [NAN, -1.0, 1.5, 2.0]}),
        ("next_trade", {"exec_price": [NAN, 0.0, 1.5, 2.0]}),
        ("next_trade", {"session": [0, 1, 1, 1]}),
        ("close", {"stale": [1, 0, 0, 0]}),
    ],
    ids=["crossed", "one-sided", "stale", "negative", "zero", "halted", "stale close"],
)
def test_some_prices_are_refused(mode: str, columns: dict[str, Any]) -> None:
    """A price that nobody could trade at is counted, and the order takes the next one."""
    table = bars(("buy", NAN, 10.0), (None, 11.0, 12.0), (None, 1.5, 13.0), (None, 2.0, 9.0))
    found, books = Book(mode=mode).trade(table.assign(**columns))
    first = 1 if mode == "close" else 2
    assert found["bar"].tolist() == [first]
    assert books[first - 1, 1, 5] == 1
    assert books[-1, 1, 5] == 1


def test_rows_trade_across_nights() -> None:
    """With bars of days every bar is a session, and its open is where one trades."""
    found, _ = Book(rows=True, long_only=True).trade(ROUND.assign(session=[0, 1, 2, 3]))
    assert found["bar"].tolist() == [1, 3]


def test_an_order_needs_its_latency() -> None:
    """A reference sooner than decision + latency is not ours."""
    table = bars(("buy", NAN, 10.0), *[(None, p, 10.0) for p in (11.0, 12.0, 13.0)])
    found, _ = Book(2 * SECOND).trade(table)
    assert found["bar"].tolist() == [2]
    assert found["price"].tolist() == [12.0]
    found, _ = Book(2 * SECOND + 1).trade(table)
    assert found["price"].tolist() == [13.0]


def test_hold_keeps_or_ends() -> None:
    """Hold after buy keeps the position, or sells it where `on_hold` is flat."""
    table = bars(("buy", NAN, 10.0), ("hold", 10.0, 10.0), (None, 10.0, 10.0))
    assert Book().trade(table)[0]["bar"].tolist() == [1]
    assert Book(on_hold="flat").trade(table)[0]["position"].tolist() == [100.0, 0.0]


def test_a_drawdown_stops_the_book_for_good() -> None:
    """Below 80 of a peak of 100 all is sold at the next reference; later signals are not heard."""
    closes = [10.0, 12.0, 9.7, 9.5, 9.5, 9.5]
    actions = ["buy", None, None, None, "sell", "buy"]
    table = bars(*((a, 10.0, c) for a, c in zip(actions, closes, strict=True)))
    found, _ = Book(max_drawdown=0.2).trade(table)
    assert found["bar"].tolist() == [1, 4]  # 95 < .8 x 120, told by the close of bar 3
    assert found["reason"].tolist() == ["signal", "loss_limit"]
    assert found["position"].tolist() == [100.0, 0.0]


def test_a_daily_loss_stops_until_the_next_day() -> None:
    """5 % below the last equity of the day before: sold, and free again after midnight."""
    day = 86_400 * SECOND
    midnight = START // day * day
    hours = [10, 11, 12, 13, 14, 15, 24, 25, 26]
    closes = [10.0, 11.0, 10.4, 10.4, 10.4, 10.4, 10.4, 10.4, 10.4]
    actions = ["buy", None, None, "sell", "buy", None, "sell", "sell", None]
    table = bars(*((a, 10.0, c) for a, c in zip(actions, closes, strict=True)))
    table["ts"] = [midnight + h * 3600 * SECOND for h in hours]
    assert Book(daily_loss=0.05).trade(table)[0]["bar"].tolist()[:2] == [1, 4]  # gains are no loss
    table.loc[2:, "close"] = 9.4
    found, _ = Book(daily_loss=0.05).trade(table)
    assert found["bar"].tolist() == [1, 3, 8]  # at 24 h it is still that day
    assert found["reason"].tolist() == ["signal", "loss_limit", "signal"]


def test_a_loss_of_the_night_is_a_loss_of_the_day() -> None:
    """The day begins with the last equity of the day before."""
    table = bars(("buy", NAN, 10.0), (None, 10.0, 10.0), (None, 9.4, 9.4), (None, 9.4, 9.4))
    table["ts"] = START // (86_400 * SECOND) * 86_400 * SECOND + 86_400 * SECOND // 4 * np.array(
        [1, 2, 5, 6]
    )
    found, _ = Book(daily_loss=0.05).trade(table)
    assert found["bar"].tolist() == [1, 3]


def test_a_split_and_a_dividend_leave_the_equity() -> None:
    """2:1 doubles the units; 3 % paid out is cash, and what a short position owes."""
    table = bars(("buy", NAN, 10.0), (None, 10.0, 10.0), (None, 5.0, 5.0), (None, 4.85, 4.85))
    table["scale"], table["volume_scale"] = [1, 1, 0.5, 0.5 * 0.97], [1.0, 1, 2, 2]
    for action, sign in (("buy", 1.0), ("sell", -1.0)):
        table.loc[0, "action"] = action
        found, books = Book().trade(table)
        assert len(found) == 1
        np.testing.assert_allclose(books[1:, 1, 0], sign * np.array([100, 200, 200]), rtol=1e-14)
        equity = books[:, 1, 1] + books[:, 1, 0] * table["close"]
        np.testing.assert_allclose(equity, 1000.0, rtol=1e-13)
        np.testing.assert_allclose(books[3, 1, 1] - books[2, 1, 1], sign * 30.0, rtol=1e-12)


def test_an_instrument_that_ends_is_settled() -> None:
    """Its last close is what is left of it; the order for it is gone, its successor not bought."""
    table = bars(("buy", NAN, 10.0), (None, 10.0, 12.0), ("sell", 10.0, 11.0), (None, 500.0, 501.0))
    found, books = Book(taker_bp=10).trade(table.assign(life=[0, 0, 0, 1]))
    assert found["reason"].tolist() == ["signal", "instrument_ended"]
    assert found["price"].tolist() == [10.0, 11.0]
    assert found["fee"].iloc[1] == 0.0
    assert books[3, 1, 0] == 0.0
    np.testing.assert_allclose(books[3, 1, 1], 100 / 1.001 * 11, rtol=1e-13)


def test_the_profits_add_up() -> None:
    """Golden: on walks of ticks the profit, fees and cash of all fills are those of the books."""
    settings = settings_of(
        bars={"clock": "ticks:3"}, fills={"taker_bp": 0.5, "slippage_bp": 0.3, "fraction": 0.4}
    )
    rows = run(settings, arrivals_of(walk(9000)), [4000])
    fills = pd.concat([frame(one["fills"]) for one in rows])
    books = pd.concat([frame(one["equity"]) for one in rows]).groupby("symbol").last()
    assert len(fills) > 60
    assert (fills["ts"] > fills["decided_ts"]).all()
    for symbol, mine in fills.groupby("symbol"):
        book = books.loc[str(symbol)]
        np.testing.assert_allclose(mine["pnl"].sum(), book["pnl"], rtol=1e-9)
        np.testing.assert_allclose(mine["fee"].sum(), book["fees"], rtol=1e-12)
        # What is open has cost what was paid since the position was last zero or turned.
        signed = mine["quantity"] * np.where(mine["side"] == 0, 1, -1)
        np.testing.assert_allclose(signed.sum(), mine["position"].iloc[-1], rtol=1e-9)
        cash = 1e6 - (signed * mine["price"]).sum() - mine["fee"].sum()
        np.testing.assert_allclose(mine["cash"].iloc[-1], cash, rtol=1e-9)


def flat_end(**settings: Any) -> float:
    """The money gained by a long and a short round, sold at the end."""
    table = bars(
        ("buy", NAN, 10.0), (None, 11.0, 12.0), ("sell", 12.5, 13.0), (None, 12.0, 9.0),
        ("hold", 9.0, 9.0), (None, 8.0, 9.0),
    )  # fmt: skip
    found, books = Book(on_hold="flat", **settings).trade(table)
    assert books[-1, 1, 0] == 0.0
    gained = float(books[-1, 1, 1] - settings.get("cash", 1000.0))
    np.testing.assert_allclose(found["pnl"].sum(), gained, rtol=1e-12)
    return gained


def test_doubling_the_capital_doubles_the_profit() -> None:
    """Golden: nothing in a book depends on its size where there is no minimum fee."""
    one = flat_end(cash=1000.0, taker_bp=10)
    np.testing.assert_allclose(flat_end(cash=2000.0, taker_bp=10), 2 * one, rtol=1e-13)
    assert flat_end(cash=1000.0, fee_minimum=1.0) != 2 * flat_end(cash=500.0, fee_minimum=1.0)


def test_long_and_short_of_a_size_are_the_costs() -> None:
    """Golden: the profits of the two are minus all that was paid."""
    sized: dict[str, Any] = {"sizing": "fixed", "quantity": 3.0, "taker_bp": 10, "slippage_bp": 5}
    gains, costs = 0.0, 0.0
    for first in ("buy", "sell"):
        table = bars((first, NAN, 10.0), (None, 11.0, 12.0), ("hold", 1.0, 13.0), (None, 12.0, 9.0))
        found, books = Book(on_hold="flat", **sized).trade(table)
        gains += books[-1, 1, 1] - 1000.0
        costs += found["fee"].sum() + found["slippage"].sum()
    np.testing.assert_allclose(gains, -costs, rtol=1e-12)
    assert costs > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "yesterday"}, {"cash": 0}, {"taker_bp": -1}, {"participation": 1.5},
        {"max_drawdown": 0}, {"fraction": float("inf")}, {"nothing": 1},
    ],
)  # fmt: skip
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    """What makes no sense is refused when the settings are made."""
    with pytest.raises(ValidationError):
        FillsSettings(**wrong)
