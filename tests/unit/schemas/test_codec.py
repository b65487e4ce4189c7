"""Bytes of `prices` to ticks: three forms, each fault in its place, and no bytes that crash."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.arrivals import Arrivals, Message, Reject, id_key
from schemas.codec import Decoder, element_bytes, tick_bytes
from schemas.ticks import REASONS, Reason
from schemas.times import NO_TIME

RECEIVED = 1_700_000_100_000_000_000
TS = 1_700_000_000_000_000_000
GOOD = b'{"symbol":"A","ts":1700000000,"price":1.5}'
BAD_SYMBOL = REASONS.index(Reason.BAD_SYMBOL)
MALFORMED = REASONS.index(Reason.MALFORMED)
DOCUMENT: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "ts": 1_700_000_000_123,
    "price": 60_000.1,
    "size": 0.5,
    "side": "sell",
    "bid": 60_000.0,
    "ask": 60_000.2,
    "bid_size": 1.0,
    "ask_size": 2.0,
    "open": 59_000.0,
    "high": 61_000.0,
    "low": 58_000.0,
    "id": 17,
    "recv_ts": 1_700_000_000_456,
}


def decode(*values: bytes | None) -> tuple[Arrivals, list[Reject]]:
    """Messages at offsets 0, 1, ... of partition 3."""
    messages = [Message(at, RECEIVED, value) for at, value in enumerate(values)]
    return Decoder(3).decode(messages)


def table_of(**columns: Any) -> bytes:
    """An Arrow stream of two ticks with some columns replaced; None drops one."""
    fields: dict[str, Any] = {
        "symbol": ["A", "B"],
        "ts": [1_700_000_000, 1_700_000_001],
        "price": [1.5, 2.5],
        **columns,
    }
    return stream_of(pa.table({name: c for name, c in fields.items() if c is not None}))


def stream_of(table: Any) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def plain(came: Arrivals) -> dict[str, list[Any]]:
    """Columns as lists, symbols as words, NaN as None."""
    found = {name: came[name].tolist() for name in sorted(came.columns)}
    found["symbol"] = [came.symbols[code] for code in found["symbol"]]
    return {
        name: [None if isinstance(v, float) and np.isnan(v) else v for v in column]
        for name, column in found.items()
    }


def test_the_three_forms_give_the_same_ticks() -> None:
    """Objects, an array and an Arrow stream are told apart by their first byte."""
    other = {**DOCUMENT, "symbol": "ETHUSDT", "id": 18, "side": "buy"}
    one, _ = decode(tick_bytes([DOCUMENT]), tick_bytes([other]))
    array, _ = decode(b" \r\n\t" + tick_bytes([DOCUMENT, other]) + b" \n")
    arrow, _ = decode(tick_bytes([DOCUMENT, other], "arrow"))
    assert tick_bytes([DOCUMENT])[:1] == b"{"
    assert tick_bytes([DOCUMENT, other])[:1] == b"["
    assert tick_bytes([DOCUMENT, other], "arrow")[:1] == b"\xff"
    expected = plain(array)
    assert expected["price"] == [60_000.1, 60_000.1]
    assert expected["ts"] == [1_700_000_000_123_000_000] * 2
    assert expected["known_at"] == [1_700_000_000_456_000_000] * 2
    assert expected["received"] == [RECEIVED] * 2
    assert expected["side"] == [1, 0]
    assert expected["id"] == [17, 18]
    assert expected["index"] == [0, 1]
    assert plain(arrow) == expected
    assert plain(one) == {**expected, "offset": [0, 1], "index": [0, 0]}


def test_every_field_lands_in_its_column() -> None:
    """Fourteen different numbers arrive where their names say, in JSON as in Arrow."""
    for framing in ("json", "arrow"):
        came, rejects = decode(tick_bytes([DOCUMENT], framing))
        assert not rejects
        for name in ("price", "size", "bid", "ask", "bid_size", "ask_size", "open", "high", "low"):
            assert came[name].tolist() == [DOCUMENT[name]], name
        assert came.partition == 3


def test_fields_left_out_are_null() -> None:
    """Only symbol, ts and price are required; the receive time is then the broker's."""
    for value in (GOOD, b"[" + GOOD + b"]", table_of()):
        came, rejects = decode(value)
        assert not rejects
        assert np.isnan(came["size"]).all()
        assert set(came["side"].tolist()) == {-1}
        assert set(came["id"].tolist()) == {-1}
        assert set(came["known_at"].tolist()) == {RECEIVED}
        assert set(came["fault"].tolist()) == {-1}


