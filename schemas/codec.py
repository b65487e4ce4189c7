"""Bytes of `prices` to ticks in columns and back; bytes of the stage topics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from schemas.arrivals import (
    Arrivals,
    Message,
    Reject,
    TickStruct,
    arrivals,
    from_structs,
    from_table,
)
from schemas.blocks import COLUMNS, Array, Rows, to_arrow
from schemas.json_ticks import (
    CHECKED,
    fault_of,
    fields_of,
    items_of,
    many_ticks,
    one_tick,
    raw_items,
)
from schemas.ticks import DETAILS, Reason
from schemas.times import format_all

_MAX_DETAIL: Final = 300
_JSON: Final = (b"{", b"[")  # how a message of ticks in JSON begins
_encoder: Final = msgspec.json.Encoder()


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    if not parts:
        return from_structs([], {}, set())
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# Ticks of JSON messages in columns and how many each has, -1 for one that it leaves to us.
Scan = Callable[[Sequence[bytes], dict[str, int]], tuple[dict[str, Array], Array]]


class Decoder:
    """Decodes the messages of one partition, several at a time, into one run of ticks.

    A `scan` may read the messages that it is sure about; what it leaves is read here.
    """

    def __init__(self, partition: int, scan: Scan | None = None) -> None:
        self._partition = partition
        self._scan = scan

    def decode(self, messages: Sequence[Message]) -> tuple[Arrivals, list[Reject]]:
        """All ticks of the messages in order, and what could not be read at all."""
        index: dict[str, int] = {}
        rejects: list[Reject] = []
        odd: dict[int, Array] = {}  # places in a message where they are not 0, 1, 2, ...
        values = [(message.value or b"").lstrip(b" \t\r\n") for message in messages]
        columns, counts = self._scanned(values, index)
        if not columns or np.count_nonzero(counts < 0):
            columns, counts = self._read(messages, values, columns, counts, index, odd, rejects)
        return self._join(columns, messages, counts, odd, list(index)), rejects

    def _scanned(
        self, values: Sequence[bytes], index: dict[str, int]
    ) -> tuple[dict[str, Array], Array]:
        """What the scan reads, and per message how many ticks of it, -1 for none of it."""
        counts = np.full(len(values), -1, np.int64)
        if self._scan is None:
            return {}, counts
        mine = [i for i, value in enumerate(values) if value[:1] in _JSON]
        if len(mine) == len(values):
            return self._scan(values, index)
        columns, counts[mine] = self._scan([values[i] for i in mine], index)
        return columns, counts

    def _read(
        self,
        messages: Sequence[Message],
        values: Sequence[bytes],
        scanned: dict[str, Array],
        counts: Array,
        index: dict[str, int],
        odd: dict[int, Array],
        rejects: list[Reject],
    ) -> tuple[dict[str, Array], Array]:
        """What the scan left, in its place among what it read; how many ticks each message has."""
        parts: list[dict[str, Array]] = []
        ticks: list[TickStruct] = []
        fields: set[str] = set()
        begin = taken = 0

        def flush() -> None:
            nonlocal begin
            if ticks:
                parts.append(from_structs(ticks, index, fields))
                ticks.clear()
            if taken > begin:
                parts.append({name: column[begin:taken] for name, column in scanned.items()})
                begin = taken

        known = counts.tolist()
        for i, (message, value) in enumerate(zip(messages, values, strict=True)):
            if known[i] >= 0:
                if ticks:
                    flush()
                taken += known[i]
                continue
            known[i] = 0
            if value[:1] in _JSON:
                if taken > begin:  # the order of ticks is the order of messages
                    flush()
                found, odd[i] = self._json(message, value, rejects)
                ticks.extend(found)
                fields |= fields_of(value)
                known[i] = len(found)
            elif value[:1] == b"\xff":
                flush()
                known[i] = self._arrow(message, index, rejects, parts)
            else:
                detail = "the value is empty" if not value else DETAILS[Reason.UNDECODABLE]
                rejects.append(Reject(message.offset, -1, Reason.UNDECODABLE, detail))
        flush()
        return _joined(parts), np.array(known, np.int64)

    def _json(
        self, message: Message, value: bytes, rejects: list[Reject]
    ) -> tuple[list[TickStruct], Array]:
        try:
            if not value.isascii():
                value.decode()  # msgspec does not look at the texts of fields that it skips
            found = [one_tick(value)] if value[:1] == b"{" else many_ticks(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self._json_slowly(message, value, rejects)
        except RecursionError:
            return self._undecodable(message, rejects, "nested too deeply")
        if any(key in value for key in CHECKED):
            for tick in found:
                if fault_of(tick) is not None:
                    return self._json_slowly(message, value, rejects)
        return found, np.arange(len(found), dtype=np.int32)

    def _json_slowly(
        self, message: Message, value: bytes, rejects: list[Reject]
    ) -> tuple[list[TickStruct], Array]:
        """Tick by tick: one bad tick does not take its neighbours with it."""
        try:
            items = items_of(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._undecodable(message, rejects, str(error))
        except RecursionError:
            return self._undecodable(message, rejects, "nested too deeply")
        good: list[TickStruct] = []
        places: list[int] = []
        for i, item in enumerate(items):
            try:
                str(item, "utf-8")
                tick = one_tick(item)
                fault = fault_of(tick)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
                fault = str(why)
            if fault is None:
                good.append(tick)
                places.append(i)
            else:
                rejects.append(Reject(message.offset, i, Reason.MALFORMED, fault[:_MAX_DETAIL]))
        return good, np.array(places, np.int32)

    def _undecodable(
        self, message: Message, rejects: list[Reject], detail: str
    ) -> tuple[list[TickStruct], Array]:
        rejects.append(Reject(message.offset, -1, Reason.UNDECODABLE, detail[:_MAX_DETAIL]))
        return [], np.empty(0, np.int32)

    def _arrow(
        self,
        message: Message,
        index: dict[str, int],
        rejects: list[Reject],
        parts: list[dict[str, Array]],
    ) -> int:
        """Add the ticks of a message to the parts; how many it has."""
        try:
            table = pa.ipc.open_stream(message.value).read_all()
            table.validate(full=True)  # the bytes are a stranger's: wrong offsets would crash us
        except (pa.ArrowException, OSError, ValueError) as error:
            self._undecodable(message, rejects, " ".join(str(error).split()))
            return 0
        try:
            parts.append(from_table(table, index))
        except KeyError as error:
            detail = f"column {error.args[0]} is missing"
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            detail = " ".join(str(error).split())[:_MAX_DETAIL]
        else:
            return len(parts[-1]["ts"])
        rejects.append(Reject(message.offset, -1, Reason.MALFORMED, detail))
        return 0

    def _join(
        self,
        columns: dict[str, Array],
        messages: Sequence[Message],
        counts: Array,
        odd: Mapping[int, Array],
        symbols: list[str],
    ) -> Arrivals:
        """The columns of all ticks with those that tell of their messages."""
        of = np.empty((3, len(messages)), np.int64)
        of[0] = [message.offset for message in messages]
        of[1] = [message.received for message in messages]
        first = of[2] = counts.cumsum() - counts
        offsets, received, firsts = of.repeat(counts, axis=1)
        places = (np.arange(len(firsts)) - firsts).astype(np.int32)
        for i, own in odd.items():
            places[first[i] : first[i] + counts[i]] = own
        columns["offset"] = offsets
        columns["index"] = places
        return arrivals(self._partition, columns, symbols, received)


def element_bytes(value: bytes, indexes: Sequence[int]) -> list[bytes]:
    """The bytes of ticks of a message: what `prices.rejected` carries, so each replays alone."""
    stripped = value.lstrip(b" \t\r\n")
    if min(indexes, default=-1) < 0 or stripped[:1] == b"{":
        return [value for _ in indexes]
    if stripped[:1] == b"[":
        items = raw_items(stripped)  # once: a message may hold 100,000 ticks, all of them late
        return [bytes(items[index]) for index in indexes]
    table = pa.ipc.open_stream(value).read_all()
    return [table_bytes(table.slice(index, 1)) for index in indexes]


def table_bytes(table: Any) -> bytes:
    """An Arrow table or record batch as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return bytes(sink.getvalue())


