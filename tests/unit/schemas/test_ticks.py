"""The tick contract: pydantic's model and the decoder of the hot path give the same verdict."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.arrivals import Message, id_key
from schemas.codec import Decoder
from schemas.ticks import DETAILS, REASONS, Reason, Tick, tick_json_schema
from schemas.times import parse_time

FIELDS = tuple(Tick.model_fields)
NUMBERS = (
    "price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low", "factor",
    "volume_factor",
)  # fmt: skip
GOOD = b'{"symbol":"A","ts":1700000000,"price":1.5}'


class NotJsonError(ValueError):
    """The document is no JSON of RFC 8259 with unique names, so it has no one meaning."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise NotJsonError
    return dict(pairs)


def _refuse(_: str) -> Any:
    raise NotJsonError


def strictly(document: bytes) -> Any:
    """The document as the standard library reads it, without its extensions of JSON."""
    try:
        text = document.decode()
        if text.startswith("\ufeff"):
            raise NotJsonError
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates are no text
    except (ValueError, RecursionError) as error:
        raise NotJsonError from error
    return value


def contract(document: bytes) -> Tick | None:
    """The tick that pydantic reads, None where it refuses."""
    try:
        return Tick.model_validate_json(document)
    except ValidationError:
        return None


def hot_path(document: bytes) -> dict[str, Any] | None:
    """The tick that the decoder reads, None where it rejects or marks it."""
    came, rejects = Decoder(0).decode([Message(0, 0, document)])
    assert len(came) + len(rejects) == 1
    if not len(came) or came["fault"][0] >= 0:
        return None
    found = {name: came[name][0].item() for name in (*NUMBERS, "ts", "side", "id", "known_at")}
    return {**found, "symbol": came.symbols[0]}


def assert_same(document: bytes) -> None:
    """Both refuse, or both accept and read the same values."""
    expected, found = contract(document), hot_path(document)
    assert (expected is None) == (found is None), (expected, found)
    if expected is None or found is None:
        return
    truth = strictly(document)
    assert found["symbol"] == expected.symbol
    assert found["ts"] == parse_time(expected.ts)
    for name in NUMBERS:
        value = truth.get(name)
        assert math.isnan(found[name]) if value is None else found[name] == float(value), name
    assert found["side"] == {None: -1, "buy": 0, "sell": 1}[expected.side]
    assert found["id"] == id_key(expected.id)
    received = 0 if expected.recv_ts is None else parse_time(expected.recv_ts)
    assert found["known_at"] == received


