"""The cache manager on a real Valkey: kept, read through, forgotten, and away without harm."""

import asyncio
import socket
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.cache.kinds import EVENTS, KINDS, METRICS, REGISTRY
from pipeline.cache.latest import Cache, entries, open_cache
from pipeline.cache.manager import CacheManager
from pipeline.errors import UnavailableError
from pipeline.servers import Addresses
from pipeline.settings import CacheSettings
from schemas.blocks import ENGINES
from tests.fixtures.rows import newest, rows_of
from tests.integration.cache.told import followed

NAT = np.iinfo(np.int64).min
LATEST = [kind for kind in KINDS if kind != METRICS]
STAGE = {"price": "ticks", "bar": "bars", "regime": "regimes", "prediction": "predictions",
         "signal": "signals", "fill": "fills"}  # fmt: skip


def documents(kind: str, offset: int = 1) -> dict[str, dict[str, Any]]:
    """The latest rows of A and B of a kind."""
    rows = rows_of(STAGE.get(kind, kind), [offset, offset + 1])
    return {row["symbol"]: row for row in newest(rows)}


@pytest.fixture
def manager(cache: Cache) -> CacheManager:
    """A manager of an empty cache."""
    return CacheManager(cache)


@pytest.mark.parametrize("kind", LATEST)
async def test_latest_rows_are_kept_if_newer(manager: CacheManager, kind: str) -> None:
    """Rows come back as they were, NaN as null; an older one does not replace a newer one."""
    rows = documents(kind, 5)
    assert await manager.set_many(kind, rows) == (
        2 * (1 + len(ENGINES)) if kind == "prediction" else 2
    )
    found = await manager.get_many(kind, ["A", "B", "C"])
    assert {name: row["offset"] for name, row in found.items()} == {"A": 5, "B": 6}
    for name, row in found.items():
        row.pop("at")
        row.pop("engine", None)
        assert row == {k: None if pd.isna(v) else v for k, v in rows[name].items()}
    assert not await manager.set(kind, "A", documents(kind, 1)["A"])
    assert (await manager.get(kind, "A"))["offset"] == 5
    assert await manager.get(kind, "C") is None
    assert manager.figures.hits[kind] == 3
    assert manager.figures.misses[kind] == 2


async def test_latest_rows_as_a_table(manager: CacheManager) -> None:
    """A table of rows goes in and comes out, one row a symbol."""
    rows = documents("features")
    frame = pd.DataFrame(list(rows.values()))
    assert await manager.set_frame("features", frame) == 2
    found = await manager.get_frame("features", ["A", "B", "nobody"])
    pd.testing.assert_frame_equal(
        found[list(frame.columns)], frame, check_dtype=False, check_like=True
    )
    assert (await manager.get_frame("price", ["A"])).empty
    assert await manager.set_frame("features", frame.iloc[:0]) == 0


async def test_figures_are_any_value(manager: CacheManager) -> None:
    """Documents with NaN, numpy's numbers, and tables of every type with their index."""
    await manager.set(METRICS, "A", {"a": float("nan"), "b": np.float64(0.1), "c": [np.int64(3)]})
    assert await manager.get(METRICS, "A") == {"a": None, "b": 0.1, "c": [3]}
    frame = pd.DataFrame(
        {
            "f": [1.5, np.nan, -0.0], "i": [2**62, 1, -1], "b": [True, False, True],
            "s": ["x", None, "ä"], "t": pd.Series([1, NAT, 3]).astype("datetime64[ns]").to_numpy(),
            "z": pd.DatetimeIndex(np.array([1, 2, NAT], "M8[ns]")).tz_localize("Europe/Berlin"),
            "d": np.array([1, NAT, 2], "m8[ns]"),
        },
        index=pd.Index(["p", "q", "r"], name="key"),
    )  # fmt: skip
    await manager.set(METRICS, "A", frame, "1d")
    pd.testing.assert_frame_equal(await manager.get(METRICS, "A", "1d"), frame)
    times = pd.DataFrame({"x": [1, 2]}, index=pd.date_range("2026-01-01", periods=2, freq="h"))
    await manager.set(METRICS, "A", times, "1h")
    pd.testing.assert_frame_equal(await manager.get(METRICS, "A", "1h"), times, check_freq=False)
    assert await manager.get(METRICS, "A") == {"a": None, "b": 0.1, "c": [3]}


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": [1.0, np.inf]}),
        pd.DataFrame([[1, 2]], columns=["x", "x"]),
        pd.DataFrame({1: [2]}),
    ],
)
async def test_what_json_cannot_say_is_refused(manager: CacheManager, frame: pd.DataFrame) -> None:
    """An infinity would come back as null, and names that are no texts as others."""
    with pytest.raises(ValueError, match=r"infinity|texts"):
        await manager.set(METRICS, "A", frame)
    with pytest.raises(ValueError, match="no kind is called 'prices'"):
        await manager.set("prices", "A", {})


