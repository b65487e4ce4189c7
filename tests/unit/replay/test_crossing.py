"""A user's strategy in one file on 20 years of the S&P 500, against vectorbt and a plain loop.

The figures are those of `oracles/backtest_oracles.py` (QUANT.md 4.3): 1,000,000 of cash, all of it
in, long only, 10 bp.
"""

from pathlib import Path

import arch.data.sp500
import numpy as np
import pandas as pd
import pytest

from pipeline.settings import Settings, load_settings
from tests.fixtures.ticks import arrivals_of, frame, run

STRATEGY = Path(__file__).parents[2] / "fixtures" / "strategies" / "sma_cross.py"


def sp500() -> pd.DataFrame:
    """The daily bars inside the wheel of arch, as ticks of the clock `row`."""
    daily = arch.data.sp500.load()
    named = {"Open": "open", "High": "high", "Low": "low", "Close": "price", "Volume": "size"}
    table = daily[list(named)].rename(columns=named).astype(float)
    return table.assign(
        symbol="SPX", ts=daily.index.to_numpy("M8[ns]").astype(np.int64)
    ).reset_index(drop=True)


def crossing(*sets: str) -> Settings:
    """All in and long only, following the file."""
    chosen = ("bars.clock=row", f'user.features=["{STRATEGY}"]', "signals.follow=sma_cross")
    book = ("fills.long_only=true", "fills.taker_bp=10", "equity.period=1d")
    return load_settings((*chosen, *book, *sets))


@pytest.mark.parametrize(
    ("mode", "final"), [("next_open", 1_470_520.7243071883), ("close", 1_455_907.1566062826)]
)
@pytest.mark.parametrize("guard", ["full", "plain"])
def test_the_crossing_ends_where_the_oracles_do(mode: str, final: float, guard: str) -> None:
    """To 1e-12, with 31 round trips of which 38.7097 % win, and a row of equity for every day."""
    rows = run(
        crossing(f"fills.mode={mode}", f"guard.mode={guard}").chain, arrivals_of(sp500()), [1000]
    )
    equity = pd.concat([frame(one["equity"]) for one in rows])
    fills = pd.concat([frame(one["fills"]) for one in rows])
    np.testing.assert_allclose(equity["equity"].iloc[-1], final, rtol=1e-12)
    assert len(equity) == 5031
    assert len(fills) == 62
    if mode == "close":
        won = fills["pnl"][fills["pnl"] > 0].sum()
        lost = fills["pnl"][fills["pnl"] < 0].sum()
        assert (fills["pnl"] > 0).sum() / 31 == pytest.approx(0.387097, abs=1e-6)
        assert won / -lost == pytest.approx(1.546775, abs=1e-6)
