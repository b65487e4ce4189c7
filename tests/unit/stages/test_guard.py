"""The guard beyond single ticks: spikes, sessions, instruments, corporate actions, renames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.settings import load_settings
from pipeline.sources.factors import read_factors
from pipeline.sources.files import AS_IT_IS, Reading, read_arrivals
from pipeline.stages.base import Block, joined
from pipeline.stages.chain import Chain
from pipeline.stages.ticks import GuardSettings, Ticks
from schemas.arrivals import Arrivals
from schemas.blocks import Rows
from schemas.ticks import COUNTED
from tests.fixtures.ticks import SECOND, START, arrivals_of

DAY = 86_400 * SECOND


def guarded(table: pd.DataFrame, **more: Any) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """The rows of the guard over a table of ticks, and its counts by symbol."""
    stage = Ticks(GuardSettings(**more))
    rows = stage.step(Block(arrivals_of(table))).rows["ticks"]
    counts = [dict(zip(map(str, COUNTED), row, strict=True)) for row in stage.counts().tolist()]
    frame = pd.DataFrame({**rows.columns, "symbol": np.array(rows.symbols)[rows["symbol"]]})
    return frame, dict(zip(stage.symbols, counts, strict=True))


def calm(n: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Prices around 100 that move by about 2 bp."""
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 2e-4, n)))


def test_a_spike_is_quarantined_and_leaves_no_trace() -> None:
    """A price ten times off that reverts is flagged; every later row is as if it never came."""
    price = np.insert(calm(200), 150, 1000.0)
    rows, counts = guarded(pd.DataFrame({"price": price}))
    assert rows["flag"].tolist() == [0] * 150 + [1] + [0] * 50
    assert counts["A"]["quarantined"] == 1
    assert counts["A"]["level_shift"] == 0
    settings = load_settings(["bars.clock=ticks:1"]).chain
    with_spike = Chain(settings).step(arrivals_of(pd.DataFrame({"price": price})))
    table = pd.DataFrame(
        {"price": calm(200), "ts": START + np.delete(np.arange(201), 150) * SECOND}
    )
    without = Chain(settings).step(arrivals_of(table))
    for stage in ("bars", "features", "predictions"):
        for name, values in with_spike.rows[stage].columns.items():
            if name != "offset":
                np.testing.assert_array_equal(values, without.rows[stage][name], name)


def test_a_confirmed_level_enters_with_the_tick_that_confirms_it() -> None:
    """The first tick of a new level stays out, the second one is accepted as a level shift."""
    price = np.concatenate([calm(100), 2 * calm(20, 1)])
    rows, counts = guarded(pd.DataFrame({"price": price}))
    assert np.flatnonzero(rows["flag"]).tolist() == [100]
    assert counts["A"]["level_shift"] == 1


def test_silence_makes_sessions_and_a_jump_after_long_silence_an_instrument() -> None:
    """Four hours end a session; sixty days and a jump end the instrument, a return does not."""
    ts = START + np.arange(40) * SECOND
    ts[20:] += 5 * 3600 * SECOND
    ts[30:] += 61 * DAY
    back = calm(40)
    rows, counts = guarded(pd.DataFrame({"ts": ts, "price": back}))
    assert rows["session"].tolist() == [0] * 20 + [1] * 10 + [2] * 10
    assert rows["life"].max() == 0
    assert counts["A"]["session_break"] == 2
    other = np.concatenate([back[:30], 5 * back[30:]])
    rows, counts = guarded(pd.DataFrame({"ts": ts, "price": other}))
    assert rows["life"].tolist() == [0] * 30 + [1] * 10
    assert counts["A"]["new_instrument"] == 1
    assert not rows["flag"].any()


def test_quotes_and_ids_are_counted() -> None:
    """Crossed and locked quotes, and trade ids that are missing in between."""
    table = pd.DataFrame(
        {
            "price": [100.0] * 5,
            "bid": [99.0, 101.0, 100.0, np.nan, 99.0],
            "ask": [101.0, 100.0, 100.0, 100.0, np.nan],
            "id": [1, 2, 5, 6, 9],
        }
    )
    _, counts = guarded(table, consecutive_ids=True)
    assert [counts["A"][name] for name in ("crossed", "locked", "id_gap")] == [1, 1, 4]
    assert guarded(table)[1]["A"]["id_gap"] == 0


def test_negative_prices_are_for_named_symbols() -> None:
    """The symbol of the switch keeps them, with null log features; the others reject them."""
    table = pd.DataFrame({"symbol": ["CL", "A"] * 3, "price": [1.0, 1.0, -37.63, -1.0, -30.0, 2.0]})
    rows, counts = guarded(table, allow_negative=("CL",))
    assert rows["price"].tolist() == [1.0, 1.0, -37.63, -30.0, 2.0]
    assert counts["A"]["non_positive"] == 1
    sets = ["bars.clock=ticks:1", 'guard.allow_negative=["CL"]']
    block = Chain(load_settings(sets).chain).step(arrivals_of(table))
    assert (
        np.isnan(block.rows["features"]["bar_ret_1"]).all()
        or not np.isinf(block.rows["features"]["bar_ret_1"]).any()
    )
    found = block.rows["features"]
    codes = np.array(found.symbols)[found["symbol"]] == "CL"
    assert np.isnan(found["bar_ret_1"][codes]).all()


def test_the_clock_may_be_the_receipt() -> None:
    """With guard.time=receive the receive time is the time of the chain."""
    table = pd.DataFrame({"price": [1.0, 1.0], "recv_ts": [START + 5, START + 9]})
    rows, _ = guarded(table, time="receive")
    assert rows["ts"].tolist() == [START + 5, START + 9]