async def test_every_kind_has_its_ttl(cache: Cache, addresses: Addresses) -> None:
    """By setting; latest rows as the workers keep them, absences for a moment."""
    assert {CacheSettings().ttl_of(kind) for kind in (METRICS, REGISTRY)} == {60}
    settings = CacheSettings(ttls={"price": 7, METRICS: 9}, absent_ttl=3)
    other = open_cache(addresses.redis.rsplit("/", 1)[0] + "/15", settings)
    manager = CacheManager(other)
    try:
        await manager.set_many("price", documents("price"))
        await manager.set_many("bar", documents("bar"))
        await manager.set(METRICS, "A", 1)
        await manager.set_absent("signal", ["A"])
        ttls = [
            await cache.client.ttl(key) for key in ("price:A", "bar:A", "metrics:A:", "signal:A")
        ]
    finally:
        await other.close()
    assert [round(ttl, -1) if ttl > 10 else ttl for ttl in ttls] == [7, 86_400, 9, 3]


async def test_one_flight_a_key(manager: CacheManager) -> None:
    """Of a hundred at once one loads, and who leaves does not take it from the others."""
    begun, go = 0, asyncio.Event()

    async def load() -> dict[str, int]:
        nonlocal begun
        begun += 1
        await go.wait()
        return {"n": begun}

    asked = [asyncio.create_task(manager.read(METRICS, "A", load)) for _ in range(100)]
    await asyncio.sleep(0.05)
    asked[0].cancel()
    go.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [{"n": 1}] * 99
    assert await manager.read(METRICS, "A", load) == {"n": 1}
    assert begun == 1
    assert manager.figures.loads[METRICS] == 1
    assert manager.figures.shared[METRICS] == 99


async def test_one_flight_over_processes(manager: CacheManager, addresses: Addresses) -> None:
    """Another process waits for who loads, and loads itself when that one fails."""
    other_cache = open_cache(addresses.redis.rsplit("/", 1)[0] + "/15", CacheSettings())
    other = CacheManager(other_cache)
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "first"

    async def fails() -> str:
        await go.wait()
        raise RuntimeError("no figures")

    async def second() -> str:
        return "second"

    try:
        for load, wanted in ((slow, "first"), (fails, "second")):
            go.clear()
            await manager.invalidate_symbol("A")
            first = asyncio.create_task(manager.read(METRICS, "A", load))
            await asyncio.sleep(0.1)
            then = asyncio.create_task(other.read(METRICS, "A", second))
            await asyncio.sleep(0.1)
            assert not then.done()
            go.set()
            async with asyncio.timeout(10):
                assert await then == wanted
            results = await asyncio.gather(first, return_exceptions=True)
            assert str(results[0]) in {"first", "no figures"}
    finally:
        await other_cache.close()


@pytest.mark.parametrize("there", [True, False])
async def test_what_is_invalidated_while_it_is_loaded_is_not_kept(
    manager: CacheManager, addresses: Addresses, *, there: bool
) -> None:
    """What was read before a change is seen by who asked before it, and by nobody after it."""
    other_cache = open_cache(addresses.redis.rsplit("/", 1)[0] + "/15", CacheSettings())
    changer = CacheManager(other_cache) if there else manager
    go = asyncio.Event()
    state = "before"

    async def load() -> str:
        seen = state
        await go.wait()
        return seen

    try:
        first = asyncio.create_task(manager.read(REGISTRY, "gbdt", load))
        await asyncio.sleep(0.1)
        state = "after"
        await changer.invalidate(REGISTRY, "gbdt")
        then = asyncio.create_task(changer.read(REGISTRY, "gbdt", load))
        await asyncio.sleep(0.1)
        go.set()
        assert (await first, await then) == ("before", "after")
        assert await manager.get(REGISTRY, "gbdt") == "after"
        assert not await other_cache.client.exists("lease:registry:gbdt")
    finally:
        await other_cache.close()


async def test_what_is_not_there_is_known_for_a_moment(manager: CacheManager, cache: Cache) -> None:
    """An absence is a hit; a row that comes replaces it at once, and it replaces no row."""
    loads = 0

    async def load() -> None:
        nonlocal loads
        loads += 1

    for _ in range(3):
        assert await manager.read("signal", "A", load) is None
    assert loads == 1
    assert manager.figures.absences["signal"] == 2
    assert await cache.latest("signals", ["A"]) == {}
    row = documents("signal")["A"]
    assert await manager.set("signal", "A", row)
    await manager.set_absent("signal", ["A"])
    assert (await manager.read("signal", "A", load))["offset"] == row["offset"]


async def test_a_refilled_row_is_no_news(manager: CacheManager, cache: Cache) -> None:
    """Who listens to signals is not told of one that was only put back into the cache."""
    async with followed(cache, ["signals"]) as told:
        await manager.set_many("signal", documents("signal"))
        assert (await manager.get("signal", "A"))["symbol"] == "A"
        await cache.put(entries("signals", newest(rows_of("signals", [9], symbols=["A"]))))
        await told.until(lambda: ("signals", 9) in told.rows)
    assert told.rows == [("signals", 9)]


