"""Round trips from fills: from no position to no position, or to the other side."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

Row = Mapping[Any, Any]

BOOK: Final = ["partition", "symbol"]
KINDS: Final = {
    "partition": "int32", "symbol": "str", "side": "str", "opened": "int64", "closed": "int64",
    "decided": "int64", "quantity": "float64", "entry": "float64", "exit": "float64",
    "profit": "float64", "return": "float64", "fees": "float64", "slippage": "float64",
    "fills": "int32", "reason": "str",
}  # fmt: skip
_TINY: Final = 1e-9  # of the largest position: what rounding leaves of one that is closed


class _Open:
    """A trade that is not closed yet."""

    def __init__(self, row: Row, quantity: float, share: float) -> None:
        self.first = row
        self.sign = 1.0 if row["side"] == "buy" else -1.0
        self.bought = 0.0
        self.paid = 0.0
        self.sold = 0.0
        self.got = 0.0
        self.profit = 0.0
        self.fees = 0.0
        self.slippage = 0.0
        self.fills = 0
        self.enter(row, quantity, share)

    def _count(self, row: Row, share: float) -> None:
        self.fees += row["fee"] * share
        self.slippage += row["slippage"] * share
        self.fills += 1

    def enter(self, row: Row, quantity: float, share: float) -> None:
        self.bought += quantity
        self.paid += quantity * row["price"]
        self._count(row, share)

    def leave(self, row: Row, quantity: float, share: float) -> None:
        self.sold += quantity
        self.got += quantity * row["price"]
        self.profit += row["pnl"]
        self._count(row, share)

    def done(self, row: Row) -> tuple[Any, ...]:
        first = self.first
        return (
            first["partition"], first["symbol"], "long" if self.sign > 0 else "short",
            first["ts"], row["ts"], first["decided_ts"], self.bought,
            self.paid / self.bought, self.got / self.sold, self.profit, self.profit / self.paid,
            self.fees, self.slippage, self.fills, row["reason"],
        )  # fmt: skip


def round_trips(fills: pd.DataFrame) -> pd.DataFrame:
    """Closed trades of all books in the order of their ends.

    Args:
        fills: rows of the stage `fills` in the order of identity, labels as words.

    An order that turns a position ends one trade and begins the next; its fee and slippage are
    shared by quantity. `profit` is the sum of the `pnl` of its fills: fees and dividends are in it.
    `quantity`, `entry` and `exit` are in the units of their fills: a split lies between them.
    """
    found = []
    for _, mine in fills.groupby(BOOK, sort=False):
        largest = 0.0
        trade: _Open | None = None
        for row in mine.to_dict("records"):
            after, quantity = float(row["position"]), float(row["quantity"])
            largest = max(largest, abs(after), quantity)
            if abs(after) <= _TINY * largest:
                after = 0.0
            if trade is None:
                trade = _Open(row, quantity, 1.0)
            elif (row["side"] == "buy") == (trade.sign > 0):
                trade.enter(row, quantity, 1.0)
            else:
                opened = abs(after) if after * trade.sign < 0.0 else 0.0
                share = (quantity - opened) / quantity
                trade.leave(row, quantity - opened, share)
                if after * trade.sign <= 0.0:
                    found.append(trade.done(row))
                    trade = _Open(row, opened, 1.0 - share) if opened else None
    table = pd.DataFrame(found, columns=list(KINDS)).astype(KINDS)
    return table.sort_values("closed", kind="stable", ignore_index=True)
