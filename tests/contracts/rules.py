"""What every stage promises, one function a rule; each raises AssertionError where it is broken."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.stages.base import Block
from pipeline.stages.chain import Chain
from schemas.blocks import Array
from tests.contracts.inputs import SYMBOLS, as_arrivals, cut

Make = Callable[[], Chain]
Columns = dict[str, Array]
Outcome = dict[str, dict[str, Array]]
ACROSS = {"beta_60", "corr_60"}  # features that may look at another symbol


def outcome(blocks: Sequence[Block]) -> Outcome:
    """All rows of all stages, symbols by name, in order."""
    found: Outcome = {}
    for stage in blocks[0].rows:
        parts = [block.rows[stage] for block in blocks]
        columns = {n: np.concatenate([part[n] for part in parts]) for n in parts[0].columns}
        names = [np.array([*part.symbols, ""])[part["symbol"]] for part in parts]
        columns["symbol"] = np.concatenate(names).astype("U32")
        found[stage] = columns
    return found


def run(make: Make, columns: Columns, size: int | None = None) -> Outcome:
    """A fresh chain over the ticks, in blocks of `size`."""
    return outcome(blocks_of(make(), columns, size))


def blocks_of(chain: Chain, columns: Columns, size: int | None = None) -> list[Block]:
    """The blocks that a chain makes of the ticks."""
    came = as_arrivals(columns)
    n = len(came)
    return [chain.step(came.slice(i, min(i + (size or n), n))) for i in range(0, n, size or n)]


def bits(values: Array) -> Array:
    """Values by their bits, one NaN for all nulls."""
    if values.dtype.kind != "f":
        return values
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def assert_same(ours: Outcome, theirs: Outcome, rule: str, skip: Sequence[str] = ()) -> None:
    """Bit equality of all rows."""
    for stage, columns in ours.items():
        for name, values in columns.items():
            if name in skip:
                continue
            other = theirs[stage][name]
            assert len(values) == len(other), (
                f"{rule}: {stage} has {len(values)} rows, {len(other)}"
            )
            wrong = np.flatnonzero(bits(values) != bits(other))
            assert not wrong.size, f"{rule}: {stage}.{name} differs first in row {wrong[0]}"


def upto(found: Outcome, offset: int) -> Outcome:
    """The rows that ticks below an offset triggered."""
    return {
        stage: {name: values[columns["offset"] < offset] for name, values in columns.items()}
        for stage, columns in found.items()
    }


def inputs_stay(make: Make, columns: Columns, _: np.random.Generator) -> None:
    """A step changes none of its inputs."""
    came = as_arrivals(columns)
    before = {name: values.copy() for name, values in came.columns.items()}
    make().step(came)
    for name, values in before.items():
        same = np.array_equal(bits(values), bits(came[name]))
        assert same, f"inputs stay: {name} was changed"


def any_split(make: Make, columns: Columns, rng: np.random.Generator) -> None:
    """Any split of the input gives the same bits."""
    whole = run(make, columns)
    for size in (1, int(rng.integers(2, 50))):
        assert_same(run(make, columns, size), whole, f"any split, blocks of {size}")


def any_restart(make: Make, columns: Columns, rng: np.random.Generator) -> None:
    """Snapshot and restore at any point give the same bits."""
    at = int(rng.integers(0, len(columns["ts"]) + 1))
    first = make()
    before = blocks_of(first, cut(columns, slice(0, at))) if at else []
    second = make()
    second.restore(first.snapshot())
    after = blocks_of(second, cut(columns, slice(at, None))) if at < len(columns["ts"]) else []
    assert_same(outcome([*before, *after]), run(make, columns), f"any restart, at {at}")


def any_prefix(make: Make, columns: Columns, rng: np.random.Generator) -> None:
    """What comes later changes nothing: the rows of a prefix are the rows of the whole."""
    at = int(rng.integers(1, len(columns["ts"]) + 1))
    short = run(make, cut(columns, slice(0, at)))
    assert_same(short, upto(run(make, columns), at), f"any prefix, of {at}")


def future_shock(make: Make, columns: Columns, rng: np.random.Generator) -> None:
    """Doubling all later prices changes no earlier row."""
    at = int(rng.integers(1, len(columns["ts"]) + 1))
    shocked = {name: values.copy() for name, values in columns.items()}
    for name in ("price", "bid", "ask"):
        shocked[name][at:] *= 2.0
    ours, theirs = (upto(run(make, c), at) for c in (shocked, columns))
    assert_same(ours, theirs, f"future shock, from {at}")


def finite_or_null(make: Make, columns: Columns, _: np.random.Generator) -> None:
    """Finite inputs give finite or null outputs."""
    for stage, found in run(make, columns).items():
        for name, values in found.items():
            if values.dtype.kind == "f":
                assert not np.isinf(values).any(), f"finite or null: {stage}.{name} is infinite"


def no_poison(make: Make, columns: Columns, rng: np.random.Generator) -> None:
    """A tick with a number that is none changes no other row."""
    at = int(rng.integers(0, len(columns["ts"])))
    bad = cut(columns, np.insert(np.arange(len(columns["ts"])), at, at))
    bad["price"][at] = rng.choice([np.nan, np.inf, -np.inf])
    bad["size"][at] = np.inf
    bad["offset"] = np.arange(len(bad["ts"]), dtype=np.int64)
    good = run(make, columns)
    for found in good.values():
        found["offset"] = found["offset"] + (found["offset"] >= at)
    assert_same(run(make, bad), good, f"no poison, at {at}")


def nothing_hidden(make: Make, columns: Columns, _: np.random.Generator) -> None:
    """Two fresh chains give the same bits: no chance, no clock, nothing kept between runs."""
    assert_same(run(make, columns), run(make, columns), "nothing hidden")


def one_row_a_tick(make: Make, columns: Columns, _: np.random.Generator) -> None:
    """Within a stage identity only grows: one tick triggers at most one row."""
    for stage, found in run(make, columns).items():
        place = list(zip(found["offset"].tolist(), found["index"].tolist(), strict=True))
        grows = all(a < b for a, b in itertools.pairwise(place))
        assert grows, f"one row a tick: {stage} repeats an identity"


def symbols_apart(make: Make, columns: Columns, _: np.random.Generator) -> None:
    """A symbol's rows do not depend on the other symbols, save where that is the point."""
    together = run(make, columns)
    for code in np.unique(columns["symbol"]).tolist():
        alone = run(make, cut(columns, columns["symbol"] == code))
        ours: Mapping[str, Any] = {
            stage: {n: v[found["symbol"] == SYMBOLS[code]] for n, v in found.items()}
            for stage, found in together.items()
        }
        assert_same(dict(ours), alone, f"symbols apart, {SYMBOLS[code]}", (*ACROSS, "p_up"))


RULES = (
    inputs_stay,
    any_split,
    any_restart,
    any_prefix,
    future_shock,
    finite_or_null,
    no_poison,
    nothing_hidden,
    one_row_a_tick,
    symbols_apart,
)
