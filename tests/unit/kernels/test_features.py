"""Kernels of the features against TA-Lib and against toys worked by hand (QUANT 1.3, 1.4)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import talib
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.kernels import indicators as indicator_pieces
from pipeline.kernels import layout as layout_pieces
from pipeline.kernels import reference as reference_pieces
from pipeline.kernels import tickwise as tickwise_pieces
from pipeline.kernels import windows as window_pieces
from schemas.blocks import Array
from tests.fixtures.pieces import standalone

indicators = standalone(indicator_pieces)
layout = standalone(layout_pieces)
reference = standalone(reference_pieces)
tickwise = standalone(tickwise_pieces)
windows = standalone(window_pieces)

TOY_EWMA = [1.0, 1.517321744832, 2.022831999727, 2.636321411639, 4.842861248698, 5.421581397402]
SECOND = 1_000_000_000
WINDOWS = dict.fromkeys(range(layout.WINDOWS), 7) | {
    layout.W_CLOSES: 8,
    layout.W_PRICES: 8,
    layout.W_WAITING: layout.WAITING,
    layout.W_BETA: 3,
}
PLAN, FLOATS, COUNTERS = layout.plan(WINDOWS)
HALF_LIVES = np.array([10.0, 10.0])


def walk(seed: int, n: int = 1500) -> tuple[Array, Array, Array]:
    """High, low and close of a random walk with flat stretches, on a grid as real prices are."""
    g = np.random.default_rng(seed)
    close = 100 + np.round(np.cumsum(g.normal(0, 0.3, n) * (g.random(n) < 0.7)), 2)
    return close + np.round(g.random(n), 2), close - np.round(g.random(n), 2), close


def run(step: Callable[..., Any], *inputs: Array) -> list[Any]:
    """What a recursive indicator says after each input."""
    f, k = np.zeros(8), np.zeros(8, np.int64)
    return [step(f, k, *row) for row in zip(*inputs, strict=True)]


def changes(high: Array, low: Array, close: Array) -> tuple[Array, Array, Array]:
    """True range, up move and down move from the second bar on."""
    tr = np.array(
        [indicators.true_range(*row) for row in zip(high[1:], low[1:], close, strict=False)]
    )
    return tr, np.diff(high), -np.diff(low)


@pytest.mark.parametrize("seed", range(3))
def test_recursive_indicators_equal_talib(seed: int) -> None:
    """RSI, NATR, ADX and MACD of random walks: same first bar, 1e-12 of every value."""
    high, low, close = walk(seed)
    tr, up, down = changes(high, low, close)
    rsi = run(lambda f, k, x: indicators.rsi_step(f, 1, k, 2, 14, x), np.diff(close))
    assert_allclose([math.nan, *rsi], talib.RSI(close, 14), rtol=1e-12)
    atr = run(lambda f, k, x: indicators.atr_step(f, 1, k, 2, 14, x), tr)
    assert_allclose([math.nan, *atr] / close * 100, talib.NATR(high, low, close, 14), rtol=1e-12)
    adx = run(lambda f, k, *x: indicators.adx_step(f, 1, k, 2, 14, *x), tr, up, down)
    assert_allclose([math.nan, *adx], talib.ADX(high, low, close, 14), rtol=1e-12)
    macd = run(lambda f, k, x: indicators.macd_step(f, 1, k, 2, 12, 26, 9, x), close)
    lines, signals, _ = talib.MACD(close, 12, 26, 9)
    assert_allclose(macd, np.column_stack([lines, signals]), rtol=1e-12, atol=1e-12)


def test_a_price_that_never_moved() -> None:
    """RSI is 50 there and ADX 0; TA-Lib gives 0 for both."""
    flat = np.zeros(40)
    rsi = run(lambda f, k, x: indicators.rsi_step(f, 1, k, 2, 14, x), flat)
    assert_array_equal(rsi, [math.nan] * 13 + [50.0] * 27)
    adx = run(lambda f, k, *x: indicators.adx_step(f, 1, k, 2, 14, *x), flat, flat, flat)
    assert_array_equal(adx, [math.nan] * 26 + [0.0] * 14)


def test_log_ratio_equals_the_logarithm() -> None:
    """Both branches agree with an extended-precision logarithm."""
    for step in (0.0, 1e-9, 9.9e-5, -9.9e-5, 1.01e-4, 0.1, -0.5):
        a, b = 61837.63 * (1 + step), 61837.63
        truth = float(np.log1p((np.longdouble(a) - np.longdouble(b)) / np.longdouble(b)))
        assert layout.log_ratio(a, b) == pytest.approx(truth, rel=1e-10, abs=1e-16)


class Symbol:
    """One symbol fed tick by tick; missing fields are NaN."""

    def __init__(self) -> None:
        self.f, self.k = np.zeros(FLOATS), np.zeros(COUNTERS, np.int64)

    def tick(self, ts: float, price: float, **more: float) -> dict[str, float]:
        """Feed a tick, return the tick features after it."""
        quote = [more.get(x, math.nan) for x in ("bid", "ask", "bid_size", "ask_size")]
        size, side = more.get("size", math.nan), int(more.get("side", -1))
        tickwise.tick_update(
            self.f, self.k, PLAN, HALF_LIVES, True, round(ts * SECOND), price, size, side, *quote
        )
        out = np.full((15, 1), math.nan)
        zone = np.array([[-(2**62)], [0]], np.int64)
        tickwise.tick_sample(self.f, self.k, PLAN, zone, out, 0, 0)
        names = (
            "ret_1 ret_20 ewma_vol realized_vol momentum vwap_dev imbalance microprice_dev "
            "queue_imbalance spread_bp ofi size_z intensity tod_sin tod_cos"
        )
        return dict(zip(names.split(), out[:, 0].tolist(), strict=True))


def test_the_time_decayed_mean_of_the_toy() -> None:
    """Values 1..6 at 0, 1, 1, 5, 60, 61 s, half-life 10 s, as pandas ewm(halflife, times)."""
    symbol = Symbol()
    symbol.tick(-1, 100.0)
    price, seen = 100.0, []
    for t, y in zip([0, 1, 1, 5, 60, 61], range(1, 7), strict=True):
        price *= math.exp(math.sqrt(y) * 1e-3)  # the squared return is y, in units of 1e-6
        seen.append(symbol.tick(t, price)["ewma_vol"] ** 2 * 1e6)
    assert_allclose(seen, TOY_EWMA, rtol=1e-9)


def test_a_steady_stream_has_its_rate_from_the_second_tick_on() -> None:
    """Four ticks a second are an intensity of 4: no bias while the average warms up."""
    symbol = Symbol()
    rates = [symbol.tick(i / 4, 100.0)["intensity"] for i in range(400)]
    assert math.isnan(rates[0])
    assert_allclose(rates[1:], 4.0, rtol=0.02)


def test_quotes_of_the_toy() -> None:
    """Bid 100 x 3, ask 101 x 1: microprice 100.75, imbalance .5, spread about 99.5 bp."""
    got = Symbol().tick(0, 100.5, bid=100, ask=101, bid_size=3, ask_size=1)
    assert got["microprice_dev"] == pytest.approx((100.75 - 100.5) / 100.5, rel=1e-14)
    assert got["queue_imbalance"] == 0.5
    assert got["spread_bp"] == pytest.approx(1e4 / 100.5, rel=1e-14)


def test_order_flow_of_the_toy_and_no_trace_of_a_crossed_quote() -> None:
    """Five quotes give e = 2, 6, 3, -3; a crossed quote between them changes nothing after it."""
    quotes = [
        (100, 5, 101, 4),
        (100, 7, 101, 4),
        (101, 2, 102, 6),
        (101, 2, 102, 3),
        (100, 9, 101, 1),
    ]
    clean, crossed = Symbol(), Symbol()
    total = 0.0
    for i, (bid, bid_size, ask, ask_size) in enumerate(quotes):
        sides = {"bid_size": float(bid_size), "ask_size": float(ask_size)}
        a = clean.tick(i, 100.5, bid=bid, ask=ask, **sides)
        b = crossed.tick(i, 100.5, bid=bid, ask=ask, **sides)
        assert_array_equal(list(a.values()), list(b.values()))
        total = windows.sum_read(clean.f, clean.k, tuple(PLAN[layout.W_OFI]))
        assert total == [0, 2, 8, 11, 8][i]
        bad = crossed.tick(i, 100.5, bid=103, ask=99, **sides)
        clean.tick(i, 100.5)  # the same tick without its quote
        assert all(math.isnan(bad[x]) for x in ("microprice_dev", "queue_imbalance", "spread_bp"))


def test_imbalance_by_the_tick_rule() -> None:
    """The toy of seven trades ends at 0; a given side overrules the tick rule."""
    symbol, sided = Symbol(), Symbol()
    seen = []
    for i, (p, q) in enumerate(
        zip([10, 10, 11, 11, 10, 10, 12], [1, 2, 3, 1, 1, 5, 2], strict=True)
    ):
        seen.append(symbol.tick(i, p, size=q)["imbalance"])
        last = sided.tick(i, p, size=q, side=1)["imbalance"]
    assert_array_equal(seen, [math.nan, 0, 3 / 6, 4 / 7, 3 / 8, -2 / 13, 0])
    assert last == -1


def test_zero_and_missing_sizes_are_ignored() -> None:
    """They move the price features only: volume windows hold the sized ticks."""
    plain, mixed = Symbol(), Symbol()
    for i in range(20):
        want = plain.tick(i, 100 + i % 3, size=1 + i % 5)
        got = mixed.tick(i, 100 + i % 3, size=1 + i % 5)
        for name in ("vwap_dev", "size_z"):
            assert_array_equal(got[name], want[name])
        quiet = mixed.tick(i, 100 + i % 3, size=0.0 if i % 2 else math.nan)
        assert math.isnan(quiet["size_z"])
    assert not math.isnan(got["size_z"])


@pytest.mark.parametrize(("hour", "sine", "cosine"), [(6, 1, 0), (12, 0, -1), (18, -1, 0)])
def test_time_of_day(hour: int, sine: float, cosine: float) -> None:
    """06:00 is (1, 0)."""
    got = Symbol().tick(hour * 3600 + 86_400 * 7, 1.0)
    assert (got["tod_sin"], got["tod_cos"]) == pytest.approx((sine, cosine), abs=1e-12)


def test_pairs_wait_for_the_reference() -> None:
    """Where rows are bars a return waits for the reference's row of the same end."""
    own, other = Symbol(), Symbol()
    ends, returns, count = np.zeros(8, np.int64), np.zeros(8), np.zeros(1, np.int64)
    w = tuple(PLAN[layout.W_BETA])

    def pair(end: int) -> bool:
        known: bool = reference.pair_by_end(
            own.f, own.k, PLAN, other.f, other.k, ends, returns, count, 0, end, float(end)
        )
        return known

    assert pair(1) and windows.held(own.k, w) == 0  # noqa: PT018 -- one fact
    reference.remember(ends, returns, count, 1, 0.5)
    reference.remember(ends, returns, count, 3, 0.5)
    assert not pair(2)  # the reference passed 2 without a bar
    assert windows.held(own.k, w) == 1
    assert pair(3)
    assert windows.held(own.k, w) == 2
    assert pair(4)  # not there yet: what is known by now stands
    assert windows.held(own.k, w) == 2


