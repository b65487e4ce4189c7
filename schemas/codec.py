"""Bytes of `prices` to ticks in columns and back; bytes of the stage topics."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pyarrow as pa

from schemas.blocks import COLUMNS, SIDES, Array, Rows, to_arrow
from schemas.ticks import DETAILS, ID_LENGTH, SYMBOL_PATTERN, Reason
from schemas.times import NO_TIME, format_rfc3339, parse_time, to_ns

NAN: Final = float("nan")
NO_ID: Final = -1
FLOATS: Final = ("price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low")
_INTEGERS: Final = ("ts", "known_at", "received", "id", "offset")
_CODES: Final = ("symbol", "side", "index", "fault")
_SYMBOL: Final = re.compile(SYMBOL_PATTERN, re.ASCII)
_SIDE_CODES: Final[Mapping[str | None, int]] = {None: -1, "buy": 0, "sell": 1}
_FAULTS: Final = {reason: code for code, reason in enumerate(Reason)}
_MAX_DETAIL: Final = 300
_INT64: Final = 2**63


class _Tick(msgspec.Struct):
    symbol: str
    ts: int | str
    price: float
    size: float | None = NAN
    side: Literal["buy", "sell"] | None = None
    bid: float | None = NAN
    ask: float | None = NAN
    bid_size: float | None = NAN
    ask_size: float | None = NAN
    open: float | None = NAN
    high: float | None = NAN
    low: float | None = NAN
    id: int | str | None = None
    recv_ts: int | None = None


_one: Final = msgspec.json.Decoder(_Tick)
_many: Final = msgspec.json.Decoder(list[_Tick])
_raw: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encoder: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Message:
    """One record of `prices`: where it stands, when it was received (ns), its bytes."""

    offset: int
    received: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Reject:
    """A message (index -1) or a tick that was turned away, by decoding or by the guard."""

    offset: int
    index: int
    reason: Reason
    detail: str
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Ticks as they arrived, not judged yet, in columns of shape (n,).

    Floats are NaN where a field is missing; `ts` and `known_at` are ns (NO_TIME when unreadable);
    `received` is the broker's time; `symbol` codes into `symbols`; `fault` is -1 or the code of the
    reason that decoding found; `id` is NO_ID without one.
    """

    partition: int
    columns: Mapping[str, Array]
    symbols: Sequence[str]

    def __len__(self) -> int:
        return len(self.columns["ts"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def slice(self, start: int, stop: int) -> "Arrivals":
        """The ticks from start to stop, without a copy."""
        cut = {name: values[start:stop] for name, values in self.columns.items()}
        return Arrivals(self.partition, cut, self.symbols)


def id_key(value: int | str | None) -> int:
    """The 64-bit key of a trade id: an integer is itself, a text its 63-bit BLAKE2 hash."""
    if value is None:
        return NO_ID
    if isinstance(value, int):
        return value
    return int.from_bytes(blake2b(value.encode(), digest_size=8).digest(), "big") >> 1


def _symbol_codes(names: Iterable[str], index: dict[str, int]) -> Array:
    return np.array([index.setdefault(name, len(index)) for name in names], np.int32)


def _time_column(values: list[Any]) -> Array:
    try:
        return to_ns(np.array(values, np.int64))
    except (TypeError, ValueError, OverflowError):  # text, null or a huge number among them
        return np.array([parse_time(value) for value in values], np.int64)


def _from_structs(ticks: list[_Tick], index: dict[str, int], fields: set[str]) -> dict[str, Array]:
    n = len(ticks)
    columns: dict[str, Array] = {}
    for name in FLOATS:
        if name in fields:
            columns[name] = np.array(list(map(attrgetter(name), ticks)), np.float64)
        else:
            columns[name] = np.full(n, np.nan)
    columns["symbol"] = _symbol_codes((tick.symbol for tick in ticks), index)
    columns["ts"] = _time_column([tick.ts for tick in ticks])
    columns["side"] = (
        np.array([_SIDE_CODES[tick.side] for tick in ticks], np.int32)
        if "side" in fields
        else np.full(n, -1, np.int32)
    )
    columns["id"] = (
        np.array([id_key(tick.id) for tick in ticks], np.int64)
        if "id" in fields
        else np.full(n, NO_ID, np.int64)
    )
    columns["recv_ts"] = (
        _time_column([0 if tick.recv_ts is None else tick.recv_ts for tick in ticks])
        if "recv_ts" in fields
        else np.zeros(n, np.int64)
    )
    return columns


_KEYS: Final = tuple(
    (name, f'"{name}"'.encode()) for name in (*FLOATS, "side", "id", "recv_ts") if name != "price"
)


def _fields_of(value: bytes) -> set[str]:
    if b"\\" in value:  # a key may be written with escapes: look for every field
        return {"price", *(name for name, _ in _KEYS)}
    return {"price", *(name for name, key in _KEYS if key in value)}


def _check(tick: _Tick) -> str | None:
    if isinstance(tick.id, str) and not 1 <= len(tick.id) <= ID_LENGTH:
        return f"id is not 1 to {ID_LENGTH} characters"
    if isinstance(tick.id, int) and not -_INT64 <= tick.id < _INT64:
        return "id is not a 64-bit integer"
    if tick.recv_ts is not None and not -_INT64 <= tick.recv_ts < _INT64:
        return "recv_ts is not a 64-bit integer"
    return None


def _cast(column: Any, kind: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(kind)


def _arrow_times(column: Any) -> Array:
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise pa.ArrowInvalid("a timestamp column needs a zone")
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
        return np.asarray(column.fill_null(NO_TIME), np.int64)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([parse_time(text) for text in column.to_pylist()], np.int64)
    if not pa.types.is_integer(column.type):
        raise pa.ArrowInvalid("a time is an integer, a timestamp with zone, or RFC 3339 text")
    return to_ns(column.cast(pa.int64()).fill_null(NO_TIME).to_numpy(zero_copy_only=False))


def _arrow_ids(column: Any) -> Array:
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()).fill_null(NO_ID), np.int64)
    return np.array([id_key(text) for text in _cast(column, pa.utf8()).to_pylist()], np.int64)


def from_table(table: Any, index: dict[str, int]) -> dict[str, Array]:
    """Columns of ticks from an Arrow table with at least symbol, ts and price.

    Raises:
        KeyError: a required column is missing.
        pyarrow.ArrowException: a column has a type that no tick can be read from.
    """
    n = table.num_rows
    names = set(table.column_names)

    def column(name: str) -> Any:
        if name not in names:
            raise KeyError(name)
        return table.column(name).combine_chunks()

    columns: dict[str, Array] = {}
    coded = _cast(column("symbol"), pa.utf8()).dictionary_encode()
    words = [_symbol_codes((word,), index)[0] for word in coded.dictionary.to_pylist()]
    if coded.null_count:
        words.append(_symbol_codes(("",), index)[0])
    codes = coded.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)
    columns["symbol"] = np.array(words, np.int32)[codes]
    columns["ts"] = _arrow_times(column("ts"))
    for name in FLOATS:
        if name in names or name == "price":
            values = _cast(column(name), pa.float64()).to_numpy(zero_copy_only=False)
            columns[name] = values
        else:
            columns[name] = np.full(n, np.nan)
    if "side" in names:
        sides = _cast(column("side"), pa.utf8()).to_pylist()
        columns["side"] = np.array([_SIDE_CODES.get(side or None, -2) for side in sides], np.int32)
    else:
        columns["side"] = np.full(n, -1, np.int32)
    columns["id"] = _arrow_ids(column("id")) if "id" in names else np.full(n, NO_ID, np.int64)
    received = _arrow_times(column("recv_ts")) if "recv_ts" in names else np.zeros(n, np.int64)
    columns["recv_ts"] = np.where(received == NO_TIME, 0, received)
    return columns


