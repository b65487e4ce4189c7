"""The chain as a whole: no split, restart or future tick changes a bit of what was said."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MisuseError, StateError
from pipeline.stages.chain import STATE_VERSION, Chain, ChainSettings
from schemas.arrivals import FLOATS, Arrivals, Message
from schemas.blocks import COLUMNS, STAGES
from schemas.codec import Decoder, tick_bytes
from tests.fixtures.regimes import FOLLOWED, SPX
from tests.fixtures.ticks import START, Bits, arrivals_of, bits, frame, run, settings_of, walk

N = 3000
# So that every column speaks within 3,000 ticks.
SHORT: dict[str, Any] = {"regimes": {"vol_window": 20, **FOLLOWED}}
CLOCKS: dict[str, ChainSettings] = {
    "time": settings_of(
        bars={"clock": "time:5s"},
        features={
            "reference_symbol": "B",
            "bar_ns": 5 * 10**9,
            "beta_bars": 10,
            "autocorr_bars": 20,
        },
        **SHORT,
    ),
    "ticks": settings_of(
        bars={"clock": "ticks:7"},
        features={"reference_symbol": "B", "reference_join": "span", "beta_bars": 10},
        **SHORT,
    ),
    "every": settings_of(bars={"clock": "ticks:1"}, **SHORT),
    "row": settings_of(bars={"clock": "row"}, **SHORT),
}


def dirty(n: int = N, seed: int = 0) -> pd.DataFrame:
    """A walk with late ticks, duplicates, bad prices and unusable symbols in it."""
    table = walk(n, seed=seed)
    rng = np.random.default_rng(seed + 100)
    table["id"] = np.where(rng.random(n) < 0.5, np.arange(n) - rng.integers(0, 3, n), -1)
    table.loc[rng.random(n) < 0.02, "price"] = -1.0
    table.loc[rng.random(n) < 0.02, "symbol"] = "no good"
    late = rng.random(n) < 0.03
    table.loc[late, "ts"] -= 60 * 10**9
    return table


TABLE = dirty()
CAME = arrivals_of(TABLE)
WHOLE: dict[str, Bits] = {name: bits(run(chosen, CAME)) for name, chosen in CLOCKS.items()}


# No row is a bar already; no version of gbdt is active.
SILENT = {"open", "high", "low", "p_gbdt", "shadow_p"}


def test_the_walk_makes_every_column_speak() -> None:
    """What the tests below compare is not empty: all stages have rows, columns have values."""
    rows: dict[str, list[pd.DataFrame]] = {stage: [] for stage in STAGES}
    for block in run(CLOCKS["time"], CAME):
        for stage in STAGES:
            rows[stage].append(frame(block[stage]))
    for stage in STAGES:
        table = pd.concat(rows[stage])
        assert len(table) > 30, stage
        silent = {n for n in table.columns if table[n].isna().all()} - SILENT
        assert not silent, (stage, silent)
    assert set(pd.concat(rows["regimes"])["vol"]) == {-1, 0, 1, 2}
    assert set(pd.concat(rows["signals"])["action"]) == {0, 1, 2}


@pytest.mark.parametrize("clock", CLOCKS)
@given(cuts=st.lists(st.integers(0, N), max_size=12))
@settings(max_examples=12, deadline=None)
def test_any_split_into_blocks_gives_the_same_bytes(clock: str, cuts: list[int]) -> None:
    """Every column of every stage is bit-equal however the ticks were framed."""
    assert bits(run(CLOCKS[clock], CAME, cuts)) == WHOLE[clock]


@pytest.mark.parametrize("clock", CLOCKS)
@given(cuts=st.lists(st.integers(0, N), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_a_restart_anywhere_gives_the_same_bytes(clock: str, cuts: list[int]) -> None:
    """A new chain that goes on from a snapshot is bit-equal to one that never stopped."""
    assert bits(run(CLOCKS[clock], CAME, cuts, restart=True)) == WHOLE[clock]


# From the first tick on, and again when windows have filled.
_LATE = (*range(100), *range(400, 600))
_SOME = (*range(30), *range(530, 600))


def test_single_ticks_give_the_same_bytes() -> None:
    """One tick a block, as a topic with one tick a message gives them."""
    few = arrivals_of(TABLE.iloc[:600])
    for chosen in CLOCKS.values():
        assert bits(run(chosen, few, _LATE)) == bits(run(chosen, few))


def test_a_restart_after_every_tick_gives_the_same_bytes() -> None:
    """Nothing that matters lives outside the snapshot."""
    few = arrivals_of(TABLE.iloc[:600])
    for chosen in CLOCKS.values():
        assert bits(run(chosen, few, _SOME, restart=True)) == bits(run(chosen, few))


@pytest.mark.parametrize("clock", ["time", "ticks"])
def test_framing_and_batches_leave_no_trace(clock: str) -> None:
    """The same ticks as messages of 1, 3 or 50 ticks, JSON or Arrow, give the same rows."""
    kept = TABLE.iloc[:400].drop(columns="id")
    documents: list[dict[str, Any]] = [
        {str(k): v for k, v in row.items() if v is not None and v == v}  # noqa: PLR0124 -- NaN is left out
        for row in kept.to_dict("records")
    ]
    seen = []
    for frame_size, framing, batch in (
        (1, "json", 7),
        (3, "json", 1),
        (50, "arrow", 2),
        (1, "arrow", 90),
    ):
        chain, decoder = Chain(CLOCKS[clock], 2), Decoder(2)
        values = [
            tick_bytes(documents[i : i + frame_size], framing) for i in range(0, 400, frame_size)
        ]
        messages = [Message(i, int(kept["ts"].max()), value) for i, value in enumerate(values)]
        blocks = [
            chain.step(*decoder.decode(messages[i : i + batch])).rows
            for i in range(0, len(messages), batch)
        ]
        found = bits(blocks)
        for stage in STAGES:
            for name in ("offset", "index"):
                del found[stage][name]
        seen.append(found)
    assert len(seen[0]["features"]["ts"]) > 0
    assert all(found == seen[0] for found in seen)


def upto(found: Bits, stage: str, name: str, rows: int) -> bytes:
    """The first rows of a column."""
    whole = found[stage][name]
    total = len(found[stage]["offset"]) // 8
    return whole[: rows * (len(whole) // total if total else 0)]


def rows_before(found: Bits, stage: str, offset: int) -> int:
    """How many rows the ticks before this offset triggered."""
    return int((np.frombuffer(found[stage]["offset"], np.int64) < offset).sum())


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("at", [1, 777, 1500, 2999])
def test_a_run_that_ends_earlier_said_the_same(clock: str, at: int) -> None:
    """Truncation: all that the first ticks made is bit-equal when nothing follows."""
    chain = Chain(CLOCKS[clock])
    short = bits([chain.step(CAME.slice(0, at)).rows])
    for stage in STAGES:
        rows = rows_before(WHOLE[clock], stage, at)
        assert len(short[stage]["offset"]) == 8 * rows, stage
        for column in COLUMNS[stage]:
            assert short[stage][column.name] == upto(WHOLE[clock], stage, column.name, rows)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("at", [500, 2000])
def test_a_shock_in_the_future_changes_nothing_before_it(clock: str, at: int) -> None:
    """All numbers after t doubled, sides turned: no column up to t moves, later ones do."""
    shocked = Arrivals(0, {n: v.copy() for n, v in CAME.columns.items()}, CAME.symbols)
    for name in FLOATS:
        shocked[name][at:] *= 2
    shocked["side"][at:] = np.where(shocked["side"][at:] >= 0, 1 - shocked["side"][at:], -1)
    after = bits(run(CLOCKS[clock], shocked))
    for stage in STAGES:
        rows = rows_before(WHOLE[clock], stage, at)
        assert rows_before(after, stage, at) == rows
        for column in COLUMNS[stage]:
            name = column.name
            assert upto(after, stage, name, rows) == upto(WHOLE[clock], stage, name, rows), name
        assert after[stage] != WHOLE[clock][stage], stage


def test_inputs_are_not_touched() -> None:
    """A step writes into no array of its argument, and earlier rows stay as they were given."""
    came = arrivals_of(TABLE)
    before = {name: values.tobytes() for name, values in came.columns.items()}
    chain = Chain(CLOCKS["time"])
    first = chain.step(came.slice(0, 1000)).rows
    kept = bits([first])
    chain.step(came.slice(1000, N))
    chain.finish(N)
    assert {name: values.tobytes() for name, values in came.columns.items()} == before
    assert bits([first]) == kept


def test_read_only_inputs_are_enough() -> None:
    """Arrays that cannot be written, as Arrow gives them, pass through every stage."""
    came = arrivals_of(TABLE.iloc[:300])
    for values in came.columns.values():
        values.setflags(write=False)
    assert bits(run(CLOCKS["time"], came)) == bits(
        run(CLOCKS["time"], arrivals_of(TABLE.iloc[:300]))
    )


def test_identity_grows_within_every_stage() -> None:
    """(offset, index) is strictly increasing in each stage: one tick triggers at most one row."""
    for found in WHOLE.values():
        for stage in STAGES:
            offsets = np.frombuffer(found[stage]["offset"], np.int64)
            places = np.frombuffer(found[stage]["index"], np.int32)
            key = offsets * 2**20 + places
            assert (np.diff(key) > 0).all(), stage


def test_symbols_do_not_touch_each_other() -> None:
    """Without a reference symbol every row of one symbol is what it would be alone."""
    table = walk(1500)
    chosen = settings_of(bars={"clock": "time:5s"}, **SHORT)
    both = run(chosen, arrivals_of(table))
    mine = table[table["symbol"] == "A"].copy()
    mine["offset"] = mine.index
    alone = run(chosen, arrivals_of(mine))
    for stage in STAGES:
        one = pd.concat(frame(block[stage]) for block in alone[:-1])
        two = pd.concat(frame(block[stage]) for block in both[:-1])
        two = two[two["symbol"] == "A"]
        assert len(one) > 0
        pd.testing.assert_frame_equal(
            one.reset_index(drop=True), two.reset_index(drop=True), check_exact=True
        )


def snapshot() -> bytes:
    """The state of a chain in the middle of the walk."""
    chain = Chain(CLOCKS["time"])
    chain.step(CAME.slice(0, 100))
    return chain.snapshot()


def test_a_damaged_snapshot_is_refused() -> None:
    """Any byte changed, any end cut off: StateError, never a chain that continues wrongly."""
    good = snapshot()
    chain = Chain(CLOCKS["time"])
    chain.restore(good)
    places = [*range(120), *np.random.default_rng(0).integers(120, len(good), 150).tolist()]
    for at in places:
        bad = bytearray(good)
        bad[at] ^= 0x41
        with pytest.raises(StateError):
            Chain(CLOCKS["time"]).restore(bytes(bad))
    for end in (0, 1, 50, len(good) // 2, len(good) - 1):
        with pytest.raises(StateError):
            Chain(CLOCKS["time"]).restore(good[:end])
    with pytest.raises(StateError):
        Chain(CLOCKS["time"]).restore(good + b"\x00")


OTHERS: list[dict[str, Any]] = [
    {"bars": {"clock": "time:6s"}},
    {"bars": {"clock": "time:5s", "execution_latency": 1}},
    {"guard": {"mode": "plain"}},
    {"guard": {"max_symbols": 5}},
    {"features": {"rsi_bars": 15}},
    {"regimes": {"trend_above": 0.31}},
    {"regimes": {"hmm": SPX}},
    {"regimes": {"cusum": {}}},
    {"predictions": {"horizon": 6}},
    {"signals": {"cost_bp": 0.26}},
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_snapshot_of_other_settings_is_refused(other: dict[str, Any]) -> None:
    """Every setting that decides a number is part of the fingerprint."""
    chain = Chain(ChainSettings())
    chain.step(CAME.slice(0, 50))
    chosen = settings_of(**other)
    assert chosen.fingerprint() != ChainSettings().fingerprint()
    with pytest.raises(StateError, match="settings"):
        Chain(chosen).restore(chain.snapshot())


def test_equal_settings_have_equal_fingerprints() -> None:
    """However they were given, and also in another process: no hash of Python's is in it."""
    assert (
        settings_of(bars={"clock": "row"}).fingerprint()
        == ChainSettings.model_validate_json(
            '{"bars":{"clock":"row","execution_latency":0}}'
        ).fingerprint()
    )
    assert len(ChainSettings().fingerprint()) == 32
    assert STATE_VERSION == 2


