"""Pages by cursors, against a history held in a list."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError
from api.pagination import Fetch, decode_cursor, encode_cursor, read_page, read_window
from pipeline.store.reads import FIRST, Cursor, cursor_of

NONE = None  # what resolvers get as info here


def rows_at(times: list[int]) -> list[dict[str, Any]]:
    """Rows at these event times, in order; several may share one."""
    return [
        {"ts": ts, "partition": 0, "offset": place, "index": 0}
        for place, ts in enumerate(sorted(times))
    ]


def reader(rows: list[dict[str, Any]]) -> Fetch:
    """What `pipeline.store.reads.history` does, over a list."""

    async def fetch(
        start: int, end: int, limit: int, after: Cursor | None, before: Cursor | None
    ) -> list[dict[str, Any]]:
        inside = [row for row in rows if start <= row["ts"] < end]
        if before is None:
            return [row for row in inside if cursor_of(row) > (after or FIRST)][:limit]
        found = [row for row in inside if cursor_of(row) < before]
        return found[max(len(found) - limit, 0) :]

    return fetch


@given(st.tuples(*[st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)] * 2))
def test_cursors_come_back(place: Cursor) -> None:
    """A cursor decodes to the place that it was made of."""
    assert decode_cursor(encode_cursor(place)) == place


@pytest.mark.parametrize("text", ["", "x", "ä", "AAAA", "A" * 33, "=" * 32, "*" * 32])
def test_a_foreign_cursor_is_refused(text: str) -> None:
    """Text that is no cursor of ours is the client's mistake."""
    with pytest.raises(ApiError, match="no cursor of ours"):
        decode_cursor(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"first": 1, "last": 1}, "not both"),
        ({"first": -1}, "first must be 0 to 50, not -1"),
        ({"first": 51}, "first must be 0 to 50, not 51"),
        ({"last": 51}, "last must be 0 to 50, not 51"),
        ({"after": "?"}, "no cursor"),
    ],
)
def test_senseless_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    """Arguments that contradict each other or ask for too much say so."""
    with pytest.raises(ApiError, match=words):
        read_window(arguments, 50)


def test_a_page_has_a_default_length() -> None:
    """Without first and last a page has 100 rows, or fewer if the server allows fewer."""
    assert read_window({}, 500).limit == 100
    assert read_window({}, 50).limit == 50


@pytest.mark.parametrize("way", ["forward", "backward"])
@given(times=st.lists(st.integers(0, 9), max_size=12), size=st.integers(1, 5))
async def test_pages_join_to_the_history(way: str, times: list[int], size: int) -> None:
    """Following the cursors to either end gives each row of the range once, in order."""
    rows = rows_at(times)
    inside = [row for row in rows if 2 <= row["ts"] < 8]
    found: list[dict[str, Any]] = []
    arguments: dict[str, Any] = {"from": 2, "to": 8}
    arguments["first" if way == "forward" else "last"] = size
    while True:
        page = await read_page(read_window(arguments, 50), reader(rows))
        if way == "forward":
            found = found + page.rows
            arguments["after"] = page.end_cursor
            more = await page.has_next_page(NONE)
        else:
            found = page.rows + found
            arguments["before"] = page.start_cursor
            more = await page.has_previous_page(NONE)
        if not more:
            break
    assert found == inside


@given(
    times=st.lists(st.integers(0, 6), max_size=8),
    size=st.integers(0, 4),
    way=st.sampled_from(["first", "last"]),
    cuts=st.tuples(st.none() | st.integers(0, 7), st.none() | st.integers(0, 7)),
)
async def test_page_info_is_right(
    times: list[int], size: int, way: str, cuts: tuple[int | None, int | None]
) -> None:
    """A page is the right part of the history, and knows what is before and after it."""
    rows = rows_at(times)
    inside = [row for row in rows if 1 <= row["ts"] < 6]
    places = [None if cut is None else (cut, 0, cut, 0) for cut in cuts]
    arguments: dict[str, Any] = {"from": 1, "to": 6, way: size}
    for name, place in zip(("after", "before"), places, strict=True):
        if place is not None:
            arguments[name] = encode_cursor(place)
    page = await read_page(read_window(arguments, 50), reader(rows))
    after, before = places
    kept = [
        row
        for row in inside
        if (after is None or cursor_of(row) > after) and (before is None or cursor_of(row) < before)
    ]
    wanted = kept[:size] if way == "first" else kept[max(len(kept) - size, 0) :]
    assert page.rows == wanted
    if wanted:
        assert await page.has_next_page(NONE) == (wanted[-1] is not inside[-1])
        assert await page.has_previous_page(NONE) == (wanted[0] is not inside[0])
    assert [edge["cursor"] for edge in page.edges][:1] == ([page.start_cursor] if wanted else [])