def block_bytes(rows: Rows) -> bytes:
    """Rows of a stage as the value of its topic: an Arrow IPC stream of one block."""
    return table_bytes(to_arrow(rows))


def row_documents(rows: Rows) -> list[dict[str, Any]]:
    """Each row as a JSON document: null for null, words for codes, `time` beside `ts`."""
    columns = COLUMNS[rows.stage]
    table = []
    for column in columns:
        values = rows[column.name].tolist()
        if column.kind == "float64":
            values = [None if v != v else v for v in values]  # noqa: PLR0124 -- NaN is null
        elif column.kind in {"symbol", "label"}:
            words = rows.symbols if column.kind == "symbol" else column.labels
            values = [words[v] if v >= 0 else None for v in values]
        table.append(values)
    table.append(format_all(rows["ts"]))
    names = [*(column.name for column in columns), "time"]
    return [dict(zip(names, row, strict=True)) for row in zip(*table, strict=True)]


json_bytes: Final[Callable[[Any], bytes]] = _encoder.encode


def tick_bytes(ticks: Sequence[Mapping[str, Any]], framing: str = "json") -> bytes:
    """Ticks as one message: one JSON object, a JSON array, or an Arrow IPC stream.

    Ticks that no Arrow column can hold together (a text among numbers) are a JSON array.
    """
    if framing == "arrow":
        names = dict.fromkeys(name for tick in ticks for name in tick)
        try:
            return table_bytes(pa.table({name: [t.get(name) for t in ticks] for name in names}))
        except (pa.ArrowException, OverflowError):
            pass
    return json_bytes(ticks[0] if len(ticks) == 1 else list(ticks))
