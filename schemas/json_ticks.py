"""Ticks written as JSON: what msgspec reads of them, and what it does not look at."""

from collections.abc import Callable
from typing import Final

import msgspec

from schemas.arrivals import FACTORS, FLOATS, INT64, TickStruct, is_symbol
from schemas.ticks import ID_LENGTH

CHECKED: Final = (b'"id"', b'"recv_ts"', b'"was"', b"\\")
"""Where none of these is in a message, none of its ticks has a fault that `fault_of` finds."""
_KEYS: Final = tuple(
    (name, f'"{name}"'.encode())
    for name in (*FLOATS, *FACTORS, "side", "id", "recv_ts", "was")
    if name != "price"
)

one_tick: Final[Callable[[bytes | msgspec.Raw], TickStruct]] = msgspec.json.Decoder(
    TickStruct
).decode
many_ticks: Final[Callable[[bytes], list[TickStruct]]] = msgspec.json.Decoder(
    list[TickStruct]
).decode
raw_items: Final[Callable[[bytes], list[msgspec.Raw]]] = msgspec.json.Decoder(
    list[msgspec.Raw]
).decode


def fields_of(value: bytes) -> set[str]:
    """The fields that ticks of a message may have."""
    if b"\\" in value:  # a key may be written with escapes: look for every field
        return {"price", *(name for name, _ in _KEYS)}
    return {"price", *(name for name, key in _KEYS if key in value)}


def fault_of(tick: TickStruct) -> str | None:
    """What is wrong with a tick whose fields have the right types; None: nothing."""
    if isinstance(tick.id, str) and not 1 <= len(tick.id) <= ID_LENGTH:
        return f"id is not 1 to {ID_LENGTH} characters"
    if isinstance(tick.id, int) and not -INT64 <= tick.id < INT64:
        return "id is not a 64-bit integer"
    if tick.recv_ts is not None and not -INT64 <= tick.recv_ts < INT64:
        return "recv_ts is not a 64-bit integer"
    if tick.was is not None and not is_symbol(tick.was):
        return "was is no symbol"
    return None


def items_of(value: bytes) -> list[msgspec.Raw]:
    """The ticks of a message, each as its bytes.

    Raises:
        msgspec.MsgspecError: it is no JSON.
    """
    if value[:1] == b"[":
        return raw_items(value)
    msgspec.json.decode(value)  # an object that ends early is undecodable, not a malformed tick
    return [msgspec.Raw(value)]
