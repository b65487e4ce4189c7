"""Engines, books, data quality, runs and services over real stores; what each list reads."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from api.figures import position_of
from pipeline.replay.figures import engines, said
from pipeline.servers.postgres import PostgresServer
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import Settings
from pipeline.store.live import PartitionBatch
from schemas.blocks import ENGINES, Rows
from schemas.times import format_rfc3339
from tests.integration.api.conftest import SECOND, START, Feed, ask, make_rows, served

BARS = 400
HORIZON = 5
SCORES = "n horizon logLoss logLossLessNull brier auc hitRate hitRateLow hitRateHigh ece"
WHERE = "$symbol: String!, $from: DateTime, $to: DateTime, $period: String, $byRegime: Boolean!"
GIVEN = "symbol: $symbol, from: $from, to: $to, period: $period, byRegime: $byRegime"
PERFORMANCE = f"""query ({WHERE}) {{ performance({GIVEN}) {{
  engine start end vol trend {SCORES} }} }}"""


def predicted(symbol: str, first: int = 0) -> dict[str, Rows]:
    """Bars with what was predicted at each and the tags of its regime."""
    rng = np.random.default_rng(first)
    close = np.round(100 + rng.normal(0, 1, BARS).cumsum(), 1)
    p = rng.uniform(0.05, 0.95, (len(ENGINES), BARS))
    p[:, :10] = np.nan
    one = {"scale": 1.0, "life": 0, "close": close}
    return {
        "bars": make_rows("bars", symbol, BARS, first, **one),
        "predictions": make_rows(
            "predictions", symbol, BARS, first,
            horizon=HORIZON, p_up=p.mean(axis=0),
            **{f"p_{name}": said for name, said in zip(ENGINES, p, strict=True)},
        ),
        "regimes": make_rows("regimes", symbol, BARS, first, vol=rng.integers(-1, 3, BARS)),
    }  # fmt: skip


def frames(rows: dict[str, Rows]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars and predictions as a backtest reads them."""
    names = ("close", "scale", "life", "partition")
    bars = pd.DataFrame({name: rows["bars"][name] for name in names}).assign(symbol="A")
    return bars, pd.DataFrame({name: rows["predictions"][name] for name in said()})


async def performance(client: Any, **variables: Any) -> list[dict[str, Any]]:
    """How A's predictions did."""
    answer = await ask(client, PERFORMANCE, **{"symbol": "A", "byRegime": False, **variables})
    assert "errors" not in answer, answer
    found: list[dict[str, Any]] = answer["data"]["performance"]
    return found


async def test_scores_are_those_of_a_backtest(settings: Settings, feed: Feed) -> None:
    """The same rows have the same figures, by the same functions, whoever asks."""
    rows = predicted("A")
    await feed.commit(rows, ["A"])
    await feed.commit(predicted("B", BARS), ["B"])
    wanted = engines(*frames(rows))
    async with served(settings) as client:
        found = {row["engine"]: row for row in await performance(client)}
        assert list(found) == list(wanted)
        for engine, row in found.items():
            figures = wanted[engine]
            assert row["n"] == figures["n"] > 300
            assert row["horizon"] == HORIZON
            for name, key in (("logLoss", "log_loss"), ("brier", "brier"), ("auc", "auc")):
                assert row[name] == figures[key]
            assert row["logLossLessNull"] == figures["log_loss_less_null"]
            assert [row["hitRateLow"], row["hitRateHigh"]] == figures["hit_rate_95"]
        assert await performance(client, symbol="nobody") == []


async def test_scores_by_period_and_regime(settings: Settings, feed: Feed) -> None:
    """Parts add up to the whole; a label may mature in a later part."""
    await feed.commit(predicted("A"), ["A"])
    async with served(settings) as client:
        whole = {row["engine"]: row for row in await performance(client)}
        for part in ({"period": "1m"}, {"byRegime": True}, {"period": "2m", "byRegime": True}):
            rows = await performance(client, **part)
            assert len(rows) > len(whole)
            for engine, one in whole.items():
                mine = [row for row in rows if row["engine"] == engine]
                assert sum(row["n"] for row in mine) == one["n"]
                total = sum(row["n"] * row["brier"] for row in mine if row["n"])
                assert total / one["n"] == pytest.approx(one["brier"], rel=1e-12)
        tags = {(row["vol"], row["trend"]) for row in await performance(client, byRegime=True)}
        assert len(tags) == 8  # three levels and none known yet, twice
        bounds = {"from": format_rfc3339(START + 100 * SECOND), "to": "2026-01-05T09:33:20Z"}
        (one, *_) = await performance(client, **bounds)
        assert one["n"] <= 100 - HORIZON
        assert one["start"] >= bounds["from"]


async def test_engines_say_how_they_did(settings: Settings, feed: Feed) -> None:
    """An engine's own field has the rows of `performance`; unknown engines are refused."""
    await feed.commit(predicted("A"), ["A"])
    async with served(settings) as client:
        answer = await ask(client, '{ engines { name performance(symbol: "A") { engine n } } }')
        rows = answer["data"]["engines"]
        assert [row["name"] for row in rows][:1] == ["combined"]
        assert [row["performance"][0]["engine"] for row in rows] == [row["name"] for row in rows]
        asked = '{ performance(symbol: "A", engines: ["momentum"]) { engine } }'
        assert (await ask(client, asked))["data"]["performance"] == [{"engine": "momentum"}]
        asked = '{ performance(symbol: "A", engines: ["oracle"]) { engine } }'
        (error,) = (await ask(client, asked))["errors"]
        assert error["message"].startswith(f"the engines are combined, {', '.join(ENGINES)}")
        asked = '{ performance(symbol: "A", period: "x") { engine } }'
        (error,) = (await ask(client, asked))["errors"]
        assert error["extensions"] == {"code": "BAD_INPUT"}