def test_null_is_a_field_left_out() -> None:
    """An explicit null means missing for every optional field."""
    names = [name for name in DOCUMENT if name not in {"symbol", "ts", "price"}]
    nulls = {**json.loads(GOOD), **dict.fromkeys(names)}
    assert plain(decode(json.dumps(nulls).encode())[0]) == plain(decode(GOOD)[0])


def test_a_mix_of_forms_keeps_the_order_of_arrival() -> None:
    """JSON, Arrow, rubbish and JSON again in one batch: ticks in order, with their coordinates."""
    came, rejects = decode(GOOD, table_of(), b"rubbish", b"[" + GOOD + b"," + GOOD + b"]")
    assert came["offset"].tolist() == [0, 1, 1, 3, 3]
    assert came["index"].tolist() == [0, 0, 1, 0, 1]
    assert plain(came)["symbol"] == ["A", "A", "B", "A", "A"]
    assert [(r.offset, r.index, r.reason) for r in rejects] == [(2, -1, Reason.UNDECODABLE)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"   \n\t ",
        b"7",
        b"null",
        b'"text"',
        b"NaN",
        b"\x00\x01",
        b"\xef\xbb\xbf" + GOOD,
        b"symbol,ts,price\nA,1,2\n",
        GOOD[:-1],
        GOOD[:20],
        b"[" + GOOD,
        b"[" + GOOD + b",]",
        GOOD + GOOD,
        GOOD + b"x",
        b"{",
        b"[",
        b'{"symbol"',
        b'{"symbol":"\\ud800","ts":1,"price":1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"\xff",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xff" + GOOD,
    ],
)
def test_what_is_no_message_is_one_reject(value: bytes | None) -> None:
    """Empty, truncated, too deep or of another format: undecodable as a whole, never an error."""
    came, rejects = decode(GOOD, value, GOOD)
    assert came["offset"].tolist() == [0, 2]
    assert [(r.offset, r.index, r.reason) for r in rejects] == [(1, -1, Reason.UNDECODABLE)]
    assert 0 < len(rejects[0].detail) <= 300


MALFORMED_FIELDS = [
    *((name, value) for name in ("price", "size", "low") for value in ('"1"', "true", "[]", "{}")),
    ("price", "null"),
    ("symbol", "7"),
    ("symbol", "null"),
    ("symbol", '["A"]'),
    ("ts", "1.7e9"),
    ("ts", "1700000000.0"),
    ("ts", "true"),
    ("ts", "null"),
    ("side", '"BUY"'),
    ("side", '""'),
    ("side", "1"),
    ("id", "1.0"),
    ("id", "true"),
    ("id", '""'),
    ("id", json.dumps("x" * 65)),
    ("id", str(2**63)),
    ("id", str(-(2**63) - 1)),
    ("id", "9" * 400),
    ("id", "[1]"),
    ("recv_ts", '"1700000000"'),
    ("recv_ts", "1.0"),
    ("recv_ts", str(2**63)),
    ("recv_ts", "9" * 400),
    ("size", "1e999"),
    ("price", "-1e999"),
    ("price", "9" * 400),
    ("\\u0073ize", '"1"'),
    ("i\\u0064", '""'),
    ("recv\\u005fts", str(2**63)),
]