INTEGERS = st.one_of(
    st.integers(),
    st.integers(-(2**64), 2**64),
    st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1, 0, -1, 10**400, 2**53 + 1]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=70),
    st.sampled_from(["buy", "sell", "", "A", "x" * 32, "x" * 33, "x" * 64, "x" * 65, "A\n", "é"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
PROPER: dict[str, st.SearchStrategy[Any]] = {
    "was": st.sampled_from(["A", "B.C", "^X"]) | st.none(),
    "symbol": st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=32
    ),
    "ts": st.integers(0, 2**62) | st.just("2023-11-14T22:13:20Z"),
    **dict.fromkeys(NUMBERS, FLOATS),
    "side": st.sampled_from(["buy", "sell", None]),
    "id": st.integers(-(2**63), 2**63 - 1) | st.text(min_size=1, max_size=64) | st.none(),
    "recv_ts": st.integers(0, 2**62) | st.none(),
}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly proper ticks; a few fields are something else, are missing or are unknown."""
    document: dict[str, Any] = {name: draw(PROPER[name]) for name in ("symbol", "ts", "price")}
    for name in draw(st.sets(st.sampled_from(FIELDS[3:]), max_size=5)):
        document[name] = draw(PROPER[name])
    for name in draw(st.sets(st.sampled_from(FIELDS), max_size=2)):
        document[name] = draw(ANYTHING)
    for name in draw(st.sets(st.sampled_from(FIELDS), max_size=1)):
        document.pop(name, None) if draw(st.booleans()) else None
    document.update(draw(st.dictionaries(st.text(max_size=6), ANYTHING, max_size=1)))
    return document


@given(documents(), st.booleans())
@settings(max_examples=100)
def test_both_give_the_same_verdict_on_any_object(document: dict[str, Any], escaped: bool) -> None:
    """Objects with right, wrong, missing and unknown fields: accepted by both, or by neither."""
    try:
        value = json.dumps(document, ensure_ascii=escaped).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return
    assert_same(value)


# fmt: off
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b"e", b".", b"0", b"9" * 20, b"null",
    b"true", b" ", b"\xff", b"\xc3\xa9", b"\x00", b"\\ud800", b"\\u0069", b"1e999", b"NaN", b"1E5",
]
# fmt: on


@given(documents(), st.data())
@settings(max_examples=100)
@example({"symbol": "A", "ts": 1, "price": 1.5, "note": "x"}, None)
def test_both_give_the_same_verdict_on_damaged_bytes(
    document: dict[str, Any], data: st.DataObject | None
) -> None:
    """Bytes cut, replaced and put in: still the same verdict, and no error.

    A document that is no JSON (duplicate names, NaN) is left to the hot path alone: pydantic reads
    those extensions, and both may not read one as a tick that the other reads otherwise.
    """
    value = bytearray(json.dumps(document).encode())
    for _ in range(0 if data is None else data.draw(st.integers(1, 3))):
        assert data is not None
        at, width = data.draw(st.integers(0, len(value))), data.draw(st.integers(0, 2))
        value[at : at + width] = data.draw(st.sampled_from(PIECES) | st.binary(max_size=2))
    damaged = bytes(value).lstrip(b" \t\r\n")
    if damaged[:1] != b"{":
        Decoder(0).decode([Message(0, 0, damaged)])
        return
    try:
        strictly(damaged)
    except NotJsonError:
        hot_path(damaged)
        return
    assert_same(damaged)


@pytest.mark.parametrize(
    "document",
    [
        b'{"symbol":"A","ts":1700000000,"price":1.5,"x":"\xff"}',
        b'{"symbol":"A","ts":1700000000,"price":1.5,"x":NaN}',
        b'{"symbol":"A","ts":1700000000,"price":1.5,"x":"\\ud800"}',
        b'{"symbol":"A","ts":1700000000,"price":1.5,"x":01}',
        b'{"symbol":"A","ts":1700000000,"price":1.5,"x":"\n"}',
        b'{"symbol":"A","ts":1700000000,"price":1.5,}',
        b'{"symbol":"A","ts":1700000000,"price":1.5}{}',
        b'\xef\xbb\xbf{"symbol":"A","ts":1700000000,"price":1.5}',
    ],
)
def test_what_is_no_json_is_no_tick(document: bytes) -> None:
    """Wrong bytes in a field that nobody reads are wrong bytes all the same."""
    with pytest.raises(NotJsonError):
        strictly(document)
    assert hot_path(document) is None


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    "text", ["null", "true", "1", "1.0", "1e999", '"buy"', '""', "[]", "{}", str(2**63)]
)
def test_both_give_the_same_verdict_on_every_field(name: str, text: str) -> None:
    """Every field with a value of every kind."""
    fields = {"symbol": '"A"', "ts": "1700000000", "price": "1.5", name: text}
    assert_same(
        ("{" + ",".join(f'"{key}":{value}' for key, value in fields.items()) + "}").encode()
    )


def test_a_good_tick_is_accepted_by_both() -> None:
    """The comparison above would be empty if both refused everything."""
    assert contract(GOOD) is not None
    assert hot_path(GOOD) is not None
    assert contract(GOOD.replace(b"A", b"")) is None
    assert hot_path(GOOD.replace(b"A", b"")) is None


def test_the_json_schema_speaks_of_the_model() -> None:
    """The published schema names every field with its meaning and requires three of them."""
    schema = tick_json_schema()
    assert schema["required"] == ["symbol", "ts", "price"]
    assert list(schema["properties"]) == list(FIELDS)
    assert all(field["description"] for field in schema["properties"].values())
    assert schema["$schema"].startswith("https://json-schema.org/")


def test_the_order_of_reasons_is_kept() -> None:
    """Their codes stand in stored states: new ones may only be appended."""
    assert [reason.value for reason in REASONS][:10] == [
        "undecodable",
        "malformed",
        "bad_symbol",
        "bad_time",
        "non_finite",
        "non_positive",
        "negative_size",
        "duplicate",
        "late",
        "too_many_symbols",
    ]
    assert set(DETAILS) == set(Reason)
