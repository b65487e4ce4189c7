"""Planted shifts are found within 2,000 rows, and only those."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import lfilter
from scipy.stats import rankdata
from statsmodels.tsa.stattools import acf

from pipeline.models.drift import (
    FIRST,
    Drift,
    autocorrelation,
    stride_of,
    watched_features,
)
from pipeline.models.losses import LossDrift, Losses
from pipeline.models.scoring import log_loss
from pipeline.replay.figures import HELD, outcomes, said
from pipeline.replay.stored_scores import engine_names
from pipeline.replay.trades import BOOK
from schemas.alerts import drift_document
from schemas.blocks import Array, Rows, empty
from schemas.codec import json_bytes
from tests.fixtures.markets import alarms_of, chained, market
from tests.fixtures.ticks import SECOND

SHIFT = 52_000
SIDED = {("wider", True): ("higher", "lower")}
NAMES = ("bar_ret_1", "boll_z_20", "rsi_14")  # of the columns that tests fill as they like


def stream(values: Array, names: Sequence[str] = NAMES, symbols: Sequence[str] = ("A",)) -> Rows:
    """Rows of features with these values (n, d); symbols take turns."""
    n = len(values)
    rows = empty("features", n, symbols)
    rows.columns["symbol"][:] = np.arange(n) % len(symbols)
    rows.columns["partition"][:] = 0
    rows.columns["offset"][:] = np.arange(n)
    rows.columns["index"][:] = 0
    rows.columns["ts"][:] = np.arange(n)
    for name, column in zip(names, values.T, strict=True):
        rows.columns[name][:] = column
    return rows


def autoregression(n: int, phi: float, seed: int) -> Array:
    """Three series x(t) = phi x(t - 1) + e(t) of variance 1."""
    noise = np.random.default_rng(seed).normal(size=(n, 3))
    return np.asarray(lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise, axis=0))


@pytest.mark.parametrize("times", [1.5, 2.0])
def test_a_shift_of_volatility(times: float) -> None:
    """Told of many features within 2,000 rows, of none before, and about when it began."""
    (features,) = chained(market(SHIFT + 4000, 5, SHIFT, times), ("features",))
    found = alarms_of(Drift(watched_features()), features)
    assert all(alarm.offset > SHIFT for alarm in found)
    soon = {alarm.name: alarm for alarm in found if alarm.offset <= SHIFT + 2000}
    assert {"ret_1", "bar_ret_1", "realized_vol_20", "realized_vol_50", "natr_14"} <= set(soon)
    began = int(features["ts"][SHIFT])
    assert abs(soon["ret_1"].since - began) < 200 * SECOND
    assert (soon["ret_1"].change, soon["natr_14"].change) == ("wider", "higher")


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    ("change", "shift", "times"),
    [("higher", 2.0, 1.0), ("lower", -2.0, 1.0), ("wider", 0.0, 4.0), ("narrower", 0.0, 0.1)],
)
def test_every_kind_of_shift(phi: float, change: str, shift: float, times: float) -> None:
    """Of independent values and of such that hang together; a level that stays is no new alarm."""
    x = autoregression(SHIFT + 30_000, phi, 3)
    x[SHIFT:] = x[SHIFT:] * times + shift
    found = alarms_of(Drift(NAMES), stream(x))
    assert sorted(alarm.name for alarm in found) == sorted(NAMES)
    assert all(SHIFT < alarm.offset <= SHIFT + 2000 for alarm in found)
    # The first values of a wider spread may lie on one side.
    assert {alarm.change for alarm in found} <= {change, *SIDED.get((change, phi > 0), ())}
    assert all(abs(alarm.since - SHIFT) < 400 for alarm in found)


@pytest.mark.parametrize(
    ("horizon", "knew", "knows"),
    [(1, 2 / 3, 1 / 3), (1, 2 / 3, 0.5), (1, 0.55, 0.45), (5, 2 / 3, 1 / 3), (5, 2 / 3, 0.5)],
)
def test_an_engine_that_goes_wrong(horizon: int, knew: float, knows: float) -> None:
    """It said the next move with the probability that it knew it, and says so still."""
    n = SHIFT + 3000
    rng = np.random.default_rng(2)
    right = rng.random(n) < np.where(np.arange(n) < SHIFT, knew, knows)
    up = rng.random(n) < 0.5
    rows = empty("predictions", n, ("A",))
    for name in ("partition", "index", "symbol"):
        rows.columns[name][:] = 0
    rows.columns["offset"][:] = np.arange(n)
    rows.columns["ts"][:] = np.arange(n)
    rows.columns["horizon"][:] = horizon
    close = np.full(n, 100.0)
    for i in range(horizon, n):  # the close a horizon on goes where it was to go
        close[i] = close[i - horizon] * (1.001 if up[i - horizon] else 1 / 1.001)
    rows.columns["close"][:] = close
    for name in LossDrift().names:
        rows.columns[f"p_{'up' if name == 'combined' else name}"][:] = 0.5
    rows.columns["p_momentum"][:] = np.where(up == right, knew, 1 - knew)
    found = alarms_of(LossDrift(), rows, 1000)
    assert [(alarm.kind, alarm.name, alarm.change) for alarm in found] == [
        ("engine", "momentum", "higher")
    ]
    assert SHIFT < found[0].offset <= SHIFT + 2000


def test_losses_are_those_of_the_scores() -> None:
    """One after another, the log losses whose mean a backtest's figures tell."""
    bars, predictions = chained(market(3000, 4), ("bars", "predictions"))
    frame = pd.DataFrame({name: bars[name] for name in (*BOOK, *HELD) if name in bars.columns})
    frame["symbol"] = "A"
    horizon = int(predictions["horizon"][0])
    known, rose = outcomes(frame, horizon)
    for block in (1, 7, 3000):
        losses = Losses()
        parts = [
            part
            for start in range(0, len(predictions), block)
            for _, part, _ in losses.of(predictions.take(slice(start, start + block)))
        ]
        for column, found in zip(said()[1:], np.concatenate(parts, axis=1), strict=True):
            scored = np.flatnonzero(known & ~np.isnan(predictions[column]))
            if column == "p_gbdt":  # without a version
                assert np.isnan(found).all()
                continue
            assert len(scored) > (500 if column == "p_breakout" else 2500)  # it is often silent
            assert np.flatnonzero(~np.isnan(found)).tolist() == scored.tolist()
            expected = [log_loss(predictions[column][[at]], rose[[at]]) for at in scored]
            assert_allclose(found[scored], expected, rtol=1e-12)


