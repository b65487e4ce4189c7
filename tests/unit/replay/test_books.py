"""The portfolio of a replay's books, its days, and its regimes, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.replay.books import by_regime, exposure, portfolio_of, tagged, year_of
from pipeline.replay.trades import round_trips
from schemas.times import DAY
from tests.unit.replay.test_trades import fills


def books(*rows: tuple[str, int, float], partition: int = 0) -> pd.DataFrame:
    """Rows of equity of (symbol, ts, equity), no position."""
    table = pd.DataFrame(rows, columns=["symbol", "ts", "equity"])
    return table.assign(partition=partition, position=0.0, mark=10.0)


def test_the_portfolio_is_the_sum_of_all_books() -> None:
    """A book stands at its cash before its first row, and goes on at its last equity."""
    table = books(("A", 1, 110.0), ("B", 3, 90.0), ("A", 3, 120.0), ("B", 7, 95.0), ("A", 8, 100.0))
    found = portfolio_of(table, 100.0)
    assert (found.books, found.capital) == (2, 200.0)
    assert found.beats["ts"].tolist() == [1, 3, 7, 8]
    assert found.beats["equity"].tolist() == [210.0, 210.0, 215.0, 195.0]
    assert found.curve.tolist() == [200.0, 195.0]


def test_partitions_are_books_of_their_own() -> None:
    """A symbol on two partitions has two books; where its rows lie changes no sum."""
    table = books(("A", 1, 110.0), ("B", 2, 90.0))
    moved = table.assign(partition=[0, 1])
    assert portfolio_of(table, 100.0).beats.equals(portfolio_of(moved, 100.0).beats)
    twice = pd.concat([books(("A", 1, 110.0)), books(("A", 2, 80.0), partition=1)])
    assert portfolio_of(twice, 100.0).curve.tolist() == [200.0, 190.0]


def test_gross_is_what_is_held_on_either_side() -> None:
    """Long and short add up."""
    table = books(("A", 1, 100.0), ("B", 2, 100.0)).assign(position=[2.0, -3.0])
    assert portfolio_of(table, 100.0).beats["gross"].tolist() == [20.0, 50.0]


def test_a_midnight_ends_its_day() -> None:
    """The stamp 2 x DAY is the end of the second day; later ones are of the third."""
    table = books(
        ("A", DAY, 1.0), ("A", 2 * DAY - 1, 2.0), ("A", 2 * DAY, 3.0), ("A", 2 * DAY + 1, 4.0)
    )
    found = portfolio_of(table, 1.0).days
    assert found["ts"].tolist() == [DAY, 2 * DAY, 3 * DAY]
    assert found["equity"].tolist() == [1.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("days", "year"),
    [(range(30), 365), ([d for d in range(60) if d % 7 < 5], 252), (range(5), 252), ([], 252)],
)
def test_a_market_without_weekends_has_365_days(days: list[int], year: int) -> None:
    """Told by how many days of the span there are."""
    assert year_of(pd.DataFrame({"ts": np.array(days, np.int64) * DAY})) == year


def test_exposure_is_the_time_in_any_position() -> None:
    """A holds from 10 to 20, B from 15 to 30 and from 90 on: 30 of 100."""
    one = fills(("buy", 1, 1.0, 1, None), ("sell", 1, 1.0, 0, 0.0), ts=[10, 20])
    other = fills(
        ("sell", 1, 1.0, -1, None), ("buy", 1, 1.0, 0, 0.0), ("buy", 1, 1.0, 1, None),
        symbol="B", ts=[15, 30, 90],
    )  # fmt: skip
    assert exposure(pd.concat([one, other]), 0, 100) == pytest.approx(0.3)
    assert exposure(one.iloc[:0], 0, 100) == 0.0
    assert exposure(one, 5, 5) is None


def regimes() -> pd.DataFrame:
    """Calm from 100 on, wild from 2 DAY + 100 on; null before."""
    return pd.DataFrame(
        {
            "partition": 0,
            "symbol": "A",
            "ts": [50, 100, 2 * DAY + 100],
            "vol": [None, "low", "high"],
            "trend": ["range", "range", "trend"],
        }
    )


def test_a_tag_is_what_was_told_by_then() -> None:
    """At its own time it is told, just before it is not; another symbol knows nothing of it."""
    rows = pd.DataFrame(
        {"partition": 0, "symbol": ["A"] * 5 + ["B"], "at": [0, 60, 99, 100, 101, 500]}
    )
    found = tagged(rows, "at", regimes())
    assert found["regime"].tolist() == [*["warming up"] * 3, *["low, range"] * 2, "warming up"]
    assert found["at"].tolist() == rows["at"].tolist()


def test_gains_belong_to_the_regime_before_them() -> None:
    """The step into a regime is the one before's; all gains are the equity gained."""
    table = books(
        ("A", DAY, 100.0), ("A", 2 * DAY, 107.0), ("A", 3 * DAY, 103.0), ("A", 4 * DAY, 90.0)
    )
    trades = round_trips(
        fills(("buy", 1, 10.0, 1, None), ("sell", 1, 9.0, 0, -1.0), decided_ts=[120, 130])
    )
    found = {row["regime"]: row for row in by_regime(table, trades, regimes(), 98.0, 252)}
    assert {name: row["gain"] for name, row in found.items()} == {
        "warming up": 2.0, "low, range": 3.0, "high, trend": -13.0,
    }  # fmt: skip
    assert [row["share_of_time"] for row in found.values()] == [0.25, 0.5, 0.25]
    assert found["low, range"]["trades"] == 1
    assert found["low, range"]["profit"] == -1.0
    assert found["high, trend"]["sharpe"] is None  # of one day


def test_ratios_of_a_regime_are_those_of_its_days() -> None:
    """Sharpe, Sortino and PSR of the days that began in it, by numpy and scipy."""
    levels = [100.0, 101.0, 99.0, 102.5, 102.0, 104.0, 103.0]
    table = books(*(("A", (k + 1) * DAY, level) for k, level in enumerate(levels)))
    found = {
        row["regime"]: row for row in by_regime(table, round_trips(fills()), regimes(), 100.0, 252)
    }
    rates = np.diff(levels)[2:] / levels[2:-1]  # the days after the third one's tag
    wild = found["high, trend"]
    assert wild["days"] == len(rates)
    assert wild["sharpe"] == pytest.approx(
        rates.mean() / rates.std(ddof=1) * np.sqrt(252), rel=1e-12
    )
    down = np.sqrt((np.minimum(rates, 0.0) ** 2).mean())
    assert wild["sortino"] == pytest.approx(rates.mean() / down * np.sqrt(252), rel=1e-12)
    ratio = rates.mean() / rates.std(ddof=1)
    skew, kurt = stats.skew(rates), stats.kurtosis(rates, fisher=False)
    spread = np.sqrt(1 - skew * ratio + (kurt - 1) / 4 * ratio**2)
    psr = stats.norm.cdf(ratio * np.sqrt(len(rates) - 1) / spread)
    assert wild["psr"] == pytest.approx(psr, rel=1e-12)