async def test_a_row_that_was_refilled_first_is_published_all_the_same(
    manager: CacheManager, cache: Cache
) -> None:
    """A reader may find a row in Postgres before its worker has cached it: it is news still."""
    rows = newest(rows_of("signals", [9], symbols=["A"]))
    async with followed(cache, ["signals"]) as told:
        assert await manager.set_many("signal", {"A": rows[0]}) == 1
        assert await cache.put(entries("signals", rows)) == 1
        assert await cache.put(entries("signals", rows)) == 0
        assert await manager.set_many("signal", {"A": rows[0]}) == 0
        await told.until(lambda: ("signals", 9) in told.rows)
    assert told.rows == [("signals", 9)]


async def test_what_is_forgotten_is_told(manager: CacheManager, cache: Cache) -> None:
    """Who keeps a copy learns the keys that were dropped, by key, pattern and symbol."""
    await manager.set_many("price", documents("price"))
    await manager.set_many("prediction", documents("prediction"))
    async with followed(cache, ["ticks"]) as told:
        await manager.invalidate("price", "A")
        await manager.invalidate_pattern("price:*")
        await manager.invalidate_symbol("B")
        wanted = {"price:A", "price:B", "prediction:B:combined", "prediction:B:momentum"}
        await told.until(lambda: wanted <= set(told.keys))


async def filled(manager: CacheManager) -> None:
    """Values of every kind for A and B, and for a symbol that is a pattern."""
    for kind in LATEST:
        await manager.set_many(kind, documents(kind))
    for symbol in ("A", "B", "A*", "[AB]"):
        for period in ("1h", "1d"):
            await manager.set(METRICS, symbol, {"p": period}, period)
        row = {**documents("price")["A"], "symbol": symbol}
        await manager.set("price", symbol, row)


async def keys(cache: Cache) -> set[str]:
    """All keys."""
    found: list[Any] = await cache.client.keys()
    return {key.decode() for key in found}


async def test_forgetting(manager: CacheManager, cache: Cache) -> None:
    """By key, by pattern, by symbol and by event, and nothing beside."""
    await filled(manager)
    before = await keys(cache)
    assert await manager.invalidate("prediction", "A") == 1 + len(ENGINES)
    assert before - await keys(cache) == {
        f"prediction:A:{engine}" for engine in ("combined", *ENGINES)
    }
    assert await manager.invalidate(METRICS, "B", "1h") == 1
    assert await manager.invalidate_pattern("price:?") == 2
    assert await manager.invalidate("price", "A") == 0
    await filled(manager)
    assert await manager.invalidate_symbol("A*") == 3
    assert await manager.invalidate_symbol("[AB]") == 3
    left = await keys(cache)
    assert before - left == {
        f"{head}:{symbol}{tail}"
        for symbol in ("A*", "[AB]")
        for head, tail in (("price", ""), ("metrics", ":1h"), ("metrics", ":1d"))
    }
    assert await manager.invalidate_event("model_changed", "A") == (1 + len(ENGINES)) + 1 + 2
    assert {key for key in await keys(cache) if ":A" in key} == {
        f"{kind}:A" for kind in LATEST if kind not in EVENTS["model_changed"]
    }
    assert await manager.invalidate_event("rows_changed") > 10
    assert await keys(cache) == set()
    with pytest.raises(KeyError):
        await manager.invalidate_event("nothing")


async def test_many_keys_are_forgotten_in_steps(manager: CacheManager, cache: Cache) -> None:
    """Thousands of keys go by SCAN and UNLINK; the command KEYS is not used."""
    await manager.set_many(METRICS, {f"S{n}": n for n in range(5000)}, "1d")
    await cache.client.config_resetstat()
    assert await manager.invalidate_pattern("metrics:S*") == 5000
    used = await cache.client.info("commandstats")
    assert {"cmdstat_scan", "cmdstat_unlink"} <= set(used)
    assert not {"cmdstat_keys", "cmdstat_del"} & set(used)


async def test_away_it_is_read_from_where_it_comes() -> None:
    """Nothing is raised to a reader, nothing waits for long, and it is not asked in vain."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        away = open_cache(f"redis://127.0.0.1:{port}", CacheSettings(timeout=0.2))
        manager = CacheManager(away)

        async def load() -> str:
            return "loaded"

        for _ in range(20):
            assert await manager.read(METRICS, "A", load) == "loaded"
        assert manager.away
        assert manager.figures.failed == 1
        assert manager.figures.loads[METRICS] == 20
        for call in (
            manager.get("price", "A"), manager.set(METRICS, "A", 1), manager.invalidate_symbol("A"),
        ):  # fmt: skip
            with pytest.raises(UnavailableError):
                await call
        await away.close()


async def test_what_fails_to_load_is_raised_and_not_kept(manager: CacheManager) -> None:
    """Each of those who waited hears of it; the next one tries again."""

    async def fails() -> None:
        raise RuntimeError("no figures")

    asked = [manager.read(METRICS, "A", fails) for _ in range(3)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(error) for error in found] == ["no figures"] * 3

    async def load() -> int:
        return 1

    assert await manager.read(METRICS, "A", load) == 1
