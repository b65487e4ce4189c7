"""Versions that are swapped on a partition: where they may be, and what a new owner makes of it."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from agents.partition import OwnedPartition
from agents.ports import Arrived, Stepped
from agents.swaps import offer_for
from pipeline.models.following import Offer
from pipeline.stages.boosted import Activated
from schemas.arrivals import Message
from schemas.blocks import STAGES, Rows
from tests.fixtures.boosted import activated, speaking
from tests.fixtures.ticks import START, settings_of

SETTINGS = settings_of(bars={"clock": "ticks:1"}, guard={"mode": "plain"})
ONE, TWO = Offer("gbdt", 1, speaking(1)), Offer("gbdt", 2, speaking(2), speaking(1))
OTHER = Offer("m", 1, None)
N = 120


def messages() -> list[Arrived]:
    """Of a tick each; now and then one that nobody can read."""
    rng = np.random.default_rng(1)
    price = np.round(100 + np.cumsum(rng.normal(0, 0.1, N)), 2)
    found = []
    for i in range(N):
        tick = {"symbol": "AB"[i % 2], "ts": START + i * 10**9, "price": price[i], "size": 1.0}
        value = b"?" if i % 17 == 5 else json.dumps(tick).encode()
        found.append(Arrived(0, b"key", Message(i, START + i * 10**9, value)))
    return found


def said(made: Sequence[Stepped | None]) -> dict[tuple[int, int], float]:
    """What the engine said of each row."""
    parts: list[Rows] = [one.batch.rows["predictions"] for one in made if one is not None]
    return {
        (offset, index): p
        for rows in parts
        for offset, index, p in zip(
            *(rows[name].tolist() for name in ("offset", "index", "p_gbdt")), strict=True
        )
    }


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_new_owner_makes_the_same_rows(size: int) -> None:
    """Of the first owner's messages in other batches, from a snapshot of before, or from nothing.

    The places of the swaps are what it knows; one falls on a message that makes no row.
    """
    came = messages()
    first, made, snapshot = OwnedPartition(SETTINGS, 0, 1), [], b""
    swaps = {0: ONE, 39: TWO, 90: Offer("gbdt", 3, None)}
    assert came[39].message.value == b"?"
    for low, high in ((0, 20), (20, 39), (39, 90), (90, N)):
        made.append(first.step(came[low:high], swaps.get(low)))
        if low == 20:
            snapshot = first.copied()()
    planned = [one.batch.activation for one in made if one is not None and one.batch.activation]
    assert [(one.place, one.generation) for one in planned] == [
        ((0, 0), 1),
        ((39, 0), 2),
        ((90, 0), 3),
    ]
    known: list[Activated] = [swaps[one.offset].at(*one.place) for one in planned]
    for restored in (False, True):
        other = OwnedPartition(SETTINGS, 0, 2)
        if restored:
            other.restore(38, snapshot)
        other.plan(known)
        start = 60
        while other.next_offset < start:
            at = other.next_offset
            other.catch_up(came[at : min(at + size, start)])
        other.settled()
        again = []
        while other.next_offset < N:
            at = other.next_offset
            again.append(other.step(came[at : at + size]))
        whole, rest = said(made), said(again)
        np.testing.assert_equal(rest, {at: p for at, p in whole.items() if at[0] >= start})
        assert other.copied()() == first.copied()()
        assert other.activation == first.activation == planned[-1]
    assert {np.isnan(p) for (at, _), p in said(made).items() if at >= 90} == {True}
    for stage in STAGES:
        assert all(one is not None and stage in one.batch.rows for one in made)


@pytest.mark.parametrize(
    ("last", "first", "published", "newest", "wanted"),
    [
        (None, 5, 0, ONE, ONE),
        (None, 5, 0, None, None),
        (None, 5, 5, ONE, ONE),
        (None, 5, 6, ONE, None),  # an older owner may have published 5
        (activated(speaking(1), offset=2), 5, 0, ONE, None),  # it speaks already
        (activated(speaking(1), offset=2), 5, 0, TWO, TWO),
        (activated(speaking(1), offset=2, generation=3), 5, 0, TWO, None),  # older news
        (activated(speaking(1), offset=5), 5, 0, TWO, None),  # it is planned here
        (activated(speaking(1), offset=9), 5, 0, TWO, None),  # or later
        (
            activated(speaking(1), offset=2, generation=3),
            5,
            0,
            Offer("m", 1, None),
            Offer("m", 1, None),
        ),
    ],
)
def test_where_versions_may_be_swapped(
    last: Activated | None, first: int, published: int, newest: Offer | None, wanted: Offer | None
) -> None:
    """Newer ones of the model, or another model; behind what is planned or may be published."""
    owned = OwnedPartition(SETTINGS, 0, 1)
    owned.published = published
    if last is not None:
        owned.plan([last])
    assert offer_for(owned, messages()[first : first + 3], newest) == wanted
    assert offer_for(owned, [], newest) is None