def frame(rows: Rows) -> pd.DataFrame:
    """Rows as a table, symbols by name."""
    return pd.DataFrame({**rows.columns, "symbol": np.array(rows.symbols)[rows["symbol"]]})


@pytest.fixture(scope="module")
def equities(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Block, Block]:
    """Features of the equity sample: raw with its factor file, and of prices adjusted by pandas."""
    source = samples / "us_equity_daily_1998_2021.csv.gz"
    factors = samples / "us_equity_factors.csv.gz"
    raw, table = pd.read_csv(source), pd.read_csv(factors)
    day = raw["ts"].str[:10].str.replace("-", "").astype(int)
    price, split = np.ones(len(raw)), np.ones(len(raw))
    for symbol, rows in table.groupby("symbol"):
        ordered = rows.sort_values("date")
        mine = (raw["symbol"] == symbol).to_numpy()
        at = np.searchsorted(ordered["date"].to_numpy(), day[mine])
        at = np.minimum(at, len(ordered) - 1)
        price[mine] = (ordered["price_factor"] * ordered["split_factor"]).to_numpy()[at]
        split[mine] = ordered["split_factor"].to_numpy()[at]
    for name in ("price", "open", "high", "low"):
        raw[name] *= price
    raw["size"] /= split
    adjusted = tmp_path_factory.mktemp("equities") / "adjusted.csv"
    raw.to_csv(adjusted, index=False, float_format="%.17g")
    return run(source, Reading(factors=read_factors(factors))), run(adjusted, AS_IT_IS)


def run(path: Path, reading: Reading) -> Block:
    """The rows of a file, its rows as bars."""
    chain = Chain(load_settings(["bars.clock=row", "features.reference_symbol=SPY"]).chain)
    parts: list[Arrivals] = list(read_arrivals(path, 65_536, reading))
    return joined([chain.step(part) for part in parts], parts[0])


def test_factors_give_the_features_of_adjusted_prices(equities: tuple[Block, Block]) -> None:
    """Every feature without a unit equals that of the back-adjusted file, at every row.

    1e-6: adjusted prices are rounded products, and differences of prices lose those digits. The ADX
    compares up and down moves for equality, which such rounding decides otherwise now and then.
    """
    ours, theirs = (block.rows["features"] for block in equities)
    units = {"macd_line", "macd_signal", "macd_hist", "amihud_20", "adx_14"}
    for name, values in ours.columns.items():
        if values.dtype == np.float64 and name not in units:
            np.testing.assert_allclose(values, theirs[name], rtol=1e-6, atol=1e-8, err_msg=name)
    same = np.isclose(ours["adx_14"], theirs["adx_14"], rtol=1e-9, equal_nan=True)
    assert same.mean() > 0.9


def test_identity_jumps_enter_no_volatility_and_the_crash_does(
    equities: tuple[Block, Block],
) -> None:
    """No split and no reused ticker moves a volatility; AIG on 2008-09-15 does, by -.871."""
    features = frame(equities[0].rows["features"])
    bars = frame(equities[0].rows["bars"])
    features["day"] = pd.to_datetime(features["ts"]).dt.strftime("%Y-%m-%d")
    assert bars.groupby("symbol")["life"].max().to_dict() == {
        "AIG": 0, "EEM": 1, "FB": 1, "GOOG": 0, "GOOGL": 0, "IBM": 0, "IWM": 0, "QQQ": 1, "SPY": 0,
        "USO": 1, "WM": 1,
    }  # fmt: skip
    jumps = {
        "WM": "2009-08-05", "USO": "2006-04-10", "EEM": "2003-04-11", "FB": "2012-05-18",
        "QQQ": "2011-03-23",
    }  # fmt: skip
    for symbol, day in jumps.items():
        row = features[(features["symbol"] == symbol) & (features["day"] == day)].iloc[0]
        assert np.isnan(row["bar_ret_1"])
        assert np.isnan(row["bar_ewma_vol"])
    splits = {"AIG": ("2009-07-01", -0.2231), "QQQ": ("2000-03-20", -0.0373),
              "IBM": ("1999-05-27", -0.0145)}  # fmt: skip
    for symbol, (day, ret) in splits.items():
        row = features[(features["symbol"] == symbol) & (features["day"] == day)].iloc[0]
        assert row["bar_ret_1"] == pytest.approx(ret, abs=1e-4)  # the README of the data, 4 digits
    aig = features[features["symbol"] == "AIG"]
    before, crash = (aig[aig["day"] == day].iloc[0] for day in ("2008-09-12", "2008-09-15"))
    assert crash["bar_ret_1"] == pytest.approx(-0.870874, abs=1e-6)
    assert crash["bar_ewma_vol"] > 2 * before["bar_ewma_vol"]


def test_a_rename_moves_the_state() -> None:
    """After `was` every row is as if the symbol had borne the new name all along."""
    n = 120
    price, size = calm(n), np.arange(1.0, n + 1)
    names = ["OLD"] * 70 + ["NEW"] * 50
    table = pd.DataFrame({"symbol": names, "price": price, "size": size})
    came = arrivals_of(table)
    came.columns["was"][70] = came.symbols.index("OLD")
    settings = load_settings(["bars.clock=ticks:3"]).chain
    moved = Chain(settings).step(came)
    always = Chain(settings).step(arrivals_of(table.assign(symbol="NEW")))
    for stage, rows in moved.rows.items():
        ours, theirs = frame(rows), frame(always.rows[stage])
        names_apart = ours.drop(columns="symbol"), theirs.drop(columns="symbol")
        pd.testing.assert_frame_equal(*names_apart, check_exact=True)
        assert set(ours["symbol"][ours["offset"] >= 70]) <= {"NEW"}
