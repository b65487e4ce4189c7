"""How often the servers are asked for a list, of every list that the schema has."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import asyncpg
import numpy as np
import pytest
import redis.asyncio.client
from graphql import (
    GraphQLField,
    GraphQLList,
    GraphQLObjectType,
    GraphQLOutputType,
    get_named_type,
    get_nullable_type,
    is_required_argument,
)
from redis.asyncio import Redis

from api.schema import build_schema
from pipeline.cache.kinds import METRICS, REGISTRY
from pipeline.models import registry
from pipeline.models import selection as selecting
from pipeline.settings import Settings, StoreSettings
from pipeline.stages.chain import ChainSettings
from pipeline.store import drift, jobs
from pipeline.store.jobs import Kind, NewJob, State
from pipeline.store.live import PartitionBatch
from pipeline.store.places import Kept
from pipeline.store.pool import Pool, open_pool
from pipeline.store.statements import statement
from schemas.blocks import ENGINES, STAGES, VOL_REGIMES, Rows
from tests.fixtures import boosted
from tests.integration.api.conftest import START, Feed, ask, make_rows, served

SCHEMA: Final = build_schema()
# What a field must be given, or is given so that it has more rows when more is stored.
ARGUMENTS: Final = {
    "symbol": '"S0"', "interval": '"1h"', "name": '"S0"', "period": '"10s"', "model": '"gbdt"',
}  # fmt: skip
DEEPEST: Final = 6
# Of these there are as many as before whatever is stored.
STAYING: Final = {"engines", "runs", "services"}


def selection(kind: GraphQLOutputType, deep: int = 1) -> str:
    """Every field of a type, and of what they hold."""
    named = get_named_type(kind)
    if not isinstance(named, GraphQLObjectType):
        return ""
    fields = [
        f"{name}{given(field)} {selection(field.type, deep + 1)}"
        for name, field in named.fields.items()
        if deep < DEEPEST or not isinstance(get_named_type(field.type), GraphQLObjectType)
    ]
    return "{ " + " ".join(fields) + " }"


def given(field: GraphQLField) -> str:
    """The arguments of a field."""
    values = [
        f"{name}: {ARGUMENTS[name]}"
        for name, argument in field.args.items()
        if is_required_argument(argument) or name == "period"
    ]
    return f"({', '.join(values)})" if values else ""


def is_list(field: GraphQLField) -> bool:
    """Whether a field gives a list."""
    return isinstance(get_nullable_type(field.type), GraphQLList)


def lists() -> list[str]:
    """The fields of Query that give lists, by themselves or in a connection."""
    assert SCHEMA.query_type is not None
    return [
        name
        for name, field in SCHEMA.query_type.fields.items()
        if is_list(field) or get_named_type(field.type).name.endswith("Connection")
    ]


def lengths(kind: GraphQLOutputType, answer: Any, deep: int = 1) -> Counter[str]:
    """How many entries the lists of an answer have, by type and field; 0 of those without any."""
    named = get_named_type(kind)
    found: Counter[str] = Counter()
    if not isinstance(named, GraphQLObjectType):
        return found
    for name, field in named.fields.items():
        if deep == DEEPEST and isinstance(get_named_type(field.type), GraphQLObjectType):
            continue
        values = [one[name] for one in entries(answer)]
        if is_list(field):
            found[f"{named.name}.{name}"] += sum(len(value or ()) for value in values)
        below = [one for value in values for one in entries(value)]
        for place, count in lengths(field.type, below, deep + 1).items():
            found[place] += count
    return found


def entries(value: Any) -> list[Any]:
    """The objects of an answer: those of a list, one, or none."""
    found = value if isinstance(value, list) else [value]
    return [one for one in found if isinstance(one, dict)]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each server is asked."""
    found: Counter[str] = Counter()

    def count(owner: Any, name: str, label: str) -> None:
        ask_it = getattr(owner, name)

        async def asking(*args: Any, **options: Any) -> Any:
            found[label] += 1
            return await ask_it(*args, **options)

        patch.setattr(owner, name, asking)

    with monkeypatch.context() as patch:
        for name in ("fetch", "fetchrow", "fetchval", "execute"):
            count(asyncpg.Connection, name, "postgres")
        count(redis.asyncio.client.Redis, "execute_command", "redis")
        yield found


def rows_of(name: str, count: int, first: int) -> dict[str, Rows]:
    """Rows of every stage; predictions are probabilities of the next bar."""
    rows = {stage: make_rows(stage, name, count, first) for stage in STAGES if stage != "bars"}
    said = {f"p_{engine}": 0.5 for engine in ENGINES}
    rows["predictions"] = make_rows("predictions", name, count, first, horizon=1, p_up=0.5, **said)
    close = 100.0 + np.arange(count) % 2
    rows["bars"] = make_rows("bars", name, count, first, close=close, scale=1.0, life=0)
    return rows