def test_engines_have_the_names_that_scores_give_them() -> None:
    """One word for one thing."""
    assert Losses().names == engine_names()


def test_blocks_leave_no_trace() -> None:
    """The same alarms, to the row and the bit, whatever the split."""
    x = autoregression(60_000, 0.5, 1)
    x[30_000:] += 1.0
    rows = stream(x)
    whole = alarms_of(Drift(NAMES), rows, 60_000)
    assert whole
    assert alarms_of(Drift(NAMES), rows, 1000) == whole
    one, found = Drift(NAMES), []
    for start, stop in ((0, 1), (1, 29_999), (29_999, 30_100), (30_100, 60_000)):
        found += one.step(rows.take(slice(start, stop)))
    assert found == whole


@pytest.mark.parametrize("stops", [(0, 1, 4095, 4096, 30_050), (100, 29_999, 30_100, 34_000)])
def test_a_snapshot_leaves_no_trace(stops: Sequence[int]) -> None:
    """Alarms, and how it stands, are the same to the bit, with one that begins as another ended."""
    x = autoregression(60_000, 0.5, 1)
    x[30_000:] += 1.0
    rows = stream(x, symbols=("A", "B", "C"))
    whole = Drift(NAMES)
    expected = alarms_of(whole, rows, 60_000)
    assert expected
    found, one = [], Drift(NAMES)
    for start, stop in pairwise((*stops, 60_000) if stops[0] == 0 else (0, *stops, 60_000)):
        found += one.step(rows.take(slice(start, stop)))
        state, one = one.snapshot(), Drift(NAMES)
        one.restore(state)
    assert found == expected
    assert list(one.rows()) == list(whole.rows())


