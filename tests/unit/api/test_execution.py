"""Answers in one go: what graphql-core's own executor says, for whatever a row holds."""

import asyncio
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any, Final, cast

import pytest
from graphql import ExecutionResult, execute, parse, subscribe
from hypothesis import given, settings
from hypothesis import strategies as st

from api import execution
from api.context import Context
from api.execution import RowExecutor
from api.kept import ASKED
from api.latest import LatestLoader
from api.mirror import Mirror
from api.names import ENUMS, LATEST, camel
from api.principals import LOCAL
from api.schema import build_schema
from api.services import Services
from pipeline.cache.latest import encode
from schemas.blocks import COLUMNS, STAGES
from tests.unit.api.conftest import FakeLives, FakeServices

SCHEMA: Final = build_schema()
VALUES: Final[tuple[Any, ...]] = (
    0.5, -0.0, 1e308, float("nan"), float("inf"), None, 0, 1, -1, 2**31, 2**62, True, "A", "",
    "buy", "accepted", "high", [], {}, b"x",
)  # fmt: skip
Row = dict[str, Any]


def context_of(**rows: Row | None) -> Context:
    """A request where the mirror has these rows of A, by stage; of B it has nothing."""
    services = FakeServices()
    lives = FakeLives()
    lives.lives, lives.seconds = dict.fromkeys(STAGES, 1), 0.1
    services.mirror = Mirror(lives, symbols=10)
    services.known_symbols = lambda names=None: list(names or "AB")  # type: ignore[method-assign]  # of this test
    for stage, row in rows.items():
        services.mirror.keep(stage, {"A": row}, services.mirror.begin(stage), {})
    found = cast("Services", services)
    return Context(found, LatestLoader(found), LOCAL)


async def asked(query: str, context: Context, *, mine: bool, **variables: Any) -> ExecutionResult:
    """The result of an operation by our executor or by the stock one."""
    chosen = RowExecutor if mine else None
    found = execute(SCHEMA, parse(query), None, context, variables or None, executor_class=chosen)
    result = await cast("Awaitable[Any]", found) if isawaitable(found) else found
    assert isinstance(result, ExecutionResult)
    return result


async def both(query: str, rows: dict[str, Row | None], plain: bool | None = None) -> Any:
    """The data, held against the stock executor's; `plain`: it was answered in one go or not."""
    slow: list[str] = []

    class Watched(RowExecutor):
        def execute_field(self, kind: Any, *rest: Any) -> Any:
            slow.append(kind.name)
            return super().execute_field(kind, *rest)

    execution._prepared.clear()
    context = context_of(**rows)
    found = execute(SCHEMA, parse(query), None, context, executor_class=Watched)
    mine = await cast("Awaitable[Any]", found) if isawaitable(found) else found
    theirs = await asked(query, context_of(**rows), mine=False)
    assert repr(mine.data) == repr(theirs.data)  # NaN is not equal to itself
    assert list(map(str, mine.errors or ())) == list(map(str, theirs.errors or ()))
    if plain is not None:
        assert (set(slow) <= {"Query"}) is plain, slow
    return mine.data


def whole(stage: str) -> Row:
    """A row with a value of its own in every column."""
    row: Row = {}
    for place, column in enumerate(COLUMNS[stage], 1):
        number = 1_700_000_000_000_000_000 + place if column.unit == "ns" else place
        row[column.name] = {"float64": place + 0.25, "symbol": "A"}.get(column.kind, number)
        if column.kind == "label":
            row[column.name] = column.labels[place % len(column.labels)]
    return row


def columns_of(stage: str) -> str:
    """All fields of a stage, one of them under another name, and what it is."""
    names = " ".join(camel(column.name) for column in COLUMNS[stage])
    return f"__typename again: ts {names}"


@pytest.mark.parametrize("stage", STAGES)
async def test_a_row_is_answered_in_one_go(stage: str) -> None:
    """Every column of every stage has its own value, as the stock executor gives it."""
    query = f'{{ symbols(names: ["A"]) {{ name {LATEST[stage]} {{ {columns_of(stage)} }} }} }}'
    data = await both(query, {stage: whole(stage)}, plain=True)
    found = data["symbols"][0][LATEST[stage]]
    assert len(found) == len(COLUMNS[stage]) + 2
    labels = [camel(at) for (of, at) in ENUMS if of == stage]
    assert all(found[name].isupper() for name in labels)
    one = f'{{ symbol(name: "A") {{ row: {LATEST[stage]} {{ {columns_of(stage)} }} }} }}'
    data = await both(one, {stage: whole(stage)}, plain=True)
    assert data["symbol"]["row"] == found


async def test_what_is_not_there_is_null() -> None:
    """No row, and a row that is to be read: null at once, or when it has been read."""
    query = "{ symbols { name price { price } } }"
    assert (await both(query, {"ticks": None}))["symbols"][0] == {"name": "A", "price": None}
    data = await both(query, {"ticks": whole("ticks")}, plain=False)
    assert [one["price"]["price"] for one in data["symbols"]] == [whole("ticks")["price"], 1.5]


