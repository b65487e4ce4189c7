"""Ticks as they arrived, in columns: from decoded structs and from Arrow tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pyarrow as pa

from schemas.blocks import Array, present
from schemas.ticks import SYMBOL_PATTERN, Reason
from schemas.times import NO_TIME, parse_time, to_ns

NAN: Final = float("nan")
NO_ID: Final = -1
FLOATS: Final = ("price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low")
FACTORS: Final = ("factor", "volume_factor")
_SYMBOL: Final = re.compile(SYMBOL_PATTERN, re.ASCII)
_SIDE_CODES: Final[Mapping[str | None, int]] = {None: -1, "buy": 0, "sell": 1}
_FAULTS: Final = {reason: code for code, reason in enumerate(Reason)}
INT64: Final = 2**63


class TickStruct(msgspec.Struct):
    """A tick of the wire as msgspec decodes it; the contract is `schemas.ticks.Tick`."""

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
    factor: float | None = NAN
    volume_factor: float | None = NAN
    was: str | None = None


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
class Gap:
    """Trade ids, both ends among them, that a symbol's accepted ticks skipped.

    `offset` and `index` are the coordinates in `prices` of the tick with the next id, `ts` (ns) its
    time. An event is never taken back: one of these ids may still come, out of order.
    """

    offset: int
    index: int
    symbol: str
    ts: int
    from_id: int
    to_id: int

    @property
    def missing(self) -> int:
        """How many ids that are."""
        return self.to_id - self.from_id + 1


class Arrivals(msgspec.Struct, frozen=True, eq=False):
    """Ticks as they arrived, not judged yet, in columns of shape (n,).

    Floats are NaN where a field is missing; `ts` and `known_at` are ns (NO_TIME when unreadable);
    `received` is the broker's time; `symbol` codes into `symbols`; `fault` is -1 or the code of the
    reason that decoding found; `id` is NO_ID without one; `was` codes into `symbols`, -1 mostly.
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


def _former(names: Iterable[str | None], index: dict[str, int]) -> Array:
    return np.array([-1 if not n else index.setdefault(n, len(index)) for n in names], np.int32)


def _time_column(values: list[Any]) -> Array:
    times = np.array(values)
    if times.dtype == np.int64:
        return to_ns(times)
    # Text, null or a huge number among them; numpy itself would read the text "5" as a number.
    return np.array([parse_time(value) for value in values], np.int64)


def from_structs(
    ticks: list[TickStruct], index: dict[str, int], fields: set[str]
) -> dict[str, Array]:
    """Columns of decoded ticks; only `fields` are looked at, the others are missing in all."""
    n = len(ticks)
    missing = np.full(n, np.nan)  # one array for all of them: it is read, never written
    columns: dict[str, Array] = {}
    for name in (*FLOATS, *FACTORS):
        if name in fields:
            columns[name] = np.array(list(map(attrgetter(name), ticks)), np.float64)
        else:
            columns[name] = missing
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
    columns["was"] = np.full(n, -1, np.int32)
    if "was" in fields:
        columns["was"] = _former([tick.was for tick in ticks], index)
    columns["recv_ts"] = (
        _time_column([0 if tick.recv_ts is None else tick.recv_ts for tick in ticks])
        if "recv_ts" in fields
        else np.zeros(n, np.int64)
    )
    return columns


def _cast(column: Any, kind: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if column.type == kind else column.cast(kind)


def _coded(column: Any) -> tuple[list[str], Array]:
    """The words that a column of texts has, "" for null, and for each row which one it has."""
    kind = column.type
    ready = pa.types.is_dictionary(kind) and kind.value_type == pa.utf8()
    ready = ready and not column.dictionary.null_count
    coded = column if ready else _cast(column, pa.utf8()).dictionary_encode()
    words = coded.dictionary.to_pylist()
    indices = coded.indices.cast(pa.int32())
    if indices.null_count:
        indices = indices.fill_null(len(words))
        words.append("")
    codes = indices.to_numpy(zero_copy_only=False)
    # A dictionary that came with the column may be one of many columns.
    return (words, codes) if not ready else present(codes, words)[::-1]


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
    column = column.cast(pa.int64())
    if column.null_count:
        column = column.fill_null(NO_TIME)
    return to_ns(column.to_numpy(zero_copy_only=False))


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
    missing, none = np.full(n, np.nan), np.full(n, -1, np.int32)  # they are read, never written
    words, codes = _coded(column("symbol"))
    columns["ts"] = _arrow_times(column("ts"))
    for name in (*FLOATS, *FACTORS):
        if name in names or name == "price":
            columns[name] = _cast(column(name), pa.float64()).to_numpy(zero_copy_only=False)
        else:
            columns[name] = missing
    columns["side"] = columns["was"] = none
    if "side" in names:
        sides, chosen = _coded(column("side"))
        known = [_SIDE_CODES.get(side or None, -2) for side in sides]
        columns["side"] = np.array(known, np.int32)[chosen]
    columns["id"] = _arrow_ids(column("id")) if "id" in names else np.full(n, NO_ID, np.int64)
    former = _coded(column("was")) if "was" in names else None
    columns["recv_ts"] = np.zeros(n, np.int64)
    if "recv_ts" in names:
        received = _arrow_times(column("recv_ts"))
        columns["recv_ts"] = np.where(received == NO_TIME, 0, received)
    # Last, so that a table that cannot be read leaves no symbols behind.
    columns["symbol"] = _symbol_codes(words, index)[codes]
    if former is not None:
        columns["was"] = _former(former[0], index)[former[1]]
    return columns


def is_symbol(name: str) -> bool:
    """Whether a text may be a symbol."""
    return _SYMBOL.fullmatch(name) is not None


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
    for name in FACTORS:
        if name not in columns:
            columns[name] = np.full(n, np.nan)
    if "was" not in columns:
        columns["was"] = np.full(n, -1, np.int32)
    fault = np.full(n, -1, np.int32)
    if not all(map(_SYMBOL.fullmatch, symbols)):
        bad = _bad_symbols(symbols)
        fault[bad[columns["symbol"]]] = _FAULTS[Reason.BAD_SYMBOL]
        fault[(columns["was"] >= 0) & bad[columns["was"]]] = _FAULTS[Reason.BAD_SYMBOL]
    unknown = columns["side"] == -2  # noqa: PLR2004 -- neither buy nor sell
    if np.count_nonzero(unknown):
        fault[unknown] = _FAULTS[Reason.MALFORMED]
    recv_ts = columns.pop("recv_ts")
    fallback = columns["ts"] if received is None else received
    columns["known_at"] = (
        np.where(recv_ts == 0, fallback, recv_ts) if np.count_nonzero(recv_ts) else fallback
    )
    columns["received"] = np.full(n, INT64 - 1, np.int64) if received is None else received
    columns["fault"] = fault
    # Kernels are compiled for one kind of array: contiguous and writable, as Arrow's are not.
    whole = {
        name: values if values.flags.carray else np.require(values, requirements=("C", "W"))
        for name, values in columns.items()
    }
    return Arrivals(partition, whole, symbols)