def test_symbols_are_watched_apart() -> None:
    """A shift of one is told of that one; beyond the most that are watched there is no state."""
    x = autoregression(3 * 20_000, 0.0, 6)
    x[1::3][12_000:] += 1.0  # of B
    drift = Drift(NAMES, most=2)
    found = alarms_of(drift, stream(x, symbols=("A", "B", "C")))
    assert {alarm.symbol for alarm in found} == {"B"}
    assert {row.symbol for row in drift.rows()} == {"A", "B"}
    told = {(row.symbol, row.name): row.alarms for row in drift.rows()}
    assert told == {(s, name): int(s == "B") for s in "AB" for name in NAMES}
    # Rows of another block may have other codes for the same symbols.
    other = stream(x[-3:], symbols=("D", "B", "A"))
    assert drift.step(other) == []
    assert [row.symbol for row in drift.rows()] == [s for s in "AB" for _ in NAMES]


def test_strange_values() -> None:
    """Nulls are no values; infinities are ranked; what stands still may begin to move."""
    x = autoregression(40_000, 0.0, 7)
    x[::3, 0] = math.nan
    x[::1000, 1] = math.inf
    x[1::1000, 1] = -math.inf
    x[:, 2] = 5.0
    drift = Drift(NAMES)
    assert alarms_of(drift, stream(x)) == []
    rows = {row.name: row for row in drift.rows()}
    assert {row.state for row in rows.values()} == {"watched"}
    assert rows[NAMES[2]].stride == 1
    x[:1000, 2] = 5.1
    (alarm,) = drift.step(stream(x[:1000]))
    assert (alarm.name, alarm.change) == (NAMES[2], "higher")
    assert {row.name: row.state for row in drift.rows()}[NAMES[2]] == "measured"


def test_what_wanders_is_not_compared() -> None:
    """A random walk is never what it was: it is unfit, not in alarm."""
    x = np.cumsum(np.random.default_rng(8).normal(size=(60_000, 3)), axis=0)
    drift = Drift(NAMES)
    assert alarms_of(drift, stream(x)) == []
    assert {row.state for row in drift.rows()} == {"unfit"}


def test_what_the_stride_is() -> None:
    """1 for independent values, the window of a moving sum, the long memory of weak ties."""
    rng = np.random.default_rng(9)
    noise = rng.normal(size=FIRST + 100)
    assert stride_of([noise[:FIRST]]) == 1
    summed = np.convolve(noise, np.ones(20), "valid")[:FIRST]
    assert 14 <= stride_of([summed]) <= 40
    slow = lfilter([1], [1, -0.9], noise)[:FIRST]
    assert 15 <= stride_of([slow]) <= 80
    assert stride_of([noise[:FIRST], slow]) == stride_of([slow])
    assert stride_of([np.cumsum(noise)[:FIRST]]) == -1
    assert stride_of([np.zeros(FIRST)]) == 1


def test_autocorrelation_is_that_of_statsmodels() -> None:
    """Of the ranks, ties in the middle."""
    values = np.round(np.random.default_rng(1).normal(size=FIRST).cumsum() / 10)
    ours = autocorrelation(values, 256)
    assert_allclose(ours, acf(rankdata(values), nlags=256, fft=False), atol=1e-12)
    assert_array_equal(autocorrelation(np.ones(9), 3), np.zeros(4))


def test_an_alarm_as_a_document() -> None:
    """Every field of it, times in RFC 3339."""
    x = autoregression(20_000, 0.0, 1)
    x[10_000:] += 3.0
    alarm = alarms_of(Drift(NAMES), stream(x))[0]
    told = drift_document(**asdict(alarm))
    assert told["kind"] == "drift"
    assert (told["of"], told["name"], told["symbol"]) == ("feature", alarm.name, "A")
    assert told["time"] > told["since"] > "1970-01-01T00:00:00.0000"
    assert json_bytes(told)