@pytest.mark.parametrize("stage", STAGES)
@settings(max_examples=25)
@given(data=st.data())
async def test_whatever_a_row_holds(stage: str, data: st.DataObject) -> None:
    """Values that do not fit, or are missing, have the errors and nulls of the stock executor."""
    row = whole(stage)
    names = data.draw(st.lists(st.sampled_from(sorted(row)), max_size=4))
    for name in names:
        row[name] = data.draw(st.sampled_from(VALUES))
    for name in data.draw(st.lists(st.sampled_from(sorted(set(row) - set(ROW_KEYS))), max_size=2)):
        row.pop(name, None)
    query = f'{{ symbols(names: ["A"]) {{ {LATEST[stage]} {{ {columns_of(stage)} }} }} }}'
    places = [row[name] for name in ROW_KEYS]
    if all(type(place) is int for place in places):  # else the mirror would not have taken it
        await both(query, {stage: row})


ROW_KEYS: Final = ("partition", "offset", "index")


async def test_selections_of_any_form() -> None:
    """Fragments, the same field twice, fields that are left out by a variable."""
    query = """
    query ($with: Boolean!) { symbols(names: ["A"]) { ...S name ... on Symbol { price { ts } } } }
    fragment S on Symbol { price { price @include(if: $with) ...P } }
    fragment P on Price { side @skip(if: $with) price @skip(if: $with) symbol }
    """
    rows = {"ticks": whole("ticks")}
    wanted = {True: ["price", "symbol", "ts"], False: ["side", "price", "symbol", "ts"]}
    for value in (True, False, True):
        mine = await asked(query, context_of(**rows), mine=True, **{"with": value})
        assert mine == await asked(query, context_of(**rows), mine=False, **{"with": value})
        assert mine.data is not None
        assert list(mine.data["symbols"][0]["price"]) == wanted[value]


async def test_an_operation_is_kept_ready() -> None:
    """The same document with the same variables is not worked out again; others are their own."""
    execution._prepared.clear()
    document = parse("query ($n: [String!]) { symbols(names: $n, first: 5) { name staleness } }")

    async def names(*wanted: Any, **options: Any) -> Any:
        found: Any = execute(
            SCHEMA, document, None, context_of(), {"n": list(wanted)}, None,
            executor_class=RowExecutor, **options,
        )  # fmt: skip
        found = await found if isawaitable(found) else found
        return found.errors or [one["name"] for one in found.data["symbols"]]

    for kept in (0, 2, 2):  # who asks once and never again takes no room
        assert await names("A") == ["A"]
        assert await names("B", "A") == ["B", "A"]
        assert len(execution._prepared) == kept
    for _ in range(2):
        errors = await names("A", None)
        assert len(errors) == 1
    assert len(execution._prepared) == 2
    for number in range(2 * execution._KEPT):
        await names(f"S{number}")
        await names(f"S{number}")
    assert len(execution._prepared) == execution._KEPT
    before = len(execution._prepared)
    execution._prepared.clear()
    for _ in range(2):
        await names("A" * execution._KEPT_LENGTH)
        await names("\ud800")  # cannot be written down
    for number in range(2 * ASKED):
        await names(f"T{number}")
    assert execution._prepared.asked == ASKED
    assert (before, len(execution._prepared)) == (execution._KEPT, 0)


async def test_errors_are_of_their_own_request() -> None:
    """What failed for one who asked does not for the next one."""
    query = '{ symbols(names: ["A"]) { signal { symbol ts } } }'
    for row, count in ((whole("signals") | {"ts": "x"}, 1), (whole("signals"), 0)) * 2:
        document = parse(query)
        for _ in range(2):
            found: Any = execute(
                SCHEMA, document, None, context_of(signals=row), executor_class=RowExecutor
            )
            assert len(found.errors or ()) == count


async def test_concurrent_requests_of_one_operation() -> None:
    """Operations that wait for their rows side by side do not share them."""
    document = parse('{ symbols(names: ["B"]) { name price { price } } }')

    async def one(number: int) -> Any:
        context = context_of()
        services: Any = context.services

        async def cached(_stage: str, names: Any) -> dict[str, Row]:
            await asyncio.sleep(0)
            return {name: {**FakeServices.row(name), "price": float(number)} for name in names}

        services.cached = cached
        found: Any = execute(SCHEMA, document, None, context, executor_class=RowExecutor)
        return (await found).data["symbols"][0]["price"]["price"]

    assert await asyncio.gather(*map(one, range(20))) == list(map(float, range(20)))


async def test_a_long_subscription_keeps_nothing() -> None:
    """A thousand rows later the executor remembers as much as after the first one."""
    sizes = []
    made: list[Any] = []

    class Watched(RowExecutor):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    execution._prepared.clear()
    context = context_of()
    document = parse("subscription { signals { symbol offset ts action pUp } }")
    found: Any = subscribe(SCHEMA, document, None, context, executor_class=Watched)
    row = whole("signals")
    coming = asyncio.ensure_future(anext(found))
    await asyncio.sleep(0)
    assert context.services.hubs.clients == 1
    for offset in range(1000):
        context.services.hubs.publish("signals", encode({**row, "offset": offset}))
        result = await coming
        assert result.errors is None
        assert result.data["signals"]["offset"] == str(offset)
        sizes.append(sum(len(one._relevant_sub_fields) + len(one._plans) for one in made))
        coming = asyncio.ensure_future(anext(found))
        await asyncio.sleep(0)
    coming.cancel()
    await asyncio.gather(coming, return_exceptions=True)
    await found.aclose()
    assert sizes[0] > 0
    assert set(sizes) == {sizes[0]}
