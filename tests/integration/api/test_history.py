"""History by range, page and moment, for every stage, over real Postgres."""

from typing import Any

import httpx
import numpy as np
import pytest

from api.names import HISTORY
from pipeline.settings import Settings
from schemas.blocks import STAGES
from schemas.times import format_rfc3339
from tests.integration.api.conftest import SECOND, START, Feed, ask, make_rows, served

LATE = 3  # the row that came an hour late
ROWS = 10


def query(stage: str) -> str:
    """The history of a stage, its arguments as variables."""
    return f"""query ($from: DateTime, $to: DateTime, $first: Int, $after: String, $last: Int,
                      $before: String, $asOf: AsOf) {{
      {HISTORY[stage]}(symbol: "A", from: $from, to: $to, first: $first, after: $after, last: $last,
                       before: $before, asOf: $asOf) {{
        edges {{ cursor node {{ offset ts knownAt }} }}
        pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
      }}
    }}"""


async def page(client: httpx.AsyncClient, stage: str, **variables: Any) -> dict[str, Any]:
    """A page of A's history."""
    answer = await ask(client, query(stage), **variables)
    assert "errors" not in answer, answer
    found: dict[str, Any] = answer["data"][HISTORY[stage]]
    return found


async def offsets(client: httpx.AsyncClient, stage: str, **variables: Any) -> list[int]:
    """The offsets of a page, which number the rows."""
    found = await page(client, stage, **variables)
    return [int(edge["node"]["offset"]) for edge in found["edges"]]


def at(second: float) -> str:
    """A time after the first row's."""
    return format_rfc3339(START + int(second * SECOND))


async def put(feed: Feed, stage: str) -> None:
    """Ten rows of A, a second apart, one of them late; B has as many."""
    rows = make_rows(stage, "A", ROWS)
    rows.columns["known_at"][LATE] += 3600 * SECOND
    await feed.commit({stage: rows}, ["A"])
    await feed.commit({stage: make_rows(stage, "B", ROWS, first=50)}, ["B"])


@pytest.mark.parametrize("stage", STAGES)
async def test_as_of_a_moment(settings: Settings, feed: Feed, stage: str) -> None:
    """What came late is not seen as of a moment before it came; the event time bounds by itself."""
    await put(feed, stage)
    async with served(settings) as client:
        assert await offsets(client, stage, asOf={"knownAt": at(5.5)}) == [0, 1, 2, 4, 5]
        assert await offsets(client, stage, asOf={"knownAt": at(3603.5)}) == list(range(ROWS))
        assert await offsets(client, stage, asOf={"eventTime": at(5)}) == [0, 1, 2, 3, 4, 5]
        both = {"eventTime": at(4), "knownAt": at(9)}
        assert await offsets(client, stage, asOf=both) == [0, 1, 2, 4]
        assert await offsets(client, stage, asOf={}) == list(range(ROWS))
        # The row in force at a moment, as one could have read it then.
        assert await offsets(client, stage, asOf={"knownAt": at(3.9)}, last=1) == [2]
        assert await offsets(client, stage, asOf={"knownAt": at(-1)}, last=1) == []


@pytest.mark.parametrize("stage", STAGES)
async def test_ranges_and_pages(settings: Settings, feed: Feed, stage: str) -> None:
    """A range is cut by cursors from both ends, also as of a moment."""
    await put(feed, stage)
    async with served(settings) as client:
        bounds = {"from": at(1), "to": at(8)}
        assert await offsets(client, stage, **bounds) == list(range(1, 8))
        moment = {"knownAt": at(7.5)}
        first = await page(client, stage, **bounds, asOf=moment, first=3)
        assert [int(edge["node"]["offset"]) for edge in first["edges"]] == [1, 2, 4]
        assert first["pageInfo"]["hasNextPage"] is True
        assert first["pageInfo"]["hasPreviousPage"] is False
        after = first["pageInfo"]["endCursor"]
        rest = await page(client, stage, **bounds, asOf=moment, first=4, after=after)
        assert [int(edge["node"]["offset"]) for edge in rest["edges"]] == [5, 6, 7]
        assert rest["pageInfo"]["hasNextPage"] is False
        assert rest["pageInfo"]["hasPreviousPage"] is True
        before = rest["pageInfo"]["startCursor"]
        back = await offsets(client, stage, **bounds, asOf=moment, last=2, before=before)
        assert back == [2, 4]


async def test_cursors_stay_where_they_are(settings: Settings, feed: Feed) -> None:
    """Rows that come while a client pages, before its place or behind it, shift no page."""
    await put(feed, "bars")
    async with served(settings) as client:
        first = await page(client, "bars", first=4)
        early = make_rows("bars", "A", 2, first=100, ts=START + np.array([0, 1]) * SECOND + 5)
        await feed.commit({"bars": early}, ["A"])
        after = first["pageInfo"]["endCursor"]
        assert await offsets(client, "bars", first=20, after=after) == list(range(4, ROWS))
        assert await offsets(client, "bars", first=3) == [0, 100, 1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"asOf": {"knownAt": "yesterday"}}, "BAD_REQUEST"),
        ({"asOf": {"eventTime": 5}}, "BAD_REQUEST"),
        ({"asOf": {"nonsense": "2026-01-05T09:30:00Z"}}, "BAD_REQUEST"),
        ({"first": 501}, "BAD_INPUT"),
        ({"last": -1}, "BAD_INPUT"),
        ({"first": 1, "last": 1}, "BAD_INPUT"),
        ({"after": "x"}, "BAD_INPUT"),
    ],
)
async def test_senseless_arguments(
    settings: Settings, arguments: dict[str, Any], code: str
) -> None:
    """What makes no sense is the client's mistake, told in one line, and reads nothing."""
    async with served(settings) as client:
        answer = await ask(client, query("bars"), **arguments)
        assert [error["extensions"]["code"] for error in answer["errors"]] == [code]


@pytest.mark.parametrize(
    "arguments",
    [
        {"from": "2262-04-11T23:47:16Z"},
        {"to": "1677-09-21T00:12:45Z"},
        {"asOf": {"knownAt": "1677-09-21T00:12:45Z"}, "last": 5},
        {"asOf": {"eventTime": "2262-04-11T23:47:16.854775807Z"}, "from": "2262-04-11T00:00:00Z"},
        {"first": 0},
        {"from": "2026-01-06T00:00:00Z", "to": "2026-01-05T00:00:00Z"},
    ],
)
async def test_the_ends_of_time(settings: Settings, feed: Feed, arguments: dict[str, Any]) -> None:
    """Bounds that leave nothing, and the widest that can be written, give an empty page."""
    await put(feed, "ticks")
    async with served(settings) as client:
        assert await offsets(client, "ticks", **arguments) == []