def test_a_feature_set_is_told_by_what_makes_its_columns() -> None:
    """Settings up to the features, a user's source and the columns count; nothing else does."""
    names = ("bar_ret_1", "close")
    source = "from pipeline.stages.custom import feature\n"

    def of(columns: tuple[str, ...] = names, **changes: Any) -> str:
        return settings_of(**changes).feature_set(columns)

    def user(path: str, text: str) -> dict[str, Any]:
        return {"features": ({"path": path, "source": text},)}

    others = [
        of(names[::-1]),
        of(("bar_ret_1", "open")),
        of(guard={"mode": "plain"}),
        of(bars={"clock": "ticks:7"}),
        of(features={"rsi_bars": 9}),
        of(user=user("a.py", source)),
        of(user=user("a.py", source + "\n")),
    ]
    assert len({of(), *others}) == 1 + len(others)
    assert of(bars={"execution_latency": 5}) == of()
    assert of(predictions={"horizon": 9}, signals={"cost_bp": 3}, fills={"cash": 5}) == of()
    assert of(user=user("b.py", source)) == of(user=user("a.py", source))
    for name in ("nothing", "symbol", "ts", "n"):
        with pytest.raises(MisuseError, match=f"no column of numbers {name}"):
            of((name,))


def test_a_snapshot_is_a_copy() -> None:
    """Stepping on after a snapshot changes neither it nor the chain restored from it."""
    chain = Chain(CLOCKS["time"])
    chain.step(CAME.slice(0, 1000))
    data = chain.snapshot()
    first = Chain(CLOCKS["time"])
    first.restore(data)
    expected = bits([first.step(CAME.slice(1000, 2000)).rows])
    chain.step(CAME.slice(1000, N))
    second = Chain(CLOCKS["time"])
    second.restore(data)
    assert bits([second.step(CAME.slice(1000, 2000)).rows]) == expected
    assert data == bytes(data)