PRICES = st.floats(1e-300, 1e300) | st.sampled_from([0.0, -37.63, 1.0, 1e9])


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(PRICES, PRICES, PRICES), min_size=1, max_size=30))
@example([(1.0, 5e-324, 1.0)] * 12)
def test_finite_ticks_never_poison_a_state(rows: list[tuple[float, float, float]]) -> None:
    """Whatever finite numbers came, tame ticks that fill the windows give tame values again."""
    symbol, fresh = Symbol(), Symbol()
    for i, (price, size, depth) in enumerate(rows):
        symbol.tick(i, price, size=size, bid=price, ask=price, bid_size=depth, ask_size=size)
    for i in range(40):
        quote = {"bid": 99.0, "ask": 101.0, "bid_size": 1.0 + i % 4, "ask_size": 2.0}
        got = symbol.tick(1e6 + i, 100 + i % 7, size=1 + i % 3, **quote)
        want = fresh.tick(1e6 + i, 100 + i % 7, size=1 + i % 3, **quote)
    windowed = ("ret_1", "ret_20", "realized_vol", "vwap_dev", "imbalance", "ofi", "size_z")
    for name in windowed:
        assert got[name] == pytest.approx(want[name], rel=1e-12), name
    assert not np.isnan(symbol.f).any()
