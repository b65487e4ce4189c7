"""Candles over real Postgres, against pandas and by hand."""

from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from pipeline.settings import Settings
from pipeline.stages.equity import parse_period
from schemas.blocks import Rows
from schemas.times import format_rfc3339, parse_rfc3339
from tests.integration.api.conftest import SECOND, START, Feed, ask, make_rows, served

MINUTE = 60 * SECOND
FIELDS = "start end life open high low close volume notional vwap n knownAt symbol"
QUERY = f"""query ($symbol: String!, $interval: String!, $source: CandleSource!, $from: DateTime,
  $to: DateTime, $first: Int, $after: String, $last: Int, $before: String, $asOf: AsOf) {{
  candles(symbol: $symbol, interval: $interval, source: $source, from: $from, to: $to,
          first: $first, after: $after, last: $last, before: $before, asOf: $asOf) {{
    edges {{ cursor node {{ {FIELDS} }} }}
    pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
  }}
}}"""


async def page(client: httpx.AsyncClient, **variables: Any) -> dict[str, Any]:
    """A page of A's candles."""
    given = {"symbol": "A", "interval": "1m", "source": "BARS", **variables}
    answer = await ask(client, QUERY, **given)
    assert "errors" not in answer, answer
    found: dict[str, Any] = answer["data"]["candles"]
    return found