def _bad_symbols(symbols: Sequence[str]) -> Array:
    return np.array([_SYMBOL.fullmatch(name) is None for name in symbols], np.bool_)


def arrivals(
    partition: int,
    columns: dict[str, Array],
    symbols: Sequence[str],
    received: Array | None = None,
) -> Arrivals:
    """Complete decoded columns: faults, receive times; `received` None means a file (no bound)."""
    n = len(columns["ts"])
    fault = np.full(n, -1, np.int32)
    bad = _bad_symbols(symbols)
    if bad.any():
        fault[bad[columns["symbol"]]] = _FAULTS[Reason.BAD_SYMBOL]
    fault[columns["side"] == -2] = _FAULTS[Reason.MALFORMED]  # noqa: PLR2004 -- neither buy nor sell
    recv_ts = columns.pop("recv_ts")
    fallback = columns["ts"] if received is None else received
    columns["known_at"] = np.where(recv_ts == 0, fallback, recv_ts)
    columns["received"] = np.full(n, _INT64 - 1, np.int64) if received is None else received
    columns["fault"] = fault
    return Arrivals(partition, columns, symbols)


def _items(value: bytes) -> list[msgspec.Raw]:
    if value[:1] == b"[":
        return _raw.decode(value)
    msgspec.json.decode(value)  # an object that ends early is undecodable, not a malformed tick
    return [msgspec.Raw(value)]