@pytest.mark.parametrize(("field", "text"), MALFORMED_FIELDS)
def test_a_wrong_field_takes_only_its_own_tick(field: str, text: str) -> None:
    """The tick is rejected with its place; its neighbours in the array keep theirs."""
    items = [f'"{n}":{t}' for n, t in (("symbol", '"A"'), ("ts", "1700000000"), ("price", "1.5"))]
    bad = (
        "{" + ",".join([item for item in items if field not in item] + [f'"{field}":{text}']) + "}"
    )
    came, rejects = decode(b"[" + GOOD + b"," + bad.encode() + b"," + GOOD + b"]")
    assert came["index"].tolist() == [0, 2]
    assert [(r.offset, r.index, r.reason) for r in rejects] == [(0, 1, Reason.MALFORMED)]
    came, rejects = decode(bad.encode())
    assert len(came) == 0
    assert len(rejects) == 1


@pytest.mark.parametrize("item", ["{}", "null", "7", "[]", '"A"', '{"symbol":"A","ts":1}'])
def test_an_element_that_is_no_tick_takes_only_its_place(item: str) -> None:
    """A missing field, a scalar or an empty object amid an array: index kept, neighbours kept."""
    came, rejects = decode(b"[" + GOOD + b"," + item.encode() + b"," + GOOD + b"]")
    assert came["index"].tolist() == [0, 2]
    assert [(r.index, r.reason) for r in rejects] == [(1, Reason.MALFORMED)]


def test_an_empty_object_is_a_malformed_tick() -> None:
    """`{}` alone is JSON, so its fields are missing; it must not stop the stream."""
    came, rejects = decode(b"{}", GOOD)
    assert came["offset"].tolist() == [1]
    assert [(r.index, r.reason) for r in rejects] == [(0, Reason.MALFORMED)]


@pytest.mark.parametrize("field", ["symbol", "id", "side", "note"])
def test_text_that_is_not_utf8_is_rejected_with_its_tick(field: str) -> None:
    """JSON is UTF-8, also in fields that nobody reads; only the tick with the wrong bytes goes."""
    bad = GOOD[:-1] + b',"' + field.encode() + b'":"\xff\xfe"}'
    came, rejects = decode(b"[" + GOOD + b"," + bad + b"," + GOOD + b"]")
    assert came["index"].tolist() == [0, 2]
    assert [(r.index, r.reason) for r in rejects] == [(1, Reason.MALFORMED)]
    came, rejects = decode(bad)
    assert len(came) == 0
    assert len(rejects) == 1