HEAD = {"partition": 0, "index": 0, "ts": 5}
BEAT = {
    **HEAD, "offset": 10, "position": 2.0, "cash": 80.0, "mark": 10.0, "pnl": 1.0, "fees": 0.5,
    "traded": 20.0,
}  # fmt: skip
FILL = {**HEAD, "offset": 12, "ts": 7, "position": -3.0, "cash": 130.0}
BAR = {**HEAD, "offset": 14, "ts": 9, "close": 11.0}


@pytest.mark.parametrize(
    ("beat", "fill", "bar", "wanted"),
    [
        (None, None, BAR, None),
        (BEAT, None, None, (5, 2.0, 10.0, 20.0, 80.0, 100.0, 1.0)),
        (BEAT, None, BAR, (9, 2.0, 11.0, 22.0, 80.0, 102.0, 1.0)),
        (BEAT, FILL, BAR, (9, -3.0, 11.0, -33.0, 130.0, 97.0, 1.0)),
        (BEAT, {**FILL, "offset": 9}, {**BAR, "offset": 9}, (9, 2.0, 10.0, 20.0, 80.0, 100.0, 1.0)),
        (None, FILL, BAR, (9, -3.0, 11.0, -33.0, 130.0, 97.0, None)),
        (None, FILL, None, (7, -3.0, None, None, 130.0, None, None)),
    ],
)
def test_a_position_is_made_of_the_newest_rows(beat: Any, fill: Any, bar: Any, wanted: Any) -> None:
    """A fill moves position and cash, a bar the price; what nobody knows is null."""
    found = position_of("A", beat, fill, bar)
    names = ("ts", "quantity", "mark", "value", "cash", "equity", "pnl")
    assert (found and tuple(found[name] for name in names)) == wanted


@pytest.mark.parametrize("cached", [True, False])
async def test_positions(settings: Settings, feed: Feed, cached: bool) -> None:
    """Of those who have a book, from the cache and from Postgres alike."""
    for number, name in enumerate("AB"):
        rows = {
            "equity": make_rows("equity", name, 2, 10 * number, position=2.0, cash=50.0),
            "bars": make_rows("bars", name, 4, 10 * number, close=np.array([1, 2, 3, 4.0])),
        }
        await (feed.put if cached else feed.commit)(rows, [name])
    await feed.put({"bars": make_rows("bars", "C", 1, 50)}, ["C"])
    query = "{ positions { symbol ts quantity mark equity } symbols { name position { value } } }"
    async with served(settings) as client:
        data = (await ask(client, query))["data"]
    assert [row["symbol"] for row in data["positions"]] == ["A", "B"]
    assert data["positions"][0] == {
        "symbol": "A", "ts": format_rfc3339(START + 3 * SECOND), "quantity": 2.0, "mark": 4.0,
        "equity": 58.0,
    }  # fmt: skip
    assert [row["position"] for row in data["symbols"]] == [{"value": 8.0}, {"value": 8.0}, None]


async def test_data_quality_and_runs(settings: Settings, feed: Feed) -> None:
    """What the guard counted, by symbol; and how far the stored rows reach."""
    counts = [("A", "accepted", 2**53 + 1), ("A", "late", 3), ("B", "accepted", 1)]
    batch = PartitionBatch(0, feed.epoch, 41, {}, [], ["A", "B", "C"], counts)
    await feed.store.commit([batch])
    query = """{ dataQuality(names: ["A"]) { symbol partition reason count countedAt }
      symbols { name dataQuality { reason count } }
      runs { service fingerprint partitions { partition epoch mark movedAt } } }"""
    async with served(settings) as client:
        data = (await ask(client, query))["data"]
    assert [(row["reason"], row["count"]) for row in data["dataQuality"]] == [
        ("accepted", str(2**53 + 1)), ("late", "3"),
    ]  # fmt: skip
    assert data["dataQuality"][0]["countedAt"] > "2026"
    assert [len(row["dataQuality"]) for row in data["symbols"]] == [2, 1, 0]
    (run,) = data["runs"]
    assert (run["service"], run["fingerprint"]) == ("test", "fingerprint")
    assert [(p["partition"], p["mark"]) for p in run["partitions"]] == [(0, "41")]


async def test_services(
    settings: Settings, postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> None:
    """Each with the time of its answer, or why there is none; its address is told to nobody."""
    async with served(settings) as client:
        query = "{ services { name ok seconds error } }"
        rows = (await ask(client, query))["data"]["services"]
        assert [(row["name"], row["ok"], row["error"]) for row in rows] == [
            ("postgres", True, None), ("redis", True, None),
        ]  # fmt: skip
        valkey_server.kill()
        postgres_server.kill()
        rows = (await ask(client, query))["data"]["services"]
        assert [(row["ok"], row["seconds"]) for row in rows] == [(False, None), (False, None)]
        assert "/" not in "".join(row["error"] for row in rows)