class Decoder:
    """Decodes the messages of one partition, several at a time, into one run of ticks."""

    def __init__(self, partition: int) -> None:
        self._partition = partition

    def decode(self, messages: Sequence[Message]) -> tuple[Arrivals, list[Reject]]:
        """All ticks of the messages in order, and what could not be read at all."""
        index: dict[str, int] = {}
        parts: list[dict[str, Array]] = []
        rejects: list[Reject] = []
        ticks: list[_Tick] = []
        fields: set[str] = set()
        where: list[tuple[int, int, Array]] = []

        def flush() -> None:
            if ticks:
                parts.append(_from_structs(ticks, index, fields))
                ticks.clear()

        for message in messages:
            value = (message.value or b"").lstrip(b" \t\r\n")
            first = value[:1]
            if first in {b"{", b"["}:
                found, places = self._json(message, value, rejects)
                ticks.extend(found)
                fields |= _fields_of(value)
            elif first == b"\xff":
                flush()
                table = self._arrow(message, index, rejects)
                places = np.arange(0 if table is None else len(table["ts"]), dtype=np.int32)
                if table is not None:
                    parts.append(table)
            else:
                detail = "the value is empty" if not value else DETAILS[Reason.UNDECODABLE]
                rejects.append(Reject(message.offset, -1, Reason.UNDECODABLE, detail))
                continue
            where.append((message.offset, message.received, places))
        flush()
        return self._join(parts, where, list(index)), rejects

    def _json(
        self, message: Message, value: bytes, rejects: list[Reject]
    ) -> tuple[list[_Tick], Array]:
        try:
            found = [_one.decode(value)] if value[:1] == b"{" else _many.decode(value)
        except msgspec.MsgspecError as error:
            return self._json_slowly(message, value, rejects, error)
        except RecursionError:
            return self._undecodable(message, rejects, "nested too deeply")
        if b'"id"' in value or b'"recv_ts"' in value or b"\\" in value:
            for tick in found:
                if _check(tick) is not None:
                    return self._json_slowly(message, value, rejects, None)
        return found, np.arange(len(found), dtype=np.int32)

    def _json_slowly(
        self,
        message: Message,
        value: bytes,
        rejects: list[Reject],
        error: Exception | None,
    ) -> tuple[list[_Tick], Array]:
        """Tick by tick: one bad tick does not take its neighbours with it."""
        try:
            items = (
                _raw.decode(value) if value[:1] == b"[" else [msgspec.json.decode(value) and value]
            )
        except (msgspec.MsgspecError, RecursionError):
            return self._undecodable(message, rejects, str(error))
        good: list[_Tick] = []
        places: list[int] = []
        for i, item in enumerate(items):
            try:
                tick = _one.decode(item)
                fault = _check(tick)
            except (msgspec.MsgspecError, RecursionError) as why:
                fault = str(why)
            if fault is None:
                good.append(tick)
                places.append(i)
            else:
                rejects.append(Reject(message.offset, i, Reason.MALFORMED, fault[:_MAX_DETAIL]))
        return good, np.array(places, np.int32)

    def _undecodable(
        self, message: Message, rejects: list[Reject], detail: str
    ) -> tuple[list[_Tick], Array]:
        rejects.append(Reject(message.offset, -1, Reason.UNDECODABLE, detail[:_MAX_DETAIL]))
        return [], np.empty(0, np.int32)

    def _arrow(
        self, message: Message, index: dict[str, int], rejects: list[Reject]
    ) -> dict[str, Array] | None:
        try:
            table = pa.ipc.open_stream(message.value).read_all()
            table.validate(full=True)  # the bytes are a stranger's: wrong offsets would crash us
        except (pa.ArrowException, OSError, ValueError) as error:
            self._undecodable(message, rejects, " ".join(str(error).split()))
            return None
        try:
            return from_table(table, index)
        except KeyError as error:
            detail = f"column {error.args[0]} is missing"
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            detail = " ".join(str(error).split())[:_MAX_DETAIL]
        rejects.append(Reject(message.offset, -1, Reason.MALFORMED, detail))
        return None

    def _join(
        self,
        parts: list[dict[str, Array]],
        where: list[tuple[int, int, Array]],
        symbols: list[str],
    ) -> Arrivals:
        if not parts:
            parts = [_from_structs([], {}, set())]
        columns = (
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if len(parts) > 1
            else parts[0]
        )
        counts = np.array([len(places) for _, _, places in where], np.int64)
        columns["offset"] = np.repeat(np.array([o for o, _, _ in where], np.int64), counts)
        received = np.repeat(np.array([r for _, r, _ in where], np.int64), counts)
        columns["index"] = (
            np.concatenate([places for _, _, places in where]) if where else np.empty(0, np.int32)
        )
        return arrivals(self._partition, columns, symbols, received)