def test_a_number_that_is_no_json_makes_no_array() -> None:
    """NaN and Infinity are no JSON: nothing of that message can be trusted."""
    for literal in (b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1."):
        came, rejects = decode(b"[" + GOOD + b"," + GOOD[:-4] + literal + b"}]")
        assert len(came) == 0, literal
        assert [r.reason for r in rejects] == [Reason.UNDECODABLE], literal


def test_keys_may_be_written_with_escapes() -> None:
    """A key spelled with an escape is the same key, for fields of every kind."""
    escaped = (
        b'{"symbol":"A","ts":1700000000,"price":1.5,"\\u0073ize":7,"\\u0069d":9,"s\\u0069de":"buy"}'
    )
    came, _ = decode(escaped)
    assert (came["size"][0], came["id"][0], came["side"][0]) == (7.0, 9, 0)
    came, _ = decode(escaped.replace(b'9,"s\\u0069de":"buy"', b'"x","recv\\u005fts":1700000001'))
    assert came["known_at"].tolist() == [1_700_000_001_000_000_000]
    assert came["id"].tolist() == [id_key("x")]


def test_a_field_of_one_message_is_null_in_the_others() -> None:
    """Ticks of a batch that lack what another one carries are null there, not zero."""
    came, _ = decode(GOOD, tick_bytes([DOCUMENT]), GOOD)
    assert np.isnan(came["size"]).tolist() == [True, False, True]
    assert came["id"].tolist() == [-1, 17, -1]
    assert came["side"].tolist() == [-1, 1, -1]
    assert (came["known_at"] == RECEIVED).tolist() == [True, False, True]


@pytest.mark.parametrize("symbol", ["", "A B", "x" * 33, "é", "A\n", "\x7f", "A\x00B", "\u200b"])
def test_a_symbol_that_nobody_could_type_is_marked(symbol: str) -> None:
    """The tick stays in its place with its fault; JSON and Arrow agree."""
    document = {**json.loads(GOOD), "symbol": symbol}
    for framing in ("json", "arrow"):
        came, rejects = decode(tick_bytes([document], framing), GOOD)
        assert not rejects
        assert came["fault"].tolist() == [BAD_SYMBOL, -1]


TIMES: list[Any] = [
    1_700_000_000,
    1_700_000_000_000,
    1_700_000_000_000_000,
    TS,
    "2023-11-14T22:13:20Z",
    "2023-11-14T23:13:20.000+01:00",
]
NO_TIMES: list[Any] = ["1700000000", "", "soon", "2023-11-14T22:13:20", 2**63, -(2**70), 10**300]


@given(st.lists(st.sampled_from(TIMES + NO_TIMES), min_size=1, max_size=12))
def test_a_time_is_judged_alone(times: list[Any]) -> None:
    """What a time means depends neither on its neighbours nor on the framing of the batch."""
    documents = [{"symbol": "A", "ts": ts, "price": 1.0} for ts in times]
    expected = [TS if ts in TIMES else NO_TIME for ts in times]
    values = [json.dumps(document).encode() for document in documents]
    assert decode(b"[" + b",".join(values) + b"]")[0]["ts"].tolist() == expected
    assert decode(*values)[0]["ts"].tolist() == expected


@given(st.data())
@settings(max_examples=50)
def test_the_batch_leaves_no_trace(data: st.DataObject) -> None:
    """Messages decoded together give the ticks and rejects that they give one by one."""
    values = data.draw(
        st.lists(
            st.sampled_from(
                [GOOD, tick_bytes([DOCUMENT]), table_of(), table_of(price=None), b"", b"{}",
                 b"[" + GOOD + b",7," + GOOD.replace(b"A", b"C") + b"]",
                 GOOD.replace(b"1700000000", b'"1700000000"'), GOOD.replace(b"A", b"A B"),
                 table_of(id=["x", None], side=["buy", "BUY"])]
            ),
            max_size=8,
        )
    )  # fmt: skip
    together, rejects = decode(*values)
    singles = [Decoder(3).decode([Message(i, RECEIVED, v)]) for i, v in enumerate(values)]
    assert sorted(rejects, key=lambda r: (r.offset, r.index)) == [r for _, s in singles for r in s]
    expected: dict[str, list[Any]] = {name: [] for name in plain(together)}
    for single, _ in singles:
        for name, column in plain(single).items():
            expected[name] += column
    assert plain(together) == expected


def utf8(*words: str | None) -> Any:
    """A dictionary-encoded column."""
    return pa.array(words).dictionary_encode()


ARROW_FORMS: list[dict[str, Any]] = [
    {"symbol": utf8("A", "B")},
    {"symbol": pa.array(["A", "B"], pa.large_utf8())},
    {"symbol": pa.chunked_array([["A"], ["B"]])},
    {"ts": pa.array([TS, TS + 10**9], pa.timestamp("ns", "UTC"))},
    {"ts": pa.array([TS // 10**6, TS // 10**6 + 1000], pa.timestamp("ms", "America/New_York"))},
    {"ts": pa.array([1_700_000_000, 1_700_000_001], pa.timestamp("s", "+01:00"))},
    {"ts": pa.array([1_700_000_000, 1_700_000_001], pa.int32())},
    {"ts": pa.array([TS, TS + 10**9], pa.uint64())},
    {"ts": ["2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z"]},
    {"ts": pa.array(["2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z"], pa.large_utf8())},
    {"price": pa.array([1.5, 2.5], pa.float32())},
    {"price": ["1.5", "2.5"]},
    {"price": pa.array(["1.5", "2.5"]).dictionary_encode()},
    {"size": pa.array([None, None], pa.null())},
    {"side": pa.array([None, None], pa.null())},
    {"side": ["", None]},
    {"id": pa.array([None, None], pa.int64())},
    {"unknown": [{"a": [1]}, {"a": []}]},
]


@pytest.mark.parametrize("columns", ARROW_FORMS)
def test_arrow_columns_may_have_any_fitting_type(columns: dict[str, Any]) -> None:
    """Dictionaries, chunks, zones, 32 bits, text: the same two ticks."""
    came, rejects = decode(table_of(**columns))
    assert not rejects
    assert plain(came) == plain(decode(table_of())[0])


def test_arrow_ids_may_be_text() -> None:
    """A textual id has the key that it has in JSON; an integer is itself; null is none."""
    ids = ["t-1", None]
    arrow, _ = decode(table_of(id=ids))
    array = [{**json.loads(GOOD), "id": value} for value in ids]
    assert (
        arrow["id"].tolist() == decode(tick_bytes(array))[0]["id"].tolist() == [id_key("t-1"), -1]
    )
    assert decode(table_of(id=utf8(*ids)))[0]["id"].tolist() == arrow["id"].tolist()
    assert decode(table_of(id=[5, None]))[0]["id"].tolist() == [5, -1]


def test_nulls_in_arrow_are_missing_values() -> None:
    """A null symbol, time, price or side is a fault of its own tick only."""
    came, rejects = decode(
        table_of(symbol=["A", None], price=[None, 2.5]),
        table_of(symbol=utf8(None, "B"), ts=pa.array([None, TS], pa.timestamp("ns", "UTC"))),
        table_of(ts=[None, 1_700_000_001], side=["buy", "BUY"], size=[float("nan"), 3.0]),
    )
    assert not rejects
    assert came["fault"].tolist() == [-1, BAD_SYMBOL, BAD_SYMBOL, -1, -1, MALFORMED]
    assert np.isnan(came["price"]).tolist() == [True, False, False, False, False, False]
    assert (came["ts"] == NO_TIME).tolist() == [False, False, True, False, True, False]
    assert came["size"].tolist()[-1] == 3.0


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"symbol": None}, "symbol"),
        ({"ts": None}, "ts"),
        ({"price": None}, "price"),
        ({"ts": pa.array([0, 1], pa.timestamp("ns"))}, "zone"),
        ({"ts": [1.5, 2.5]}, "time"),
        ({"ts": pa.array([1, 2], pa.date32())}, "time"),
        ({"ts": pa.array([2**63, 1], pa.uint64())}, "range"),
        ({"price": ["1,5", "2.5"]}, "double"),
        ({"price": [[1.0], [2.0]]}, "list"),
        ({"id": [1.5, 2.5], "size": [{"a": 1}, None]}, "struct"),
        ({"id": [[1], [2]]}, "list"),
        ({"symbol": [["A"], ["B"]]}, "list"),
    ],
)
def test_an_arrow_table_without_ticks_is_one_reject(columns: dict[str, Any], word: str) -> None:
    """A missing column or a type without meaning is named; the neighbours are untouched."""
    came, rejects = decode(GOOD, table_of(**columns), GOOD)
    assert came["offset"].tolist() == [0, 2]
    assert [(r.offset, r.index, r.reason) for r in rejects] == [(1, -1, Reason.MALFORMED)]
    assert word in rejects[0].detail
    assert list(came.symbols) == ["A"]  # nothing of the refused table is left


