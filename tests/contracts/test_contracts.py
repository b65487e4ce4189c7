"""Every rule over every stage, and every rule against a stage that breaks just it."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.settings import load_settings
from pipeline.stages.base import Block, State
from pipeline.stages.chain import Chain
from schemas.blocks import Rows
from tests.contracts.inputs import tick_runs
from tests.contracts.rules import RULES, Make
from tests.fixtures.boosted import activated, speaking
from tests.fixtures.regimes import FOLLOWED

Rule = Callable[[Make, dict[str, Any], np.random.Generator], None]
CLOCKS = ("time:10s", "ticks:7", "ticks:1", "row")
SHORT, LONG = 12, 10_000


def chain_of(clock: str, mode: str) -> Make:
    """Chains with a reference symbol, versions of gbdt and a user's features.

    These are those that the environment names.
    """
    mine = Path(__file__).with_name("mine.py")
    user = load_settings().user
    named = bool(user.features or user.engines)
    own = () if named else tuple(f'user.{kind}=["{mine}"]' for kind in ("features", "engines"))
    guard = (f"guard.mode={mode}", "guard.consecutive_ids=true", "guard.warm_up=5")
    sets = (f"bars.clock={clock}", "features.reference_symbol=REF", *guard)
    followed = f"regimes={json.dumps({**FOLLOWED, 'vol_window': 20, 'hysteresis': 0.05})}"
    chosen = load_settings(
        (*sets, *own, followed, "predictions.horizon=3", "predictions.selection_hold=2")
    ).chain

    def make() -> Chain:
        chain = Chain(chosen)
        selected = {"low": speaking(2), "high": speaking(3), "extreme": speaking(3)}
        chain.predictions.activate(activated(speaking(1), speaking(2), selected=selected))
        return chain

    return make


def _hold(rule: Rule, make: Make, examples: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    @settings(
        phases=phases,
        max_examples=examples,
        deadline=None,
        derandomize=examples == SHORT,
        suppress_health_check=list(HealthCheck),
    )
    @given(columns=tick_runs(), seed=st.integers(0, 2**32 - 1))
    def check(columns: dict[str, Any], seed: int) -> None:
        rule(make, columns, np.random.default_rng(seed))

    check()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_stages_keep_the_rules(rule: Rule, clock: str) -> None:
    """All stages together keep the rule on every clock."""
    _hold(rule, chain_of(clock, "full"), SHORT)


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["full", "plain"])
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_stages_keep_the_rules_for_long(rule: Rule, clock: str, mode: str) -> None:
    """The same with ten thousand examples in all, and both modes of the guard."""
    _hold(rule, chain_of(clock, mode), LONG // (len(RULES) * len(CLOCKS) * 2))


class Planted:
    """A stage at the end of the chain that breaks one rule in the column `ret_1`."""

    name: ClassVar[str] = "planted"
    runs = itertools.count()

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._sum = 0.0
        self._hidden = 0.0
        self._run = float(next(Planted.runs))

    def step(self, block: Block) -> Block:
        """The block with a broken column."""
        rows = block.rows["features"]
        close = block.rows["bars"]["close"]
        values = rows["ret_1"].copy()
        fault = getattr(self, f"_{self._fault}")(block, close, values)
        if isinstance(fault, Rows):
            return block.plus(fault)
        return block.plus(Rows(rows.stage, {**rows.columns, "ret_1": fault}, rows.symbols))

    def snapshot(self) -> State:
        """All but what is hidden."""
        return {"sum": np.array([self._sum])}

    def restore(self, state: State) -> None:
        """The same."""
        self._sum = float(state["sum"][0])

    def rename(self, old: int, new: int) -> None:
        """Nothing is kept by symbol."""

    def _inputs_stay(self, block: Block, _: Any, values: Any) -> Any:
        block.arrivals["price"][:] *= 1.0000001
        return values

    def _any_split(self, _: Block, close: Any, values: Any) -> Any:
        return values + np.arange(len(close))  # the place in the block

    def _any_restart(self, _: Block, close: Any, values: Any) -> Any:
        for i in range(len(close)):
            self._hidden += 1.0
            values[i] = self._hidden
        return values

    def _any_prefix(self, block: Block, close: Any, values: Any) -> Any:
        return values + len(block.arrivals) if len(close) else values

    def _future_shock(self, _: Block, close: Any, __: Any) -> Any:
        return close - np.append(close[1:], close[-1:])  # a centred window

    def _finite_or_null(self, _: Block, __: Any, values: Any) -> Any:
        return np.full(len(values), np.inf)

    def _no_poison(self, block: Block, _: Any, values: Any) -> Any:
        self._sum += float(block.arrivals["price"].sum())  # what the guard rejects, too
        return values + self._sum

    def _nothing_hidden(self, _: Block, __: Any, values: Any) -> Any:
        return np.full(len(values), self._run)

    def _one_row_a_tick(self, block: Block, _: Any, __: Any) -> Any:
        rows = block.rows["features"]
        return rows.take(np.repeat(np.arange(len(rows)), 2))

    def _symbols_apart(self, _: Block, close: Any, values: Any) -> Any:
        for i in range(len(close)):
            self._sum += close[i]
            values[i] = self._sum
        return values


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_finds_its_planted_fault(rule: Rule) -> None:
    """A stage that breaks a rule does not pass it."""

    def make() -> Chain:
        chain = chain_of("ticks:1", "full")()
        chain._stages = (*chain.stages, Planted(rule.__name__))
        return chain

    with pytest.raises(AssertionError):
        _hold(rule, make, SHORT, [Phase.generate])  # one is enough, it need not be the smallest