def element_bytes(value: bytes, index: int) -> bytes:
    """The bytes of one tick of a message: what `prices.rejected` carries, so it replays alone."""
    stripped = value.lstrip(b" \t\r\n")
    if index < 0 or stripped[:1] == b"{":
        return value
    if stripped[:1] == b"[":
        return bytes(_raw.decode(stripped)[index])
    table = pa.ipc.open_stream(value).read_all().slice(index, 1)
    return table_bytes(table)


def table_bytes(table: Any) -> bytes:
    """An Arrow table or record batch as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return bytes(sink.getvalue())


def block_bytes(rows: Rows) -> bytes:
    """Rows of a stage as the value of its topic: an Arrow IPC stream of one block."""
    return table_bytes(to_arrow(rows))


def _json_value(kind: str, value: Any) -> Any:
    if kind == "float64":
        return None if value != value else float(value)  # noqa: PLR0124 -- NaN is null
    return int(value)


def row_documents(rows: Rows) -> list[dict[str, Any]]:
    """Each row as a JSON document: null for null, words for codes, `time` beside `ts`."""
    table: list[tuple[str, list[Any]]] = []
    for column in COLUMNS[rows.stage]:
        values = rows[column.name]
        if column.kind in {"symbol", "label"}:
            words = rows.symbols if column.kind == "symbol" else column.labels
            table.append((column.name, [words[v] if v >= 0 else None for v in values.tolist()]))
        else:
            table.append((column.name, [_json_value(column.kind, v) for v in values.tolist()]))
    documents = [
        dict(zip([name for name, _ in table], row, strict=True))
        for row in zip(*[values for _, values in table], strict=True)
    ]
    for document in documents:
        document["time"] = format_rfc3339(document["ts"])
    return documents


json_bytes: Final[Callable[[Any], bytes]] = _encoder.encode


def tick_bytes(ticks: Sequence[Mapping[str, Any]], framing: str = "json") -> bytes:
    """Ticks as one message: one JSON object, a JSON array, or an Arrow IPC stream."""
    if framing == "arrow":
        return table_bytes(pa.Table.from_pylist([dict(tick) for tick in ticks]))
    return json_bytes(ticks[0] if len(ticks) == 1 else list(ticks))


SIDE_NAMES: Final = SIDES