def test_a_column_that_stands_twice_is_a_reject() -> None:
    """Arrow allows two columns of one name; nobody could say which is meant."""
    twice = pa.Table.from_arrays(
        [pa.array(["A"]), pa.array([1]), pa.array([1.0]), pa.array([2.0])],
        ["symbol", "ts", "price", "price"],
    )
    came, rejects = decode(stream_of(twice))
    assert len(came) == 0
    assert [r.reason for r in rejects] == [Reason.MALFORMED]


def test_truncated_arrow_is_rejected_or_read_as_far_as_it_goes() -> None:
    """Cut at every 7th byte a stream never raises, and never yields a tick that was not sent."""
    value = table_of(symbol=utf8("A", "B"), id=["x", "y"], side=["buy", None])
    whole = plain(decode(value)[0])
    for cut in range(1, len(value), 7):
        came, rejects = decode(value[:cut])
        assert len(came) + len(rejects) > 0 or cut >= 8
        found = plain(came)
        assert all(found[name] == column[: len(came)] for name, column in whole.items())


@given(st.integers(0, 2000), st.integers(0, 255))
@settings(max_examples=150)
def test_damaged_arrow_never_crashes(at: int, byte: int) -> None:
    """One wrong byte anywhere in a stream gives rejects or ticks with places, never an error."""
    value = bytearray(table_of(symbol=utf8("A", "B"), id=["x", "y"], side=["buy", None]))
    value[at % len(value)] = byte
    came, _ = decode(bytes(value), GOOD)
    assert came["offset"].tolist()[-1] == 1
    assert came["index"].tolist()[:-1] == list(range(len(came) - 1))


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xff\xff\xff", b"\xff", b"{", b"[", b""]))
@settings(max_examples=150)
def test_random_bytes_never_crash(tail: bytes, start: bytes) -> None:
    """Whatever comes, the next message is read and the bytes are a reject or nothing."""
    came, rejects = decode(start + tail, GOOD)
    assert came["offset"].tolist()[-1] == 1
    assert all(reject.offset == 0 for reject in rejects)


@pytest.mark.parametrize("framing", ["json", "arrow"])
def test_one_tick_of_a_message_replays_alone(framing: str) -> None:
    """The bytes kept for a reject decode to the same tick at index 0."""
    documents = [
        {**DOCUMENT, "price": 1.0 + i, "id": f"t{i}", "symbol": "AB"[i % 2]} for i in range(5)
    ]
    value = b"  " * (framing == "json") + tick_bytes(documents, framing)
    whole = plain(decode(value)[0])
    for i in range(5):
        alone, rejects = decode(*element_bytes(value, [i]))
        assert not rejects
        assert plain(alone) == {
            **{name: column[i : i + 1] for name, column in whole.items()},
            "index": [0],
        }


def test_the_bytes_of_a_malformed_element_are_its_own() -> None:
    """An element that no decoder takes is kept as it came; a whole message stays whole."""
    bad = b'{"symbol" : "A", "ts":true,"price":1}'
    value = b"\n[ " + GOOD + b" , " + bad + b"]"
    assert element_bytes(value, [1, 0, 1]) == [bad, GOOD, bad]
    assert element_bytes(value, [-1]) == [value]
    assert element_bytes(GOOD, [0]) == [GOOD]
    assert element_bytes(GOOD, []) == []


@pytest.mark.timeout(5)
def test_a_message_of_nothing_but_rejects_is_taken_apart_once() -> None:
    """30,000 late ticks in one message are taken apart in linear time, or this times out."""
    value = b"[" + b",".join([GOOD] * 30_000) + b"]"
    assert set(element_bytes(value, range(30_000))) == {GOOD}


def test_text_ids_are_63_bit_keys() -> None:
    """The first 63 bits that `b2sum -l 64` prints for the text; integers are themselves."""
    assert id_key("t-1") == 0xC3415115F09B0BC2 >> 1
    keys = {id_key(f"t{i}") for i in range(10_000)}
    assert len(keys) == 10_000
    assert all(0 <= key < 2**63 for key in keys)
    assert id_key(-5) == -5
    assert id_key(None) == -1


def test_a_data_frame_is_a_message() -> None:
    """What a notebook writes with pandas is read: index dropped, zones kept."""
    table = pd.DataFrame(
        {"symbol": ["A"], "ts": pd.to_datetime(["2023-11-14T22:13:20Z"]), "price": [1.5]}
    )
    came, rejects = decode(stream_of(pa.Table.from_pandas(table)))
    assert not rejects
    assert came["ts"].tolist() == [TS]
