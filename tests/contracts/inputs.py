"""Ticks that hypothesis makes: several symbols, equal times, gaps, quotes of all kinds, mishaps."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from schemas.arrivals import FACTORS, FLOATS, Arrivals, arrivals
from schemas.blocks import Array

SYMBOLS = ("AAA", "BBB", "CCC", "REF")
_START = 1_700_000_000_000_000_000
_STEPS = (0, 0, 0, 1, 1_000_000, 700_000_000, 3_000_000_000, 40_000_000_000, 20_000_000_000_000)


@st.composite
def tick_runs(draw: st.DrawFn, most: int = 400) -> dict[str, Array]:
    """Columns of up to `most` ticks; the seed is drawn, so that examples shrink in length."""
    n = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    level = 10.0 ** draw(st.integers(-4, 8))
    spread = draw(st.sampled_from([1e-5, 1e-3, 0.02]))
    symbol = rng.integers(0, draw(st.integers(1, len(SYMBOLS))), n).astype(np.int32)
    columns: dict[str, Array] = {name: np.full(n, np.nan) for name in (*FLOATS, *FACTORS)}
    moves = rng.normal(0, spread, n) * (rng.random(n) < 0.7)
    price = level * np.exp(np.cumsum(moves))
    columns["price"] = np.where(rng.random(n) < 0.005, price * 30, price)
    columns["size"] = np.where(rng.random(n) < 0.8, np.round(rng.exponential(5, n), 1), np.nan)
    half = price * spread * rng.normal(0.4, 0.5, n)  # now and then crossed or locked
    quoted = rng.random(n) < 0.7
    columns["bid"] = np.where(quoted, np.maximum(price - half, price * 0.1), np.nan)
    columns["ask"] = np.where(quoted, np.maximum(price + half, price * 0.1), np.nan)
    deep = quoted & (rng.random(n) < 0.8)
    columns["bid_size"] = np.where(deep, np.round(rng.exponential(3, n)), np.nan)
    columns["ask_size"] = np.where(deep, np.round(rng.exponential(3, n)), np.nan)
    acted = rng.random(n) < 0.004
    columns["factor"] = np.where(acted, 0.5, np.nan)
    columns["volume_factor"] = np.where(acted, 2.0, np.nan)
    steps = rng.choice(np.array(_STEPS), n)
    columns["ts"] = _START + np.cumsum(steps)
    columns["symbol"] = symbol
    columns["side"] = rng.integers(-1, 2, n).astype(np.int32)
    columns["id"] = np.where(rng.random(n) < 0.5, rng.integers(0, 2 * n, n), -1)
    columns["was"] = np.full(n, -1, np.int32)
    columns["recv_ts"] = np.zeros(n, np.int64)
    columns["offset"] = np.arange(n, dtype=np.int64)
    columns["index"] = np.zeros(n, np.int32)
    return columns


def as_arrivals(columns: dict[str, Array]) -> Arrivals:
    """A fresh copy of the columns as the chain takes them."""
    return arrivals(0, {name: values.copy() for name, values in columns.items()}, SYMBOLS)


def cut(columns: dict[str, Array], kept: Any) -> dict[str, Array]:
    """The columns at a mask, an index or a slice."""
    return {name: values[kept] for name, values in columns.items()}