async def store(feed: Feed, pool: Pool, number: int, count: int) -> None:
    """A symbol with rows of all there is, and more of everything of the first symbol."""
    name, first = f"S{number}", 1000 * number
    await feed.put(rows_of(name, count, first), [name])
    feed.mark += 1
    more, quality = rows_of("S0", count, first + 500), [(name, "late", 1), ("S0", f"r{number}", 1)]
    await feed.store.commit([PartitionBatch(0, feed.epoch, feed.mark, more, [], [], quality)])
    await add_version(pool, number)
    alarm = {
        "kind": "feature", "name": "ret_1", "symbol": name, "change": "higher", "since": START,
        "ts": START, "partition": 0, "offset": number, "index": 0, "evidence": 2.5, "looked": 9,
        "stride": 1,
    }  # fmt: skip
    series = [
        {
            "kind": "feature", "name": f"x{n}", "symbol": name, "state": "watched", "stride": 1,
            "looked": 9, "evidence": 1.0, "alarms": 0,
        }
        for n in range(number + 1)
    ]  # fmt: skip
    await drift.keep(pool, "test", 0, Kept(number, {}, b""), [alarm], series)
    await pool.execute(
        'INSERT INTO rejected (partition, "offset", "index", symbol, reason, detail, value,'
        " rejected_at, written_on) VALUES (0, $1, 0, $2, 'bad_time', '', $3, now(), current_date)",
        number,
        name,
        b"{}",
    )
    await add_job(pool, name)


async def add_version(pool: Pool, number: int) -> None:
    """A version that was looked at, compared, a shadow, promoted, and selected for a regime."""
    version = (await registry.register(pool, "gbdt", boosted.artifact(number))).version
    await pool.execute(statement("add_importance"), version, "gain", "*", ["x"], [1.0], [1])
    await pool.execute(
        statement("add_comparison"), "gbdt", version, None, 1, 2, "h", 9, 0.6, 0.7, 0.1, "r", True
    )
    await registry.shadow(pool, version, ChainSettings().feature_set)
    await registry.promote(pool, version, ChainSettings().feature_set)
    regime = VOL_REGIMES[number % len(VOL_REGIMES)]
    await selecting.select(pool, "gbdt", {regime: version}, ChainSettings().feature_set)


async def add_job(pool: Pool, key: str) -> None:
    """A job that was done."""
    asked: dict[str, Any] = {"source": "postgres:ticks", "settings": ["fills.taker_bp=5"]}
    asked |= dict.fromkeys(("from", "to", "bar"))
    await jobs.add(pool, NewJob(Kind.REPLAY, asked, "p", key, "fingerprint"), 100)
    taken = await jobs.claim(pool, "runner", timedelta(seconds=60), 3)
    assert taken is not None
    result = {"rows": [["bars", 5]], "figures": None, "fingerprint": "fingerprint"}
    assert await jobs.finish(pool, taken[0], State.DONE, directory="d", result=result)


async def forgotten(settings: Settings) -> None:
    """What is computed is computed again; latest rows stay where they are."""
    async with Redis.from_url(str(settings.redis)) as client:
        for kind in (METRICS, REGISTRY):
            for key in await client.keys(f"{kind}:*"):
                await client.delete(key)


async def listed(client: Any, count: int) -> None:
    """Wait until the API has heard of so many symbols."""
    for _ in range(500):
        if len((await ask(client, "{ symbols { name } }"))["data"]["symbols"]) == count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the API has not heard of all symbols")


async def test_no_list_asks_for_each_of_its_rows(
    settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all fields of all rows, twelve rows are asked for as often as two.

    Each list has rows, those within rows too: a new one for which `store` stores none fails.
    """
    # All fields of as many symbols as may be asked for at once are more than an answer may hold;
    # and rows that the process has by itself would hide how the others are asked for.
    api = settings.api.model_copy(update={"cost_max": 1_000_000, "copied_symbols": 0})
    worker = settings.worker.model_copy(update={"group": "test"})  # the service of `feed`
    settings = settings.model_copy(update={"api": api, "worker": worker})
    assert SCHEMA.query_type is not None
    fields = SCHEMA.query_type.fields
    asked: dict[str, list[Any]] = {field: [] for field in lists()}
    sizes: dict[str, list[int]] = {field: [] for field in lists()}
    last: dict[str, Any] = {}
    assert settings.postgres is not None
    pool = await open_pool(settings.postgres, StoreSettings())
    async with served(settings) as client:
        done = 0
        for count in (2, 12):
            for number in range(done, count):
                await store(feed, pool, number, count)
            done = count
            await listed(client, count)
            for field, declared in ((field, fields[field]) for field in lists()):
                query = f"{{ {field}{given(declared)} {selection(declared.type)} }}"
                await ask(client, query)  # what is asked once a process is known behind this
                await forgotten(settings)
                with counted(monkeypatch) as found:
                    answer = await ask(client, query)
                assert "errors" not in answer, answer
                asked[field].append(dict(found))
                got = last[field] = answer["data"][field]
                sizes[field].append(len(got["edges"] if isinstance(got, dict) else got))
    await pool.close()
    for field, (few, many) in sizes.items():
        assert asked[field][0] == asked[field][1], field
        assert (few < many) is (field not in STAYING), field
        assert few > 0, field
        counts = lengths(fields[field].type, last[field])
        assert [place for place, size in counts.items() if not size] == [], field