def nodes(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Its candles."""
    return [edge["node"] for edge in found["edges"]]


def bars(seconds: Any, **values: Any) -> Rows:
    """Bars of A that end at these seconds after START, with prices that vary."""
    n = len(seconds)
    rng = np.random.default_rng(n)
    close = 100 + rng.normal(0, 1, n).cumsum()
    given = {
        "ts": START + np.asarray(seconds) * SECOND,
        "known_at": START + np.asarray(seconds) * SECOND + 7,
        "open": close - 0.25, "high": close + 1, "low": close - 1, "close": close,
        "volume": rng.integers(1, 9, n) * 0.5, "notional": close * 2,
        "scale": 1.0, "volume_scale": 1.0, "life": 0,
        **values,
    }  # fmt: skip
    rows = make_rows("bars", "A", n, **given)
    rows.columns["n"][:] = 3
    return rows


def resampled(rows: Rows, interval: int) -> pd.DataFrame:
    """What pandas makes of bars: those that end within (start, end]."""
    names = ("open", "high", "low", "close", "volume", "notional", "n", "known_at")
    frame = pd.DataFrame({name: rows[name] for name in names})
    frame["known_at"] -= START  # where intervals are empty, pandas makes floats of them
    frame.index = pd.to_datetime(rows["ts"])
    how = {
        "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum",
        "notional": "sum", "n": "sum", "known_at": "max",
    }  # fmt: skip
    grouped = frame.resample(f"{interval}ns", closed="right", label="left", origin="epoch")
    found = grouped.agg(how)
    return found[found["n"] > 0]


@pytest.mark.parametrize("interval", ["10s", "1m", "7m", "1h", "1d"])
async def test_candles_are_those_of_pandas(settings: Settings, feed: Feed, interval: str) -> None:
    """All intervals, over a gap of days, from both ends and by pages."""
    seconds = np.concatenate([np.arange(10, 4000, 10), np.arange(400_000, 401_000, 10)])
    rows = bars(seconds)
    await feed.commit({"bars": rows}, ["A"])
    wanted = resampled(rows, parse_period(interval))
    async with served(settings) as client:
        whole = nodes(await page(client, interval=interval, first=500))
        starts = wanted.index.to_numpy().astype("datetime64[ns]").astype(np.int64).tolist()
        assert [parse_rfc3339(one["start"]) for one in whole] == starts
        for name in ("open", "high", "low", "close", "n"):
            assert [one[name] for one in whole] == wanted[name].tolist()
        for name in ("volume", "notional"):  # the order of a sum is ours: to the last bits
            np.testing.assert_allclose([one[name] for one in whole], wanted[name], rtol=1e-13)
        known = [parse_rfc3339(one["knownAt"]) - START for one in whole]
        assert known == wanted["known_at"].tolist()
        assert [one["vwap"] for one in whole] == [o["notional"] / o["volume"] for o in whole]
        for size, turn in (("first", "after"), ("last", "before")):
            found: list[dict[str, Any]] = []
            edge = None
            while True:
                one = await page(client, interval=interval, **{size: 37, turn: edge})
                found = found + nodes(one) if size == "first" else nodes(one) + found
                info = one["pageInfo"]
                if not info["hasNextPage" if size == "first" else "hasPreviousPage"]:
                    break
                edge = info["endCursor" if size == "first" else "startCursor"]
            assert found == whole


async def test_ranges_and_moments(settings: Settings, feed: Feed) -> None:
    """Bounds are of the beginning of a candle; asOf leaves out what came later."""
    await feed.commit({"bars": bars(np.arange(10, 600, 10))}, ["A"])
    async with served(settings) as client:
        bounds = {"from": format_rfc3339(START + 1), "to": format_rfc3339(START + 3 * MINUTE)}
        starts = [one["start"] for one in nodes(await page(client, **bounds))]
        assert starts == [format_rfc3339(START + k * MINUTE) for k in (1, 2)]
        moment = {"knownAt": format_rfc3339(START + 95 * SECOND)}
        then = nodes(await page(client, asOf=moment))
        assert [one["n"] for one in then] == [18, 9]
        assert nodes(await page(client, first=0)) == []


async def test_ticks_make_candles(settings: Settings, feed: Feed) -> None:
    """A tick belongs to the interval that begins with it; a quarantined one to none."""
    rows = make_rows(
        "ticks", "A", 5,
        ts=START + np.array([0, 59, 60, 61, 119]) * SECOND,
        price=np.array([1.0, 3.0, 10.0, 99.0, 4.0]), size=np.array([1.0, 2.0, np.nan, 5.0, 1.0]),
        flag=np.array([0, 0, 0, 1, 0]), scale=1.0, volume_scale=1.0, life=0,
    )  # fmt: skip
    await feed.commit({"ticks": rows}, ["A"])
    async with served(settings) as client:
        one, two = nodes(await page(client, source="TICKS"))
        assert (one["open"], one["high"], one["low"], one["close"]) == (1, 3, 1, 3)
        assert (one["volume"], one["notional"], one["vwap"], one["n"]) == (3, 7, 7 / 3, 2)
        assert (two["open"], two["high"], two["low"], two["close"]) == (10, 10, 4, 4)
        assert (two["volume"], two["n"]) == (1, 2)


async def test_a_split_inside_a_candle(settings: Settings, feed: Feed) -> None:
    """Prices and volumes of before are brought into the units of after; vwap is of one unit."""
    rows = bars(
        [10, 20, 30],
        open=np.array([100.0, 100.0, 51.0]), high=np.array([104.0, 102.0, 52.0]),
        low=np.array([96.0, 98.0, 49.0]), close=np.array([100.0, 101.0, 50.0]),
        volume=np.array([1.0, 1.0, 4.0]), notional=np.array([100.0, 100.0, 200.0]),
        scale=np.array([1.0, 1.0, 0.5]), volume_scale=np.array([1.0, 1.0, 2.0]),
    )  # fmt: skip
    await feed.commit({"bars": rows}, ["A"])
    async with served(settings) as client:
        (one,) = nodes(await page(client))
    assert (one["open"], one["high"], one["low"], one["close"]) == (50, 52, 48, 50)
    assert (one["volume"], one["notional"], one["vwap"]) == (8, 400, 50)


async def test_another_instrument_has_its_own_candle(settings: Settings, feed: Feed) -> None:
    """Where a symbol is taken over there are two, and a page can end between them."""
    await feed.commit({"bars": bars([10, 20, 30, 40], life=np.array([0, 0, 1, 1]))}, ["A"])
    async with served(settings) as client:
        both = nodes(await page(client))
        assert [(one["life"], one["n"]) for one in both] == [(0, 6), (1, 6)]
        first = await page(client, first=1)
        rest = await page(client, first=1, after=first["pageInfo"]["endCursor"])
        assert nodes(first) + nodes(rest) == both
        last = await page(client, last=1)
        rest = await page(client, last=1, before=last["pageInfo"]["startCursor"])
        assert nodes(rest) + nodes(last) == both


@pytest.mark.parametrize("interval", ["", "0s", "1", "5x", "-1m", "400d", "1.5h", "9" * 30 + "d"])
async def test_senseless_intervals(settings: Settings, interval: str) -> None:
    """One line that says how an interval is written."""
    async with served(settings) as client:
        answer = await ask(client, QUERY, symbol="A", interval=interval, source="BARS")
        (error,) = answer["errors"]
        assert error["extensions"] == {"code": "BAD_INPUT"}
        assert error["message"] == "interval must be like 30s, 5m, 1h or 1d, and at most a year"
