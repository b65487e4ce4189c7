"""Pages of history by cursors, as the Relay specification of connections has them."""

import base64
import binascii
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.errors import ApiError, Code
from pipeline.store.reads import EARLIEST, LAST, LATEST, Cursor, cursor_of

DEFAULT_PAGE: Final = 100
_PLACE: Final = struct.Struct(">qiqi")  # ts, partition, offset, index
_EARLIEST: Final = EARLIEST + 1
Row = dict[str, Any]
# (start, end, limit, after, before) -> rows in order: the first ones, or the last with `before`
Fetch = Callable[[int, int, int, Cursor | None, Cursor | None], Awaitable[list[Row]]]


def encode_cursor(place: Cursor) -> str:
    """A place in history as opaque text."""
    return base64.urlsafe_b64encode(_PLACE.pack(*place)).decode()


def decode_cursor(text: str) -> Cursor:
    """The place that a cursor stands for.

    Raises:
        ApiError: it is none of ours.
    """
    try:
        ts, partition, offset, index = _PLACE.unpack(
            base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        )
    except (ValueError, struct.error, binascii.Error) as error:
        raise ApiError(Code.BAD_INPUT, "this is no cursor of ours") from error
    return ts, partition, offset, index


@dataclass(frozen=True, slots=True)
class Window:
    """What part of a history is asked for: a time range, cut by cursors, from one end of it."""

    start: int
    end: int
    after: Cursor | None
    before: Cursor | None
    limit: int
    backward: bool
    known: int | None = None
    """Only what was known by then (ns)."""


def read_window(arguments: Mapping[str, Any], page_max: int) -> Window:
    """The arguments of a history field.

    Raises:
        ApiError: they contradict each other or ask for too much.
    """
    first, last = arguments.get("first"), arguments.get("last")
    if first is not None and last is not None:
        raise ApiError(Code.BAD_INPUT, "give first or last, not both")
    limit = read_limit("first" if last is None else "last", first, last, page_max)
    after, before = arguments.get("after"), arguments.get("before")
    start, end = arguments.get("from"), arguments.get("to")
    known, last_event = read_moment(arguments.get("as_of") or {})
    return Window(
        start=_EARLIEST if start is None else start,
        end=min(LATEST if end is None else end, last_event + 1),
        after=None if after is None else decode_cursor(after),
        before=None if before is None else decode_cursor(before),
        limit=limit,
        backward=last is not None,
        known=known,
    )


def read_moment(as_of: Mapping[str, int | None]) -> tuple[int | None, int]:
    """Of an `AsOf` the time of our knowledge, if there is one, and of the last event (ns)."""
    known = as_of.get("known_at")
    event = as_of.get("event_time")
    if event is None:
        event = known
    return known, LATEST - 1 if event is None else min(event, LATEST - 1)


def read_limit(name: str, first: int | None, last: int | None, page_max: int) -> int:
    """The length of a page.

    Raises:
        ApiError: it is negative or above the limit of the server.
    """
    asked = first if last is None else last
    if asked is None:
        return min(DEFAULT_PAGE, page_max)
    if not 0 <= asked <= page_max:
        raise ApiError(Code.BAD_INPUT, f"{name} must be 0 to {page_max}, not {asked}")
    return asked


class Page:
    """One page; whether there is more is asked for only when a client wants to know."""

    def __init__(self, window: Window, rows: list[Row], *, more: bool, fetch: Fetch) -> None:
        self.rows = rows
        self._window = window
        self._more = more
        self._fetch = fetch

    @property
    def edges(self) -> list[dict[str, Any]]:
        """The rows with their cursors."""
        return [{"cursor": encode_cursor(cursor_of(row)), "node": row} for row in self.rows]

    @property
    def page_info(self) -> "Page":
        """The page itself knows where it stands."""
        return self

    @property
    def start_cursor(self) -> str | None:
        """Cursor of the first row."""
        return encode_cursor(cursor_of(self.rows[0])) if self.rows else None

    @property
    def end_cursor(self) -> str | None:
        """Cursor of the last row."""
        return encode_cursor(cursor_of(self.rows[-1])) if self.rows else None

    async def has_next_page(self, _info: Any) -> bool:
        """Whether the time range holds a row after this page."""
        before = self._window.before
        if not self._window.backward:
            return self._more
        if before is None:
            return False  # when it was read, nothing was behind it
        edge = cursor_of(self.rows[-1]) if self.rows else _just_before(before)
        return await self._exists(after=edge)

    async def has_previous_page(self, _info: Any) -> bool:
        """Whether the time range holds a row before this page."""
        after = self._window.after
        if self._window.backward:
            return self._more
        if after is None:
            return False
        edge = cursor_of(self.rows[0]) if self.rows else _just_after(after)
        return await self._exists(before=edge)

    async def _exists(self, after: Cursor | None = None, before: Cursor | None = None) -> bool:
        window = self._window
        return bool(await self._fetch(window.start, window.end, 1, after, before))


async def read_page(window: Window, fetch: Fetch) -> Page:
    """Read one page, and one row more to know whether there is more."""
    start, end, size = window.start, window.end, window.limit
    if window.backward:
        last = window.before or LAST
        found = await fetch(start, end, size + 1, None, last)
        kept = [row for row in found if window.after is None or cursor_of(row) > window.after]
        rows = kept[max(len(kept) - size, 0) :]
    else:
        found = await fetch(start, end, size + 1, window.after, None)
        kept = [row for row in found if window.before is None or cursor_of(row) < window.before]
        rows = kept[:size]
    return Page(window, rows, more=len(found) > len(rows), fetch=fetch)


def _just_after(place: Cursor) -> Cursor:
    return (*place[:3], min(place[3] + 1, 2**31 - 1))


def _just_before(place: Cursor) -> Cursor:
    return (*place[:3], max(place[3] - 1, -(2**31)))
