"""Keys, documents and their order, without a server."""

import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus.encoding import row_bytes
from pipeline.cache.latest import (
    IDENTITY_WIDTH,
    KEYS,
    channel_of,
    encode,
    entries,
    key_of,
    open_cache,
    row_entries,
)
from pipeline.errors import UnavailableError
from pipeline.settings import CacheSettings
from schemas.blocks import ENGINES, STAGES, empty, names_of
from schemas.codec import row_documents
from tests.fixtures.rows import newest, rows_of

IDENTITIES = st.tuples(st.integers(0, 1023), st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))


def document(identity: tuple[int, int, int]) -> bytes:
    """The bytes that the cache keeps for a row of this identity."""
    partition, offset, index = identity
    return encode({"partition": partition, "offset": offset, "index": index, "x": 1.5, "y": None})


@given(IDENTITIES, IDENTITIES)
def test_text_order_of_the_prefix_is_identity_order(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    """What the script compares as text compares as (partition, offset, index) does."""
    first, second = document(one)[:IDENTITY_WIDTH], document(other)[:IDENTITY_WIDTH]
    assert len(first) == len(second) == IDENTITY_WIDTH
    assert (first < second) == (one < other)
    assert (first == second) == (one == other)


@given(IDENTITIES)
def test_the_document_is_json_with_all_its_fields(identity: tuple[int, int, int]) -> None:
    """The prefix is part of a valid object, not a foreign header."""
    found = json.loads(document(identity))
    assert (found["partition"], found["offset"], found["index"]) == identity
    assert (found["x"], found["y"]) == (1.5, None)
    assert [int(part) for part in found["at"].split("-")] == list(identity)


@pytest.mark.parametrize("stage", STAGES)
def test_a_row_of_each_stage_becomes_its_key(stage: str) -> None:
    """Key, JSON document with every column, and the channel of the stage."""
    rows = empty(stage, 1, ["EURUSD"])
    for name in ("symbol", "partition", "offset", "index", "ts"):
        rows.columns[name][:] = 0
    found = entries(stage, row_documents(rows))
    key, value, channel = found[0]
    assert key == key_of(stage, "EURUSD")
    assert key.startswith(f"{KEYS[stage]}:EURUSD")
    assert channel == channel_of(stage)
    assert set(names_of(stage)) <= set(json.loads(value))
    assert len({channel for _, _, channel in found}) == len(found)
    assert len(found) == (1 + len(ENGINES) if stage == "predictions" else 1)


def test_every_engine_has_a_key_with_its_own_probability() -> None:
    """prediction:{symbol}:{engine} carries the engine's p_up, the combined one the mixture."""
    rows = empty("predictions", 1, ["A"])
    for name in ("symbol", "partition", "offset", "index", "ts"):
        rows.columns[name][:] = 0
    said = {name: (1 + place) / 8 for place, name in enumerate(ENGINES)}
    rows.columns["p_up"][:] = 0.5
    for name, value in said.items():
        rows.columns[f"p_{name}"][:] = value
    found = {
        key: json.loads(value)["p_up"]
        for key, value, _ in entries("predictions", row_documents(rows))
    }
    assert found == {
        "prediction:A:combined": 0.5,
        **{f"prediction:A:{name}": value for name, value in said.items()},
    }


@pytest.mark.parametrize("stage", STAGES)
def test_entries_of_rows_are_those_of_their_documents(stage: str) -> None:
    """The worker's short way writes what the plain way writes; numbers may be spelt otherwise."""
    rows = rows_of(stage, range(7))
    plain = entries(stage, row_documents(rows))
    short = row_entries(rows, row_bytes)
    assert sorted((key, channel) for key, _, channel in short) == sorted(
        (key, channel) for key, _, channel in plain
    )
    values = defaultdict(list)
    for key, value, _ in short:
        values[key].append(value)
    for key, value, _ in plain:
        mine = values[key].pop(0)
        assert mine[:IDENTITY_WIDTH] == value[:IDENTITY_WIDTH]
        assert list(json.loads(mine).items()) == list(json.loads(value).items())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.lists(st.integers(0, 30)))
def test_only_the_last_row_of_a_symbol_is_latest(codes: list[int], cuts: list[int]) -> None:
    """Of many rows each symbol's last one is kept, in however many parts they come."""
    rows = empty("signals", len(codes), list("ABCDE"))
    rows.columns["symbol"][:] = codes
    rows.columns["offset"][:] = np.arange(len(codes))
    rows.columns["ts"][:] = 0
    edges = [0, *sorted(min(cut, len(codes)) for cut in cuts), len(codes)]
    parts = [rows.take(slice(low, high)) for low, high in pairwise(edges)]
    documents = newest(*parts)
    found = {d["symbol"]: d["offset"] for d in documents}
    assert len(documents) == len(found)
    assert found == {"ABCDE"[code]: place for place, code in enumerate(codes)}


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "redis//:hunter2@host",
        "redis://:hunter2@host:port",
        "redis://u:hunt/er2@host/x:1",
    ],
)
def test_an_address_that_cannot_be_read_is_said_so(url: str) -> None:
    """A wrong URL is one line that names the setting, and nothing of what may be a password."""
    with pytest.raises(UnavailableError, match="TICKSTREAM_REDIS cannot be read") as said:
        open_cache(url, CacheSettings())
    assert said.value.__cause__ is None
    assert not any(part in str(said.value) for part in ("hunt", "er2", "nonsense"))