def test_nothing_in_nothing_out() -> None:
    """An empty block gives empty rows of every stage and moves no state."""
    chain = Chain(CLOCKS["time"])
    chain.step(CAME.slice(0, 500))
    before = chain.snapshot()
    block = chain.step(CAME.slice(500, 500))
    assert {stage: len(rows) for stage, rows in block.rows.items()} == dict.fromkeys(STAGES, 0)
    assert chain.snapshot() == before
    assert CAME["ts"][0] >= START


def test_books_begin_anew_and_what_was_learnt_stays() -> None:
    """Features, regimes and predictions go on bit for bit; decisions and books as at a start."""
    came = arrivals_of(walk(4000, ("A",)))
    settings = settings_of(signals={"follow": "boll_z_20"}, equity={"period": "1m"})
    one, other = Chain(settings), Chain(settings)
    for chain in (one, other):
        chain.step(came.slice(0, 2000))
    other.begin_books()
    going, begun = (chain.step(came.slice(2000, 4000)).rows for chain in (one, other))
    for stage in ("features", "regimes", "predictions"):
        for name, values in going[stage].columns.items():
            np.testing.assert_array_equal(values, begun[stage][name])
    assert begun["signals"]["ts"][0] == begun["bars"]["ts"][0]  # what stands is said again
    first = begun["fills"]
    assert first["position"][0] == pytest.approx(first["quantity"][0] * (1 - 2 * first["side"][0]))
    assert begun["equity"]["fees"][0] < going["equity"]["fees"][0]
